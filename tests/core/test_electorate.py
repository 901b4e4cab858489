"""Members of the electorate hold every acknowledged commit: what keeps that true, and what an election makes of it."""

from __future__ import annotations

import pytest

from core.leader import NOW, TERM, leading, primary_server, seen
from hamgr.core import facts
from hamgr.core.actions import Clone, Promote, PutSync, SetSync, Upstream
from hamgr.core.cluster import Config, SyncState, Tags
from hamgr.core.decide import decide
from hamgr.core.observe import observe
from hamgr.core.policy import Policy
from hamgr.core.quorum import ALONE, BLOCKED, SyncRule
from hamgr.core.server import DataDir, Phase, ServerView, Walsender
from hamgr.core.state import Lease, Myself, State, SyncInForce
from hamgr.core.synchronous import sync_in_force
from hamgr.core.units import Lsn, Term, after

SYNC = Policy(synchronous_mode="on")


@pytest.mark.parametrize(("members", "source"), [((), "c"), (("c",), "c"), (("b", "c"), "a")], ids=str)
def test_a_member_of_the_electorate_is_copied_from_the_leader_alone(members: tuple[str, ...], source: str) -> None:
    """A replica that lags would be copied, and vote as if it held what it never had."""
    view = seen()
    a, b, c = view.members
    donors = (a._replace(role="primary"), b._replace(lease_id=9), c._replace(tags=Tags(clonefrom=True)))
    view = view._replace(members=donors, sync=SyncState("a", members, 0, 19))
    server = ServerView(Phase.STOPPED, DataDir.EMPTY, probed_at=NOW)
    state = State(Myself("b"), SYNC, cluster=view, lease=Lease(9, after(NOW, 4.0)), server=server)
    (clone,) = [action for action in decide(state, NOW).actions if isinstance(action, Clone)]
    assert clone.source == Upstream(source, f"{source}.host", 5432)


@pytest.mark.parametrize("is_broken", [True, False])
def test_a_configuration_that_cannot_be_read_whole_does_not_end_the_mode(is_broken: bool) -> None:
    view = seen()._replace(sync=SyncState("a", ("b",), 0, 19), config=Config({}, 3))
    server = primary_server(NOW, sync_names='FIRST 1 ("b")')
    state = leading(view, Lease(7, after(NOW, 4.0), TERM), server=server)
    state = observe(state, facts.PolicyRead(Policy(), 3, ("no such key",), is_broken))
    ends = [action for action in decide(state, NOW).actions if isinstance(action, SetSync | PutSync)]
    assert bool(ends) is not is_broken


@pytest.mark.parametrize(("names", "caught_up"), [("bb", False), ("bc", True)], ids=str)
def test_a_standby_counts_once_however_many_walsenders_it_has(names: str, caught_up: bool) -> None:
    """One that has come back may still have its former one."""
    rule = 'ANY 2 ("b", "c")'
    senders = tuple(Walsender(name, "", "streaming", "quorum", 1, "replicator", Lsn(900)) for name in names)
    server = primary_server(NOW, sync_names=rule, walsenders=senders)
    found = sync_in_force(SyncInForce(rule, Lsn(800)), server)
    assert found is not None
    assert found.has_caught_up is caught_up


@pytest.mark.parametrize(("leader", "members", "rule"), [("a", (), ALONE), ("a", ("b",), BLOCKED), ("", (), ALONE)])
def test_a_server_that_is_promoted_again_in_its_term_acknowledges_nothing_that_others_lack(
    leader: str, members: tuple[str, ...], rule: SyncRule
) -> None:
    """It was stopped for its lease and started as a standby; the lease was renewed, and its electorate still stands."""
    view = seen()._replace(sync=SyncState(leader, members, 0, 19))
    state = leading(view, Lease(7, after(NOW, 4.0), TERM), policy=SYNC, server=primary_server(NOW, in_recovery=True))
    (promote,) = [a for a in decide(state._replace(verified_term=Term(0)), NOW).actions if isinstance(a, Promote)]
    assert promote.sync == rule
