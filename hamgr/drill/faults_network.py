"""Faults of the network. Packets are dropped by address, so that clients still reach a member that is cut off."""

from __future__ import annotations

from collections.abc import Sequence

from hamgr.drill.errors import DrillError
from hamgr.drill.fault import OWN_NETWORK, PEERS, PRIMARY, Fault, Undo, Victims
from hamgr.drill.machine import Machine, Wiring


def _host_lost(victims: Victims) -> Undo:
    """Power cut of a machine: no packet tells anybody. Comes back with its cable in."""
    network, member = _network(victims), victims.primary
    network.cut(member.host)
    member.host.kill_all()

    def undo() -> None:
        network.mend(member.host)
        victims.cluster.start_member(member)

    return undo


def _unplugged(victims: Victims) -> Undo:
    """It runs on and nobody reaches it, clients neither."""
    network, member = _network(victims), victims.primary
    network.cut(member.host)
    return lambda: network.mend(member.host)


def _cut_from_etcd(victims: Victims) -> Undo:
    return _drop(victims, to=_stores(victims), back_from=_stores(victims))


def _cut_from_peers(victims: Victims) -> Undo:
    return _drop(victims, to=_peers(victims), back_from=_peers(victims))


def _isolated(victims: Victims) -> Undo:
    everybody = [*_stores(victims), *_peers(victims)]
    return _drop(victims, to=everybody, back_from=everybody)


def _one_way_to_etcd(victims: Victims) -> Undo:
    return _drop(victims, to=_stores(victims))


def _one_way_from_etcd(victims: Victims) -> Undo:
    return _drop(victims, back_from=_stores(victims))


def _one_way_peers(victims: Victims) -> Undo:
    """The primary hears its peers; they do not hear it."""
    return _drop(victims, to=_peers(victims))


def _drop(victims: Victims, *, to: Sequence[Machine] = (), back_from: Sequence[Machine] = ()) -> Undo:
    primary = victims.primary.host
    return _network(victims).drop([*((primary, host) for host in to), *((host, primary) for host in back_from)])


def _network(victims: Victims) -> Wiring:
    network = victims.cluster.network
    if network is None:
        raise DrillError("this needs hosts of their own: --on netns or --on compose")
    return network


def _stores(victims: Victims) -> list[Machine]:
    return [member.host for member in victims.cluster.store.members]


def _peers(victims: Victims) -> list[Machine]:
    return [member.host for member in victims.replicas]


NETWORK_FAULTS = (
    Fault(
        "host-lost",
        "host of the primary loses power and network",
        _host_lost,
        True,
        PRIMARY,
        takes=PRIMARY,
        places=OWN_NETWORK,
    ),
    Fault(
        "unplugged",
        "host of the primary without network; it runs on, and is plugged in again later",
        _unplugged,
        True,
        PRIMARY,
        takes=PRIMARY,
        hold_ttls=1.5,
        places=OWN_NETWORK,
    ),
    Fault(
        "cut-from-etcd",
        "primary cut off from etcd; peers and clients reach it",
        _cut_from_etcd,
        None,
        PRIMARY,
        takes=PRIMARY,
        hold_ttls=1.5,
        strikes_again=False,
        places=OWN_NETWORK,
    ),
    Fault(
        "cut-from-peers",
        "primary cut off from the other members; etcd and clients reach it",
        _cut_from_peers,
        False,
        PRIMARY,
        takes=PEERS,
        hold_ttls=1.5,
        places=OWN_NETWORK,
    ),
    Fault(
        "isolated",
        "primary cut off from etcd and the other members; clients still reach it",
        _isolated,
        True,
        PRIMARY,
        takes=PRIMARY,
        hold_ttls=1.5,
        places=OWN_NETWORK,
    ),
    Fault(
        "one-way-to-etcd",
        "packets from the primary to etcd are lost, those from etcd arrive",
        _one_way_to_etcd,
        None,
        PRIMARY,
        takes=PRIMARY,
        hold_ttls=1.5,
        strikes_again=False,
        places=OWN_NETWORK,
    ),
    Fault(
        "one-way-from-etcd",
        "packets from etcd to the primary are lost, those to etcd arrive",
        _one_way_from_etcd,
        None,
        PRIMARY,
        takes=PRIMARY,
        hold_ttls=1.5,
        strikes_again=False,
        places=OWN_NETWORK,
    ),
    Fault(
        "one-way-peers",
        "packets from the primary to the other members are lost, theirs arrive",
        _one_way_peers,
        False,
        PRIMARY,
        takes=PEERS,
        hold_ttls=1.5,
        places=OWN_NETWORK,
    ),
)
