"""What faults do to a host and to its network, wherever hosts are."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence


class Machine(ABC):
    """One host: a name, an address, and power over everything that runs there."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address

    @abstractmethod
    def run(self, argv: Sequence[str], *, timeout_s: float = 30.0, as_account: bool = True) -> str:
        """Run a program in the host's network to its end and return what it printed. Raises DrillError otherwise."""

    @abstractmethod
    def kill_all(self) -> int:
        """SIGKILL everything on this host at once; true on return: nothing of it runs. Returns how many, if known."""

    @abstractmethod
    def freeze_all(self) -> None:
        """Everything on this host stands still, as on a paused virtual machine."""

    @abstractmethod
    def thaw_all(self) -> None:
        """Everything goes on."""


class Wiring(ABC):
    """What connects the hosts, and can be cut."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    @abstractmethod
    def cut(self, host: Machine) -> None:
        """Pull the host's cable: nothing comes or goes, no packet says so."""

    @abstractmethod
    def mend(self, host: Machine) -> None:
        """Plug the host in again."""

    def drop(self, ways: Sequence[tuple[Machine, Machine]]) -> Callable[[], None]:
        """Every packet on each way (sender, receiver) is lost, without a word to anybody. Returns what mends it.

        Dropped where it arrives: a rule at the sender would tell the sending program.
        """
        table = f"drill{next(self._numbers)}"
        receivers = {receiver.name: receiver for _, receiver in ways}
        for receiver in receivers.values():
            senders = ", ".join(sender.address for sender, to in ways if to is receiver)
            rules = (
                f"add table ip {table}; add chain ip {table} in {{ type filter hook input priority -300; }}; "
                f"add rule ip {table} in ip saddr {{ {senders} }} drop"
            )
            receiver.run(["nft", rules], as_account=False)

        def mend() -> None:
            for receiver in receivers.values():
                receiver.run(["nft", f"delete table ip {table}"], as_account=False)

        return mend
