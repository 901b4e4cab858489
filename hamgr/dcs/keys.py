"""Where things are in etcd: Patroni's layout, so that its ecosystem's tools can read it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hamgr.dcs.ops import Range, prefix_end


@dataclass(frozen=True, slots=True)
class ScopeKeys:
    """The keys of one cluster. `prefix` ends with a slash: `/service/<scope>/`."""

    prefix: str

    @classmethod
    def of(cls, scope: str, namespace: str = "/service/") -> ScopeKeys:
        """Keys of that scope; slashes are normalised as Patroni does.

        Raises ValueError for an empty scope, and for what etcd's UTF-8 cannot hold.
        """
        if not scope.strip("/"):
            raise ValueError("scope must not be empty")
        prefix = re.sub("/+", "/", f"/{namespace}/{scope}/")
        if re.search("[\ud800-\udfff]", prefix):
            raise ValueError("scope and namespace must be UTF-8 text")
        return cls(prefix)

    @property
    def initialize(self) -> str:
        return self.prefix + "initialize"

    @property
    def config(self) -> str:
        return self.prefix + "config"

    @property
    def leader(self) -> str:
        return self.prefix + "leader"

    @property
    def term(self) -> str:
        return self.prefix + "term"

    @property
    def released(self) -> str:
        return self.prefix + "released"

    @property
    def status(self) -> str:
        return self.prefix + "status"

    @property
    def request(self) -> str:
        return self.prefix + "failover"

    @property
    def sync(self) -> str:
        return self.prefix + "sync"

    @property
    def history(self) -> str:
        return self.prefix + "history"

    @property
    def roster(self) -> str:
        return self.prefix + "failsafe"

    @property
    def ballots(self) -> str:
        return self.prefix + "ballots/"

    @property
    def records(self) -> str:
        return self.prefix + "failovers/"

    def member(self, name: str) -> str:
        return f"{self.prefix}members/{name}"

    def ballot(self, name: str) -> str:
        return self.ballots + name

    def record(self, term: int) -> str:
        return f"{self.records}{term}"

    def relative(self, key: str) -> str:
        """The key without the prefix."""
        return key.removeprefix(self.prefix)

    @property
    def view_ranges(self) -> tuple[Range, Range]:
        """All keys but the records, which are many and big and matter to no decision."""
        return (
            Range(self.prefix, self.records),
            Range(prefix_end(self.records), prefix_end(self.prefix)),
        )
