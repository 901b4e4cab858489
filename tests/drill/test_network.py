"""Cuts by address on real namespaces: what is to be lost is lost, all else arrives, and mending heals."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hamgr.drill.errors import DrillError
from hamgr.drill.hosts import Host
from hamgr.drill.network import Network
from hamgr.drill.plan import Place
from hamgr.drill.programs import missing_programs
from tests.drill.test_hosts import wait_until

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(bool(missing_programs(Place.NETNS)), reason="programs for networks are missing"),
]

_HEAR = """
import socket, sys
heard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
heard.bind((sys.argv[1], 9000))
while True:
    word, _ = heard.recvfrom(100)
    open(sys.argv[2], "ab").write(word)
"""
_SAY = """
import socket, sys
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(sys.argv[2].encode(), (sys.argv[1], 9000))
"""


class Ear:
    """Writes down what arrives at a host by UDP: one way only, unlike a connection."""

    def __init__(self, host: Host, room: Path) -> None:
        self.host = host
        self.path = room / f"{host.name}.heard"
        host.spawn([sys.executable, "-c", _HEAR, host.address, str(self.path)], room / f"{host.name}.log")

    def hears(self, sender: Host, word: str) -> bool:
        """Whether `word` arrived; a packet that is not lost is here before the sender's program has ended."""
        sender.run([sys.executable, "-c", _SAY, self.host.address, word])
        try:
            wait_until(lambda: word in self.text(), timeout_s=0.5)
        except AssertionError:
            return False
        return True

    def text(self) -> str:
        return self.path.read_text() if self.path.exists() else ""


@pytest.fixture
def network(room: Path) -> Iterator[Network]:
    made = Network(["x", "y", "client"], room / "net", None)
    yield made
    made.close()


@pytest.fixture
def ears(network: Network, room: Path) -> dict[str, Ear]:
    made = {name: Ear(host, room) for name, host in network.hosts.items()}
    for name, ear in made.items():
        other = network.hosts["x" if name != "x" else "y"]
        wait_until(lambda ear=ear, other=other: ear.hears(other, "hello"))  # type: ignore[misc]
    return made


def test_packets_are_lost_one_way_only_and_only_between_the_two_until_mended(
    network: Network, ears: dict[str, Ear]
) -> None:
    x, y, client = (network.hosts[name] for name in ("x", "y", "client"))
    mend = network.drop([(x, y)])
    assert not ears["y"].hears(x, "lost")
    assert ears["x"].hears(y, "the other way")
    assert ears["y"].hears(client, "from the client")
    mend()
    assert ears["y"].hears(x, "mended")


def test_cut_in_both_ways_leaves_the_client_and_says_nothing_to_the_sender(
    network: Network, ears: dict[str, Ear]
) -> None:
    x, y, client = (network.hosts[name] for name in ("x", "y", "client"))
    network.drop([(x, y), (y, x)])
    assert not ears["y"].hears(x, "lost")
    assert not ears["x"].hears(y, "lost")
    assert ears["x"].hears(client, "from the client")
    assert ears["client"].hears(x, "to the client")


def test_two_cuts_are_mended_one_by_one(network: Network, ears: dict[str, Ear]) -> None:
    x, y, client = (network.hosts[name] for name in ("x", "y", "client"))
    mend_peer, mend_client = network.drop([(x, y)]), network.drop([(client, y)])
    mend_peer()
    assert ears["y"].hears(x, "one")
    assert not ears["y"].hears(client, "two")
    mend_client()
    assert ears["y"].hears(client, "three")


def test_connection_that_was_open_hangs_without_an_error(network: Network, room: Path) -> None:
    x, y = network.hosts["x"], network.hosts["y"]
    y.spawn([sys.executable, "-m", "http.server", "8000", "--bind", y.address], room / "y.log")
    knock = [sys.executable, "-c", f"import socket; socket.create_connection(('{y.address}', 8000), 0.5)"]

    def knocks() -> str:
        try:
            x.run(knock)
        except DrillError as error:
            return str(error)
        return ""

    wait_until(lambda: knocks() == "")
    mend = network.drop([(y, x)])
    assert "timed out" in knocks()
    mend()
    assert knocks() == ""
