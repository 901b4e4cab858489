"""What follows from acknowledged writes, and what does not."""

from __future__ import annotations

import pytest

from hamgr.drill.verdict import Ack, Verdict, judge, leaderships_of, two_primaries, write_gap_s

MS = 1_000_000


def ack(number: int, host: str, sent_ms: float, acked_ms: float, timeline: int = 1) -> Ack:
    return Ack(number, host, timeline, int(sent_ms * MS), int(acked_ms * MS))


def steady(host: str, begin_ms: int, end_ms: int, timeline: int = 1, first: int = 0) -> list[Ack]:
    """One row every 4 ms, each acknowledged after 1 ms."""
    return [ack(first + position, host, at, at + 1, timeline) for position, at in enumerate(range(begin_ms, end_ms, 4))]


def judged(
    routed: list[Ack],
    pinned: list[Ack] | None = None,
    *,
    missing: set[int] | None = None,
    synchronous: bool = False,
    at_risk_bytes: tuple[int | None, ...] = (),
) -> Verdict:
    return judge(
        routed,
        pinned or [],
        stored_routed={each.number for each in routed} - (missing or set()),
        stored_pinned={each.number for each in pinned or []},
        fault_ns=100 * MS,
        end_ns=400 * MS,
        synchronous=synchronous,
        at_risk_bytes=at_risk_bytes,
    )


def test_gap_is_longest_interval_between_acknowledgements_around_the_fault() -> None:
    acks = steady("a", 0, 100) + steady("b", 250, 400, timeline=2, first=1000)
    assert write_gap_s(acks, 100 * MS, 400 * MS) == (251 - 97) / 1000


def test_gap_before_the_fault_does_not_count() -> None:
    acks = steady("a", 0, 20) + steady("a", 80, 400, first=100)
    assert write_gap_s(acks, 100 * MS, 400 * MS) == 0.004


def test_writes_that_cease_again_are_a_gap_too() -> None:
    assert write_gap_s(steady("a", 0, 200), 100 * MS, 400 * MS) == (400 - 197) / 1000


def test_longest_interval_before_the_fault_is_told_apart_from_the_gap() -> None:
    verdict = judged(steady("a", 0, 20) + steady("a", 80, 100, first=50) + steady("b", 250, 400, 2, 100))
    assert verdict.quiet_gap_s == (81 - 17) / 1000


def test_gap_is_unknown_when_writes_never_came_back() -> None:
    assert write_gap_s(steady("a", 0, 100), 100 * MS, 400 * MS) is None


def test_rows_missing_on_the_final_primary_are_lost() -> None:
    verdict = judged(steady("a", 0, 400), missing={3, 5})
    assert verdict.lost == 2
    assert not verdict.is_safe


def test_rows_of_pinned_writers_missing_on_the_final_primary_are_lost_too() -> None:
    verdict = judge(
        steady("a", 0, 400),
        [ack(1, "a", 10, 11)],
        stored_routed=range(1000),
        stored_pinned=set(),
        fault_ns=100 * MS,
        end_ns=400 * MS,
    )
    assert (verdict.lost, verdict.lost_pinned) == (0, 1)
    assert not verdict.is_safe


def test_one_leader_after_the_other_is_safe() -> None:
    verdict = judged(steady("a", 0, 100) + steady("b", 250, 400, timeline=2, first=1000))
    assert verdict.is_safe
    assert verdict.leaderships == ("a/1", "b/2")
    assert verdict.leader_changes == 1


def test_leader_that_comes_back_on_a_new_timeline_is_safe() -> None:
    routed = (
        steady("a", 0, 100)
        + steady("b", 150, 200, timeline=2, first=1000)
        + steady("a", 250, 400, timeline=3, first=2000)
    )
    assert judged(routed).is_safe


def test_old_leader_seen_by_a_pinned_writer_is_a_second_primary() -> None:
    routed = steady("a", 0, 100) + steady("b", 150, 400, timeline=2, first=1000)
    pinned = [ack(number, "a", 20 * number, 20 * number + 2) for number in range(15)]
    verdict = judged(routed, pinned)
    assert [(pair.older, pair.newer) for pair in verdict.two_primaries] == [("a/1", "b/2")]
    assert verdict.two_primaries_s == (280 - 151) / 1000
    assert verdict.rows_of_old_primaries == 7
    assert not verdict.is_safe


def test_row_acknowledged_late_but_sent_before_the_change_proves_nothing() -> None:
    routed = [ack(1, "a", 100, 260), ack(2, "b", 200, 210, timeline=2)]
    assert two_primaries(leaderships_of(routed)) == ()


def test_one_row_on_the_old_leader_after_one_on_the_new_is_proof() -> None:
    routed = [ack(1, "a", 0, 1), ack(2, "b", 10, 11, timeline=2), ack(3, "a", 12, 13)]
    (pair,) = two_primaries(leaderships_of(routed))
    assert (pair.older, pair.newer, pair.rows) == ("a/1", "b/2", 1)


def test_two_hosts_on_one_timeline_are_unsafe_even_one_after_the_other() -> None:
    verdict = judged(steady("a", 0, 100) + steady("b", 250, 400, timeline=1, first=1000))
    assert verdict.timelines_twice == (1,)
    assert not verdict.is_safe


def test_verdict_as_json_names_its_conclusions() -> None:
    plain = judged(steady("a", 0, 400)).as_json()
    assert plain["is_safe"] is True
    assert plain["leader_changes"] == 0
    assert plain["two_primaries_s"] == 0.0


@pytest.mark.parametrize(
    ("risks", "is_safe"), [((), False), ((0,), False), ((1,), True), ((None,), True), ((0, 80), True)]
)
def test_loss_in_asynchronous_mode_is_safe_only_if_a_record_owns_up_to_it(
    risks: tuple[int | None, ...], is_safe: bool
) -> None:
    assert judged(steady("a", 0, 400), missing={3}, at_risk_bytes=risks).is_safe is is_safe


@pytest.mark.parametrize("risks", [(), (80,), (None,)])
def test_loss_in_synchronous_mode_is_never_safe(risks: tuple[int | None, ...]) -> None:
    verdict = judged(steady("a", 0, 400), missing={3}, at_risk_bytes=risks, synchronous=True)
    assert verdict.has_bad_losses
    assert not verdict.is_safe


def test_loss_on_record_excuses_no_second_primary() -> None:
    routed = steady("a", 0, 100) + steady("b", 150, 400, timeline=2, first=1000)
    pinned = [ack(number, "a", 20 * number, 20 * number + 2) for number in range(15)]
    assert not judged(routed, pinned, missing={3}, at_risk_bytes=(None,)).is_safe
