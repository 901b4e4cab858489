"""Ancestor or not, against an oracle that compares what was written byte by byte."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hamgr.core.units import Lsn, Timeline
from hamgr.postgres import lineage, wal
from hamgr.postgres.lineage import Position, Switch

Byte = tuple[Timeline, lineage.History]
"""Of each byte of WAL: the timeline that it was written on, and where that came from."""


@dataclass(frozen=True, slots=True)
class Model:
    """A server as the WAL it holds. It is never empty."""

    wal: tuple[Byte, ...] = ((Timeline(1), ()),)

    @property
    def position(self) -> Position:
        return Position(self.wal[-1][0], Lsn(len(self.wal)))

    @property
    def history(self) -> lineage.History:
        return self.wal[-1][1]

    @property
    def files(self) -> dict[Timeline, lineage.History]:
        return {byte[0]: byte[1] for byte in self.wal if byte[0] > 1}

    def written(self, count: int) -> Model:
        return replace(self, wal=self.wal + self.wal[-1:] * count)

    def promoted(self) -> Model:
        """By a server that knows of no other: it takes the next number, whoever else did."""
        left = self.position
        byte = (Timeline(left.timeline + 1), (*self.history, Switch(left.timeline, left.lsn)))
        return replace(self, wal=(*self.wal, byte))

    def copy(self, missing: int) -> Model:
        return replace(self, wal=self.wal[: max(1, len(self.wal) - missing)])

    def is_beginning_of(self, other: Model) -> bool:
        return other.wal[: len(self.wal)] == self.wal


STEPS = st.lists(
    st.tuples(st.sampled_from(("write", "promote", "copy")), st.integers(0, 7), st.integers(1, 4)), max_size=14
)


def cluster(steps: list[tuple[str, int, int]]) -> list[Model]:
    servers = [Model().written(3)]
    for kind, which, count in steps:
        at = which % len(servers)
        if kind == "write":
            servers[at] = servers[at].written(count)
        elif kind == "promote":
            servers[at] = servers[at].promoted()
        else:
            servers.append(servers[at].copy(count - 1))
    return servers


@settings(database=None)
@given(STEPS)
def test_a_server_has_diverged_if_and_only_if_its_wal_is_no_beginning_of_the_leaders(
    steps: list[tuple[str, int, int]],
) -> None:
    servers = cluster(steps)
    for local in servers:
        for leader in servers:
            why = lineage.why_diverged(local.position, local.files, leader.position, leader.history)
            assert (not why) == local.is_beginning_of(leader), (why, local, leader)


@pytest.mark.parametrize(
    ("timeline", "lsn", "diverged"),
    [(3, 900, 0), (3, 1001, 1), (2, 500, 0), (2, 501, 1), (1, 300, 0), (1, 301, 1), (4, 10, 1)],
)
def test_only_an_ancestor_of_the_leader_has_not_diverged(timeline: int, lsn: int, diverged: int) -> None:
    parents = (Switch(Timeline(1), Lsn(300)), Switch(Timeline(2), Lsn(500)))
    known = {Timeline(2): parents[:1], Timeline(3): parents}
    leader = Position(Timeline(3), Lsn(1000))
    why = lineage.why_diverged(Position(Timeline(timeline), Lsn(lsn)), known, leader, parents)
    assert bool(why) is bool(diverged)


def test_one_number_with_two_origins_is_told_with_both() -> None:
    there = (Switch(Timeline(1), Lsn(0x200)),)
    here = {Timeline(2): (Switch(Timeline(1), Lsn(0x100)),)}
    leader = Position(Timeline(2), Lsn(0x400))
    why = lineage.why_diverged(Position(Timeline(2), Lsn(0x300)), here, leader, there)
    assert why == "timeline 2 began after 1 at 0/100 here and after 1 at 0/200 there"


def test_the_history_file_of_a_timeline_never_entered_must_agree_too() -> None:
    there = (Switch(Timeline(1), Lsn(200)),)
    stale = {Timeline(2): (Switch(Timeline(1), Lsn(100)),)}
    here, leader = Position(Timeline(1), Lsn(50)), Position(Timeline(2), Lsn(400))
    assert lineage.why_diverged(here, stale, leader, there)
    assert not lineage.why_diverged(here, {}, leader, there)
    unrelated = {Timeline(7): (Switch(Timeline(1), Lsn(100)),)}
    assert not lineage.why_diverged(here, unrelated, leader, there)


def test_a_timeline_without_its_history_file_counts_as_diverged() -> None:
    there = (Switch(Timeline(1), Lsn(100)),)
    leader = Position(Timeline(2), Lsn(400))
    assert "missing" in lineage.why_diverged(Position(Timeline(2), Lsn(200)), {}, leader, there)


def test_history_file_is_read_and_garbage_is_refused() -> None:
    text = "1\t0/3000000\tno recovery target specified\n\n# comment\n2\t0/5000060\tbefore x\n"
    assert lineage.timeline_history(text) == (
        Switch(Timeline(1), Lsn.parse("0/3000000")),
        Switch(Timeline(2), Lsn.parse("0/5000060")),
    )
    with pytest.raises(ValueError, match="not a line"):
        lineage.timeline_history("one two\n")


@pytest.mark.parametrize(
    ("lsn", "segment", "suffix"),
    [
        ("0/3000060", 16 << 20, "0000000000000003"),
        ("2/FF000000", 16 << 20, "00000002000000FF"),
        ("2/40000000", 1 << 30, "0000000200000001"),
    ],
)
def test_segments_are_named_as_the_server_names_them(lsn: str, segment: int, suffix: str) -> None:
    assert wal.segment_name(Timeline(5), Lsn.parse(lsn) // segment, segment) == "00000005" + suffix


def test_wal_goes_on_from_here_on_newer_timelines_that_descend_from_it() -> None:
    files = {
        Timeline(2): (Switch(Timeline(1), Lsn(100)),),
        Timeline(3): (Switch(Timeline(1), Lsn(100)), Switch(Timeline(2), Lsn(200))),
        Timeline(4): (Switch(Timeline(1), Lsn(50)),),
    }
    assert lineage.ways_on(Position(Timeline(1), Lsn(70)), files) == (
        Position(Timeline(3), Lsn(200)),
        Position(Timeline(2), Lsn(100)),
        Position(Timeline(1), Lsn(70)),
    )
    assert lineage.ways_on(Position(Timeline(2), Lsn(201)), files) == (Position(Timeline(2), Lsn(201)),)
