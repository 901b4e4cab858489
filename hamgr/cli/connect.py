"""A cluster to talk to: its keys in etcd, by calls that block, and access to its members' REST."""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from hamgr.cli.config import CliConfig, read_config
from hamgr.cli.context import Globals
from hamgr.cli.errors import BadConfig, Refused, Unavailable
from hamgr.cli.rest import RestAccess
from hamgr.core.cluster import ClusterView
from hamgr.core.policy import Policy
from hamgr.core.result import Result
from hamgr.core.units import Instant
from hamgr.dcs.client import EtcdClient
from hamgr.dcs.errors import OutcomeUnknown, StoreError, StoreRefused
from hamgr.dcs.etcd import EtcdStore
from hamgr.dcs.keys import ScopeKeys
from hamgr.dcs.remembered import recalled
from hamgr.dcs.store import TxnOutcome
from hamgr.settings import parse_dynamic

Outcome = TypeVar("Outcome")


@dataclass(frozen=True, slots=True)
class Site:
    """One cluster. Every method raises Unavailable when etcd does not answer, Refused when it says no."""

    scope: str
    config: CliConfig

    @property
    def rest(self) -> RestAccess:
        """How its members' REST is called."""
        return self.config.rest

    def run(self, operation: Callable[[EtcdStore], Awaitable[Outcome]]) -> Outcome:
        """Carry an operation out in an event loop and a connection of its own."""
        return asyncio.run(self._with_store(operation))

    def read_view(self) -> ClusterView:
        """The cluster's keys by one linearizable read."""
        return self.run(lambda store: store.read())

    def read_or_recall(self) -> ClusterView:
        """The cluster's keys; while etcd does not answer, those that this host's member remembers, and that is said."""
        try:
            return self.read_view()
        except Unavailable as problem:
            view = self._recalled()
            if view is None:
                raise
            click.echo(f"{problem}; shown as this host's member last saw the cluster: {self.config.memory}", err=True)
            return view

    def _recalled(self) -> ClusterView | None:
        try:
            text = self.config.memory.read_text() if self.config.memory is not None else ""
            return recalled(ScopeKeys.of(self.scope, self.config.namespace), text, Instant(0.0)) if text else None
        except (OSError, ValueError, RecursionError):
            return None

    def records(self, limit: int) -> list[Mapping[str, Any]]:
        """Failover records, newest first."""

        async def read(store: EtcdStore) -> list[Mapping[str, Any]]:
            return list(await store.list_records(limit))

        return self.run(read)

    def put_config(self, values: Mapping[str, Any], expected_revision: int) -> None:
        """Write the dynamic configuration over the revision that was read. Raises Refused if it has changed."""
        require_done(self.run(lambda store: store.put_config(values, expected_revision)), "the configuration")

    def policy_of(self, view: ClusterView) -> Policy:
        """What the cluster agreed on, as every member understands it; defaults where nothing can be read."""
        values = view.config.values if view.config is not None else None
        return parse_dynamic(values or {})[0].policy()

    async def _with_store(self, operation: Callable[[EtcdStore], Awaitable[Outcome]]) -> Outcome:
        try:
            store = EtcdStore(EtcdClient(self.config.etcd), ScopeKeys.of(self.scope, self.config.namespace))
            try:
                return await operation(store)
            finally:
                await store.close()
        except OutcomeUnknown as problem:
            raise Unavailable(f"whether it was done is not known: {problem}", problem.hint) from problem
        except StoreRefused as problem:
            raise Refused(str(problem), problem.hint) from problem
        except StoreError as problem:
            raise Unavailable(str(problem), problem.hint) from problem


def connect(globals_: Globals, cluster_name: str | None = None) -> Site:
    """The cluster that was named, else the configured one. Opens nothing yet. Raises BadConfig."""
    config = read_config(globals_)
    scope = cluster_name or config.scope
    if not scope:
        raise BadConfig("no cluster is named", "set `scope` in the configuration, or name the cluster")
    try:
        ScopeKeys.of(scope, config.namespace)
    except ValueError as problem:
        raise BadConfig(f"a cluster cannot be named {scope!r} in {config.namespace!r}: {problem}") from problem
    return Site(scope, config)


def require_done(outcome: TxnOutcome, what: str) -> None:
    """Raises Refused when somebody was quicker, Unavailable when etcd's answer was lost."""
    if outcome.result is Result.UNKNOWN:
        raise Unavailable(f"whether {what} was written is not known", "look again before you repeat it")
    if not outcome.is_done:
        raise Refused(f"{what} has been changed by somebody else meanwhile", "look at it and try again")


def installed_version() -> str:
    """This program's version."""
    return importlib.metadata.version("hamgr")
