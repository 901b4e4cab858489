"""What is seen of a cluster from outside: who accepts writes at every instant, and what a new leader lacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hamgr.sim.lab.cluster import CLIENTS, Cluster, Copy
from hamgr.sim.wal import back_from


@dataclass(frozen=True, slots=True)
class Span:
    """From `start` to `end` these accepted writes; `reached`: of clients that stand with the majority."""

    start: float
    end: float
    accepting: tuple[str, ...]
    reached: tuple[str, ...]

    @property
    def length_s(self) -> float:
        return self.end - self.start


class Observer:
    """Looks after each event. What it counts begins with `strike`. `clients`: who has to reach a leader."""

    def __init__(self, cluster: Cluster, clients: str = CLIENTS) -> None:
        self._cluster = cluster
        self._clients = clients
        self._since = cluster.ground.now
        self._accepting: tuple[str, ...] = ()
        self._reached: tuple[str, ...] = ()
        self._spans: list[Span] = []
        self._leader = ""
        self._leaderships: dict[tuple[str, int], bool] = {}
        self._noticed: int | None = None
        self._began_at: float | None = None
        self.changes = 0
        """Members that were made leader after another had been. One that goes on where it was is not one of them."""
        self.messages: int | None = None
        """From when the loss of the leader was noticed until the first leader after it accepted writes."""
        self.stale_by = 0
        """At the worst: acknowledged writes that a new leader lacked while a member that it reached had them."""
        cluster.on_notice = self._notice

    def strike(self) -> None:
        """The fault comes now."""
        self.look()
        self._began_at = self._since = self._cluster.ground.now
        self._spans.clear()
        self.changes, self.messages, self.stale_by, self._noticed = 0, None, 0, None

    def count_from_here(self) -> None:
        """Only now can anybody lead again: messages of the election count from here."""
        self._noticed, self.messages = self._cluster.network.messages, None

    def look(self) -> None:
        """Note who accepts writes now."""
        accepting = self._cluster.accepting()
        connects = self._cluster.network.connects
        reached = tuple(name for name in accepting if connects(self._clients, name))
        if (accepting, reached) == (self._accepting, self._reached):
            return
        self._close()
        for name in accepting:
            if name not in self._accepting:
                self._began_to_lead(name)
        self._accepting, self._reached = accepting, reached

    @property
    def has_leader(self) -> bool:
        """Clients reach one that accepts writes, as of the last look."""
        return bool(self._reached)

    def is_reached(self, name: str) -> bool:
        """That member accepts writes of clients that stand with the majority."""
        self.look()
        return name in self._reached

    def spans(self) -> Iterator[Span]:
        """All of the time since the fault came, in order."""
        self._close()
        return iter(self._spans)

    def _close(self) -> None:
        now = self._cluster.ground.now
        if now > self._since:
            self._spans.append(Span(self._since, now, self._accepting, self._reached))
        self._since = now

    def _notice(self) -> None:
        if self._noticed is None:
            self._noticed = self._cluster.network.messages

    def _began_to_lead(self, name: str) -> None:
        if self._noticed is not None and self.messages is None:
            self.messages = self._cluster.network.messages - self._noticed
        leadership = (name, self._cluster.copies()[name].timeline)
        if leadership in self._leaderships:
            return
        self._leaderships[leadership] = True
        if name != self._leader:
            self.changes += bool(self._leader)
            self._leader = name
            self.stale_by = max(self.stale_by, self._lacks(name))

    def _lacks(self, name: str) -> int:
        """How many acknowledged writes it does not have that somebody within its reach has."""
        cluster = self._cluster
        copies = cluster.copies()
        missing = _acknowledged(cluster) - _numbers(copies[name])
        if not missing:
            return 0
        held: set[int] = set()
        for other, copy in copies.items():
            if other != name and copy.is_awake and cluster.network.connects(name, other):
                held |= missing & _numbers(copy)
        return len(held)

    def lost(self) -> int:
        """Acknowledged writes that whoever led last does not have."""
        if not self._leader:
            return 0
        return len(_acknowledged(self._cluster) - _numbers(self._cluster.copies()[self._leader]))


def gaps_of(spans: Sequence[Span], since: float = float("-inf")) -> list[float]:
    """Lengths of the times after `since` in which clients reached no leader. Seconds."""
    gaps: list[float] = []
    is_open = False
    for span in spans:
        if span.reached or span.end <= since:
            is_open = False
            continue
        length_s = span.end - max(span.start, since)
        if is_open:
            gaps[-1] += length_s
        else:
            gaps.append(length_s)
        is_open = True
    return gaps


def _acknowledged(cluster: Cluster) -> set[int]:
    return {commit.number for commit in cluster.acknowledged()}


def _numbers(copy: Copy) -> set[int]:
    return {commit.number for commit in back_from(copy.head)}
