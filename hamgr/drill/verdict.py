"""What a client's acknowledged writes say about a fault. Pure: no clock, no I/O.

The only witness is the client: when it sent each row, when it was told that the row is committed, by which
host and on which timeline. Instants are CLOCK_MONOTONIC nanoseconds of one machine.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any


@dataclass(frozen=True, slots=True)
class Ack:
    """One acknowledged row. It was committed at some instant between `sent_ns` and `acknowledged_ns`."""

    number: int
    host: str
    timeline: int
    sent_ns: int
    acknowledged_ns: int


@dataclass(frozen=True, slots=True)
class Leadership:
    """All of one host's acknowledged writes on one timeline. `rows` is not empty."""

    host: str
    timeline: int
    rows: tuple[Ack, ...]

    @property
    def title(self) -> str:
        return f"{self.host}/{self.timeline}"

    @property
    def first_certain_ns(self) -> int:
        """By this instant it had committed a row."""
        return min(row.acknowledged_ns for row in self.rows)

    @property
    def last_certain_ns(self) -> int:
        """After this instant it still committed a row."""
        return max(row.sent_ns for row in self.rows)


@dataclass(frozen=True, slots=True)
class TwoPrimaries:
    """`older` certainly committed a row after `newer` had: both accepted writes for at least `seconds`."""

    older: str
    newer: str
    seconds: float
    rows: int
    """Rows that the older one acknowledged after the newer one's first."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one fault did to the client, and whether that is acceptable.

    `write_gap_s` is the longest interval between consecutive acknowledged writes of the application from
    shortly before the fault on; None: writes never came back. `rejoin_s`: member -> seconds from the fault's
    end until it was leader or streaming replica for good, 0 if it never ceased to be.
    """

    write_gap_s: float | None
    lost: int
    """Acknowledged writes of the application that the final primary does not have."""
    lost_pinned: int
    """The same of the writers that are pinned to one host each."""
    acknowledged: int
    two_primaries: tuple[TwoPrimaries, ...]
    timelines_twice: tuple[int, ...]
    """Timelines on which two hosts accepted writes: their histories cannot be told apart."""
    leaderships: tuple[str, ...]
    """`host/timeline` in the order of their first write."""
    rejoin_s: Mapping[str, float] = field(default_factory=dict)
    quiet_gap_s: float = 0.0
    """Longest interval before the fault: what this machine's own load does to the client."""
    synchronous: bool = False
    """Whether every acknowledged commit was promised to outlive its host."""
    at_risk_bytes: tuple[int | None, ...] = ()
    """What the product's own records of these changes say was at risk; None: it says that it does not know."""

    @property
    def leader_changes(self) -> int:
        return max(0, len(self.leaderships) - 1)

    @property
    def two_primaries_s(self) -> float:
        """Longest time that two hosts accepted writes."""
        return max((pair.seconds for pair in self.two_primaries), default=0.0)

    @property
    def rows_of_old_primaries(self) -> int:
        """Rows that were acknowledged by a host after another one's leadership had begun."""
        return sum(pair.rows for pair in self.two_primaries)

    @property
    def losses_are_on_record(self) -> bool:
        """Whether a record of a change owned up to it that writes may be lost. Zero bytes at risk own up to nothing."""
        return any(risk is None or risk >= 1 for risk in self.at_risk_bytes)

    @property
    def has_bad_losses(self) -> bool:
        """Acknowledged writes are gone that were promised to stay, or of which the product does not know."""
        return self.lost + self.lost_pinned > 0 and (self.synchronous or not self.losses_are_on_record)

    @property
    def is_safe(self) -> bool:
        """No two members were primary, and nothing is gone that was promised: asynchronous, what no record names."""
        return not (self.has_bad_losses or self.two_primaries or self.timelines_twice)

    def as_json(self) -> dict[str, Any]:
        """Plain values, for a file and for a machine to read."""
        return {
            **asdict(self),
            "leader_changes": self.leader_changes,
            "two_primaries_s": self.two_primaries_s,
            "rows_of_old_primaries": self.rows_of_old_primaries,
            "losses_are_on_record": self.losses_are_on_record,
            "is_safe": self.is_safe,
        }


