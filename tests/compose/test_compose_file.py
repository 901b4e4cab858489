"""docker-compose.yml and its configuration files agree with each other and with the drills. Needs no engine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hamgr.cli.config import read_config
from hamgr.cli.context import Globals
from hamgr.cli.rest import RestAccess
from hamgr.drill.compose_cluster import drilled
from hamgr.drill.compose_project import MEMBERS, PASSWORDS, PORTS, STORES, compose_file
from hamgr.drill.plan import Place, Plan
from hamgr.settings import load

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]


def variables(suffix: str) -> set[str]:
    return set(re.findall(rf"\$\{{HAMGR_(\w+)_{suffix}:-", TEXT))


def test_whatever_can_be_set_has_a_default_and_stands_at_the_top() -> None:
    assert not re.findall(r"\$\{\w+\}", TEXT)
    top = TEXT[: TEXT.index("services:")]
    assert set(re.findall(r"\$\{(\w+):-", TEXT)) <= set(re.findall(r"\w+", top))


def test_every_service_has_a_health_check_and_no_more_rights_than_it_needs() -> None:
    for name, service in SERVICES.items():
        assert service["healthcheck"]["test"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_every_name_leads_to_the_address_of_its_service() -> None:
    for name, service in SERVICES.items():
        assert service["extra_hosts"][name] == service["networks"]["cluster"]["ipv4_address"]


def test_ports_are_published_at_the_address_that_was_chosen_only() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("${HAMGR_BIND:-127.0.0.1}:") for port in published)


def test_drills_know_all_ports_and_passwords_and_the_services() -> None:
    assert variables("PORT") == set(PORTS)
    assert variables("PASSWORD") == set(PASSWORDS)
    assert set(MEMBERS) | set(STORES) | {"haproxy", "pgbouncer"} <= SERVICES.keys()
    assert compose_file() == ROOT / "docker-compose.yml"


def test_haproxy_leads_to_the_members_and_ends_sessions_of_a_former_primary() -> None:
    text = (ROOT / "config" / "haproxy.cfg").read_text()
    assert re.findall(r"server (\w+) \w+:5432 check port 8008", text) == 3 * [*MEMBERS]
    assert re.search(r"default-server .*on-marked-down shutdown-sessions", text)


@pytest.mark.parametrize("mode", ["off", "quorum"])
def test_members_of_a_drill_differ_from_those_of_a_user_by_what_the_plan_asks(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both files are accepted with the environment that docker-compose.yml gives."""
    users = ROOT / "config" / "docker" / "hamgr.yml"
    plan = Plan(tmp_path, None, Place.COMPOSE, ttl_s=3, synchronous_mode=mode)
    made = tmp_path / "hamgr.yml"
    made.write_text(yaml.safe_dump(drilled(yaml.safe_load(users.read_text()), plan)))
    for name, value in SERVICES["db1"]["environment"].items():
        monkeypatch.setenv(name, re.sub(r"\$\{\w+:-(.*?)\}", r"\1", str(value)))
    assert load(users).warnings == ()
    theirs, ours = load(users).settings, load(made).settings
    login = theirs.restapi.authentication
    assert login.password is not None
    assert (login.username, login.password.get_secret_value()) == ("admin", "admin-password")
    assert read_config(Globals(config_file=users)).rest == RestAccess("admin", "admin-password")
    assert (theirs.name, ours.name) == ("db1", "db1")
    assert theirs.bootstrap.dcs["ttl"] == 5
    assert (ours.bootstrap.dcs["ttl"], ours.bootstrap.dcs["synchronous_mode"]) == (3, mode)
    assert theirs.postgresql.pg_hba == ours.postgresql.pg_hba
