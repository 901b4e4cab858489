"""The lease is renewed on a permit and no longer, and only what is confirmed moves the guard's deadline."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from hamgr.agent.clock import now
from hamgr.agent.guardlink import GuardLink, nanoseconds
from hamgr.agent.renewal import IDLE_S, RETRY_S, Renewer
from hamgr.core.cluster import ClusterView
from hamgr.core.facts import ClusterSeen, Fact, LeaseGone, Renewed, StoreFailed, StoreReset
from hamgr.core.policy import Policy, margin_of, renew_interval_of
from hamgr.core.units import Instant, after
from hamgr.dcs.errors import LeaseExpired, StoreError, StoreUnavailable
from hamgr.dcs.lease import Renewal
from tests.agent.workbench import FAR, LEASE, TERM, view, wait_until

TTL_S = 5.0
POLICY = Policy(ttl_s=TTL_S, loop_wait_s=0.02)


class Etcd:
    """Answers renewals with `answer`; notes which lease was to be renewed, with which budget."""

    def __init__(self) -> None:
        self.renewed: list[tuple[int, float]] = []
        self.answer: Callable[[], Renewal] = lambda: confirmed(view())
        self.closed = False
        self.reads: list[float] = []
        self.read_fails = False

    def renew(self, lease_id: int, budget_s: float) -> Renewal:
        self.renewed.append((lease_id, budget_s))
        return self.answer()

    def read(self, budget_s: float) -> ClusterView:
        self.reads.append(budget_s)
        if self.read_fails:
            raise StoreUnavailable("gone again")
        return view("")

    def fail(self, error: StoreError) -> None:
        def answer() -> Renewal:
            raise error

        self.answer = answer

    def close(self) -> None:
        self.closed = True


class Bench:
    def __init__(self, link: GuardLink) -> None:
        self.etcd = Etcd()
        self.page = link.page
        self.facts: list[Fact] = []
        self.renewer = Renewer("a", self.etcd, link, self.facts.append)

    def once(self) -> float:
        """One turn of the thread, in this one; the pause that it asks for."""
        return self.renewer._renew_once()

    def arm(self, deadline: Instant) -> None:
        self.page.term, self.page.lease_id = TERM, LEASE
        self.page.arm(nanoseconds(deadline), 4321, 99)

    def renew(self, seen: ClusterView, sent_at: Instant) -> None:
        self.etcd.answer = lambda: Renewal(sent_at, TTL_S, seen)
        self.renewer.permit(LEASE, FAR, POLICY)
        self.once()


def confirmed(seen: ClusterView) -> Renewal:
    return Renewal(now(), TTL_S, seen)


@pytest.fixture
def bench(link: GuardLink) -> Iterator[Bench]:
    made = Bench(link)
    yield made
    made.renewer.end()
    if made.renewer.ident is not None:
        made.renewer.join()
        assert made.etcd.closed


def test_nothing_is_renewed_without_a_lease_or_a_permit(bench: Bench) -> None:
    assert bench.once() == IDLE_S
    bench.renewer.permit(LEASE, Instant(0.0), POLICY)
    assert bench.once() == RETRY_S
    bench.renewer.permit(0, FAR, POLICY)
    assert bench.once() == IDLE_S
    assert bench.etcd.renewed == []


def test_a_permit_runs_out_by_itself(bench: Bench) -> None:
    bench.renewer.permit(LEASE, after(now(), 0.1), POLICY)
    bench.renewer.start()
    wait_until(lambda: len(bench.etcd.renewed) >= 2, "the lease is renewed while the permit lasts")
    wait_until(lambda: bench.once() == RETRY_S, "the permit is over")
    renewals = len(bench.etcd.renewed)
    bench.once()
    assert len(bench.etcd.renewed) == renewals


def test_a_new_lease_is_renewed_at_once_and_then_again_and_again(bench: Bench) -> None:
    bench.renewer.start()
    bench.renewer.permit(LEASE, FAR, POLICY)
    wait_until(lambda: len(bench.etcd.renewed) >= 3, "three renewals")
    assert set(bench.etcd.renewed) == {(LEASE, POLICY.retry_timeout_s)}
    bench.renewer.permit(8, FAR, POLICY)
    wait_until(lambda: (8, POLICY.retry_timeout_s) in bench.etcd.renewed, "the other lease is renewed")


def test_a_guard_without_heartbeat_ends_renewal_until_it_beats_again(bench: Bench) -> None:
    beat = bench.page.guard_heartbeat_ns
    bench.page.guard_heartbeat_ns = nanoseconds(after(now(), -10.0))
    bench.renewer.permit(LEASE, FAR, POLICY)
    assert bench.once() == RETRY_S
    assert bench.etcd.renewed == []
    bench.page.guard_heartbeat_ns = beat
    bench.once()
    assert len(bench.etcd.renewed) == 1


def test_the_deadline_counts_from_sending_the_renewal(bench: Bench) -> None:
    sent_at = after(now(), -1.5)
    bench.arm(after(now(), 1.0))
    bench.renew(view(), sent_at)
    deadline = after(sent_at, TTL_S - POLICY.margin_s)
    assert bench.page.deadline_ns == nanoseconds(deadline)
    assert bench.facts == [Renewed(LEASE, deadline, TTL_S, bench.facts[0].view)]  # type: ignore[union-attr]


def test_margin_and_pace_are_those_of_the_lease_as_it_was_granted(bench: Bench) -> None:
    """The configuration may say another ttl by now."""
    sent_at, granted_s = now(), 300.0
    bench.etcd.answer = lambda: Renewal(sent_at, granted_s, view())
    bench.renewer.permit(LEASE, FAR, Policy(ttl_s=5.0, loop_wait_s=10.0))
    assert bench.once() > renew_interval_of(5.0, 10.0)
    assert bench.facts == [Renewed(LEASE, after(sent_at, 300.0 - margin_of(300.0)), 300.0, bench.facts[0].view)]  # type: ignore[union-attr]
    bench.etcd.answer = lambda: Renewal(now(), 5.0, view())
    bench.renewer.permit(LEASE, FAR, Policy(ttl_s=300.0, loop_wait_s=100.0))
    assert bench.once() <= renew_interval_of(5.0, 100.0)


def test_no_renewal_moves_the_deadline_beyond_a_lease_to_which_the_key_may_have_moved(bench: Bench) -> None:
    limit = after(now(), 2.0)
    bench.arm(after(now(), 100.0))
    bench.renewer._link.limit(limit, 8)
    assert bench.page.deadline_ns == nanoseconds(limit)
    bench.renew(view(), now())
    assert bench.page.deadline_ns == nanoseconds(limit)
    sent_at = now()
    bench.etcd.answer = lambda: Renewal(sent_at, TTL_S, view(lease_id=8))
    bench.renewer.permit(8, FAR, POLICY)
    bench.once()
    assert (bench.page.lease_id, bench.page.deadline_ns) == (8, nanoseconds(after(sent_at, TTL_S - POLICY.margin_s)))


def test_promises_of_the_peers_move_the_deadline_whatever_lease_the_key_is_on(bench: Bench) -> None:
    bench.arm(after(now(), 100.0))
    bench.renewer._link.limit(after(now(), 2.0), 8)
    promised = after(now(), 4.0)
    assert bench.renewer._link.extend(promised, TERM)
    assert bench.page.deadline_ns == nanoseconds(promised)


def test_a_deadline_never_moves_back(bench: Bench) -> None:
    later = after(now(), 50.0)
    bench.arm(later)
    bench.renew(view(), now())
    assert bench.page.deadline_ns == nanoseconds(later)


@pytest.mark.parametrize(
    "seen",
    [
        view("b", lease_id=8),
        view("b", lease_id=LEASE),
        view("a", lease_id=8),
        view("a", term=TERM + 1),
        view(""),
    ],
    ids=["another leads", "another name on our lease", "by an earlier lease", "in another term", "nobody leads"],
)
def test_only_a_view_that_shows_us_leading_in_that_term_moves_an_armed_deadline(
    bench: Bench, seen: ClusterView
) -> None:
    deadline = after(now(), 1.0)
    bench.arm(deadline)
    bench.renew(seen, now())
    assert bench.page.deadline_ns == nanoseconds(deadline)
    assert (bench.page.term, bench.page.lease_id) == (TERM, LEASE)
    assert isinstance(bench.facts[0], Renewed), "the loop is told what the store holds all the same"


def test_an_unarmed_page_keeps_lease_and_deadline_for_a_successor(bench: Bench) -> None:
    sent_at = now()
    bench.renew(view("b", lease_id=8), sent_at)
    assert bench.page.lease_id == LEASE
    assert bench.page.deadline_ns == nanoseconds(after(sent_at, TTL_S - POLICY.margin_s))
    assert not bench.page.armed


def test_a_lease_that_is_gone_is_told_and_left_alone(bench: Bench) -> None:
    bench.arm(after(now(), 1.0))
    before = bench.page.deadline_ns
    bench.etcd.fail(LeaseExpired("gone"))
    bench.renewer.permit(LEASE, FAR, POLICY)
    bench.once()
    bench.once()
    bench.renewer.permit(LEASE, FAR, POLICY)
    assert bench.once() == IDLE_S, "the loop may not know yet, or lead on by its peers"
    assert len(bench.etcd.renewed) == 1
    assert isinstance(bench.facts[-1], LeaseGone)
    assert bench.facts[-1].lease_id == LEASE
    assert bench.page.deadline_ns == before


def test_a_store_without_answer_is_told_and_asked_again(bench: Bench) -> None:
    bench.arm(after(now(), 1.0))
    before = bench.page.deadline_ns
    bench.etcd.fail(StoreUnavailable("no answer"))
    bench.renewer.permit(LEASE, FAR, POLICY)
    assert bench.once() == RETRY_S
    assert bench.page.deadline_ns == before
    bench.etcd.answer = lambda: confirmed(view())
    assert bench.once() <= POLICY.renew_interval_s
    assert [type(fact) for fact in bench.facts] == [StoreFailed, Renewed]
    assert bench.page.deadline_ns > before


def test_past_its_deadline_a_lease_is_renewed_only_once_etcd_was_heard_again(bench: Bench) -> None:
    bench.renew(view(), after(now(), -2 * TTL_S))
    assert (len(bench.etcd.renewed), bench.etcd.reads) == (1, [])
    bench.etcd.read_fails = True
    assert bench.once() == RETRY_S
    assert (len(bench.etcd.renewed), len(bench.etcd.reads)) == (1, 1)
    bench.etcd.read_fails = False
    bench.renew(view(), now())
    assert (len(bench.etcd.renewed), len(bench.etcd.reads)) == (2, 2)
    bench.renew(view(), now())
    assert (len(bench.etcd.renewed), len(bench.etcd.reads)) == (3, 2)


def test_after_its_end_nothing_is_renewed(bench: Bench) -> None:
    bench.renewer.permit(LEASE, FAR, POLICY)
    bench.renewer.end()
    bench.renewer.start()
    bench.renewer.join()
    assert bench.etcd.renewed == []


def test_a_lead_taken_again_on_another_lease_is_known_to_a_successor(bench: Bench) -> None:
    bench.arm(after(now(), 1.0))
    sent_at = now()
    bench.etcd.answer = lambda: Renewal(sent_at, TTL_S, view(lease_id=8))
    bench.renewer.permit(8, FAR, POLICY)
    bench.once()
    assert (bench.page.term, bench.page.lease_id) == (TERM, 8)
    assert bench.page.deadline_ns == nanoseconds(after(sent_at, TTL_S - POLICY.margin_s))


def test_the_keys_that_went_with_a_lease_are_known_before_its_end(bench: Bench) -> None:
    """Whoever leads by its peers must not see its key on a lease that is not its own."""
    bench.etcd.fail(LeaseExpired("gone"))
    bench.etcd.read_fails = True
    bench.renewer.permit(LEASE, FAR, POLICY)
    assert bench.once() == RETRY_S
    assert [type(fact) for fact in bench.facts] == [StoreFailed]
    bench.etcd.read_fails = False
    assert bench.once() == IDLE_S
    seen, gone = bench.facts[1:]
    assert isinstance(seen, ClusterSeen)
    assert seen.view.leader is None
    assert gone == LeaseGone(LEASE, gone.at)  # type: ignore[union-attr]
    assert bench.etcd.reads == [POLICY.retry_timeout_s] * 2


# -- an etcd that has lost data --------------------------------------------------------------------------------


def test_a_renewal_that_shows_less_than_was_known_before_it_is_told_with_the_loss(bench: Bench) -> None:
    """The lease lives in the etcd that there is now: a leader that the backup shows leading by it has that time."""
    known = view()
    bench.renewer.permit(LEASE, FAR, POLICY, known.revision)
    bench.once()
    assert [type(fact) for fact in bench.facts] == [Renewed]
    bench.renewer.permit(LEASE, FAR, POLICY, known.revision + 1)
    bench.once()
    told = bench.facts[1]
    assert isinstance(told, StoreReset)
    assert (told.lease_id, told.view.revision) == (LEASE, known.revision)
    assert told.deadline > now()


def test_the_loss_of_all_is_told_before_that_of_the_lease(bench: Bench) -> None:
    """The loop would judge its lead by keys that are no more."""
    bench.etcd.fail(LeaseExpired("gone"))
    bench.renewer.permit(LEASE, FAR, POLICY, view("").revision + 1)
    bench.once()
    assert [type(fact) for fact in bench.facts] == [StoreReset, LeaseGone]