def judge(
    routed: Sequence[Ack],
    pinned: Sequence[Ack],
    *,
    stored_routed: Collection[int],
    stored_pinned: Collection[int],
    fault_ns: int,
    end_ns: int,
    rejoin_s: Mapping[str, float] | None = None,
    synchronous: bool = False,
    at_risk_bytes: Sequence[int | None] = (),
) -> Verdict:
    """The verdict on one fault. `stored_*`: numbers of the rows found on the final primary.

    `at_risk_bytes`: of the product's record of each change of leader, None where it says that it does not know.
    Rows of both writers count for two primaries; only the application's count for the gap.
    """
    everything = leaderships_of([*routed, *pinned])
    return Verdict(
        write_gap_s=write_gap_s(routed, fault_ns, end_ns),
        lost=sum(ack.number not in stored_routed for ack in routed),
        lost_pinned=sum(ack.number not in stored_pinned for ack in pinned),
        acknowledged=len(routed) + len(pinned),
        two_primaries=two_primaries(everything),
        timelines_twice=timelines_twice(everything),
        leaderships=tuple(each.title for each in everything),
        rejoin_s=dict(rejoin_s or {}),
        quiet_gap_s=quiet_gap_s(routed, fault_ns),
        synchronous=synchronous,
        at_risk_bytes=tuple(at_risk_bytes),
    )


def write_gap_s(acks: Sequence[Ack], fault_ns: int, end_ns: int) -> float | None:
    """Length of the longest gap; None when no write was acknowledged after the fault."""
    if not any(fault_ns < ack.acknowledged_ns <= end_ns for ack in acks):
        return None
    begin_ns, back_ns = longest_gap(acks, fault_ns, end_ns)
    return (back_ns - begin_ns) / 1e9


def longest_gap(acks: Sequence[Ack], fault_ns: int, end_ns: int) -> tuple[int, int]:
    """Longest interval between consecutive acknowledgements in [last one before the fault, end].

    The tail up to `end_ns` counts as well: writes that ceased again are a gap, too.
    """
    instants = sorted(ack.acknowledged_ns for ack in acks if ack.acknowledged_ns <= end_ns)
    before = [instant for instant in instants if instant <= fault_ns]
    after = [instant for instant in instants if instant > fault_ns]
    edges = [*before[-1:], *after, end_ns]
    return max(pairwise(edges), key=lambda pair: pair[1] - pair[0], default=(fault_ns, end_ns))


def quiet_gap_s(acks: Sequence[Ack], fault_ns: int) -> float:
    """Longest interval between consecutive acknowledgements before the fault, 0 with fewer than two."""
    instants = sorted(ack.acknowledged_ns for ack in acks if ack.acknowledged_ns <= fault_ns)
    return max((later - earlier for earlier, later in pairwise(instants)), default=0) / 1e9


def leaderships_of(acks: Sequence[Ack]) -> tuple[Leadership, ...]:
    """Group rows by host and timeline, in the order of the first acknowledgement of each group."""
    groups: dict[tuple[str, int], list[Ack]] = {}
    for ack in acks:
        groups.setdefault((ack.host, ack.timeline), []).append(ack)
    found = [Leadership(host, timeline, tuple(rows)) for (host, timeline), rows in groups.items()]
    return tuple(sorted(found, key=lambda each: each.first_certain_ns))


def two_primaries(leaderships: Sequence[Leadership]) -> tuple[TwoPrimaries, ...]:
    """Pairs of hosts of which one certainly committed after a later leadership of another had.

    A row's commit lies somewhere between sending and acknowledgement, so only a row *sent* after the other's
    was *acknowledged* is proof; a client that reads late can delay that proof but never fake it.
    """
    found = []
    for position, older in enumerate(leaderships):
        for newer in leaderships[position + 1 :]:
            begin_ns = newer.first_certain_ns
            late = [row for row in older.rows if row.sent_ns > begin_ns]
            if newer.host == older.host or not late:
                continue
            # Once the newer one has ceased it does not count any longer.
            newer_end_ns = max(row.acknowledged_ns for row in newer.rows)
            seconds = (min(older.last_certain_ns, newer_end_ns) - begin_ns) / 1e9
            found.append(TwoPrimaries(older.title, newer.title, seconds, len(late)))
    return tuple(found)


def timelines_twice(leaderships: Sequence[Leadership]) -> tuple[int, ...]:
    """Timelines on which more than one host accepted writes."""
    hosts: dict[int, set[str]] = {}
    for each in leaderships:
        hosts.setdefault(each.timeline, set()).add(each.host)
    return tuple(sorted(timeline for timeline, names in hosts.items() if len(names) > 1))
