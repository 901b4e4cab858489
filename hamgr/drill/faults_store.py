"""Faults of etcd: members that die or stand still, one or all of them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from hamgr.drill.errors import DrillError
from hamgr.drill.fault import ON_THIS_MACHINE, STORE, Fault, Undo, Victims
from hamgr.drill.store import BaseStore, StoreMember

_HEALTHY_TIMEOUT_S = 30.0


def _member_killed(victims: Victims) -> Undo:
    return _lose(victims.cluster.store, _followers(victims.cluster.store)[:1])


def _leader_killed(victims: Victims) -> Undo:
    return _lose(victims.cluster.store, [_leader(victims.cluster.store)])


def _majority_lost(victims: Victims) -> Undo:
    """The leader and all but one of the others: what is left answers no linearizable request."""
    store = victims.cluster.store
    return _lose(store, [_leader(store), *_followers(store)[1:]])


def _gone(victims: Victims) -> Undo:
    return _lose(victims.cluster.store, victims.cluster.store.members)


def _emptied(victims: Victims) -> Undo:
    """As after a loss of its disks that nobody had a backup for."""
    store = victims.cluster.store
    undo = _lose(store, store.members)
    for member in store.members:
        if member.data_dir is None:
            raise DrillError(f"the files of {member.name} are out of reach")
        shutil.rmtree(member.data_dir)
    return undo


def _leader_frozen(victims: Victims) -> Undo:
    return _freeze(victims.cluster.store, [_leader(victims.cluster.store)])


def _all_frozen(victims: Victims) -> Undo:
    """Connections stay up and nothing answers."""
    return _freeze(victims.cluster.store, victims.cluster.store.members)


def _leader(store: BaseStore) -> StoreMember:
    leader = store.leader()
    if leader is None:
        raise DrillError("etcd has no leader")
    return leader


def _followers(store: BaseStore) -> list[StoreMember]:
    leader = store.leader()
    return [member for member in store.members if member is not leader]


def _lose(store: BaseStore, members: Sequence[StoreMember]) -> Undo:
    for member in members:
        store.kill_member(member)

    def undo() -> None:
        for member in members:
            store.start_member(member)
        store.wait_until_healthy(_HEALTHY_TIMEOUT_S)

    return undo


def _freeze(store: BaseStore, members: Sequence[StoreMember]) -> Undo:
    for member in members:
        member.host.freeze_all()

    def undo() -> None:
        for member in members:
            member.host.thaw_all()
        store.wait_until_healthy(_HEALTHY_TIMEOUT_S)

    return undo


STORE_FAULTS = (
    Fault("etcd-member-killed", "an etcd follower killed", _member_killed, False, STORE, hold_ttls=1.5),
    Fault("etcd-leader-killed", "the etcd leader killed", _leader_killed, False, STORE, hold_ttls=1.5),
    Fault(
        "etcd-leader-frozen",
        "the etcd leader frozen (SIGSTOP)",
        _leader_frozen,
        # Thawed, an old etcd leader may revoke leases that were renewed with its successor (etcd issue 15247, mended
        # late in 3.4 and 3.5): then nobody holds the key, and who takes it is open.
        None,
        STORE,
        hold_ttls=1.5,
        strikes_again=False,
    ),
    Fault(
        "etcd-majority-lost",
        "all but one etcd member killed",
        _majority_lost,
        False,
        STORE,
        takes=STORE,
        hold_s=5.0,
        hold_ttls=1.5,
        weight=3,
    ),
    Fault(
        "etcd-frozen",
        "every etcd member frozen (SIGSTOP)",
        _all_frozen,
        False,
        STORE,
        takes=STORE,
        hold_s=20.0,
        weight=3,
    ),
    Fault("etcd-gone", "every etcd member killed", _gone, False, STORE, takes=STORE, hold_s=60.0, weight=3),
    Fault(
        "etcd-emptied",
        "every etcd member killed, and started again without its data",
        _emptied,
        False,
        STORE,
        takes=STORE,
        hold_ttls=1.5,
        places=ON_THIS_MACHINE,
        weight=1,
        strikes_again=False,
    ),
)
