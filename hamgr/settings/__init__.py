"""Configuration: one option table feeds parser, validation, reference page and sample file."""

from hamgr.settings.dynamic import DynamicPostgresql, DynamicSettings, parse_dynamic
from hamgr.settings.kinds import Address, Listen, is_network, parse_seconds
from hamgr.settings.load import load
from hamgr.settings.postgres import PostgresqlSection, Role
from hamgr.settings.problem import Problem, SettingsError
from hamgr.settings.shown import Effective, Loaded, effective
from hamgr.settings.table import (
    BootstrapSection,
    CtlSection,
    EtcdSection,
    GuardSection,
    HaproxyBalancer,
    LogSection,
    PgbouncerPool,
    RestapiSection,
    Settings,
    TagsSection,
    WatchdogSection,
)

__all__ = [
    "Address",
    "BootstrapSection",
    "CtlSection",
    "DynamicPostgresql",
    "DynamicSettings",
    "Effective",
    "EtcdSection",
    "GuardSection",
    "HaproxyBalancer",
    "Listen",
    "Loaded",
    "LogSection",
    "PgbouncerPool",
    "PostgresqlSection",
    "Problem",
    "RestapiSection",
    "Role",
    "Settings",
    "SettingsError",
    "TagsSection",
    "WatchdogSection",
    "effective",
    "is_network",
    "load",
    "parse_dynamic",
    "parse_seconds",
]
