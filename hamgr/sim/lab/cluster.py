"""The small interface that every protocol of the lab stands behind: what faults strike and what observers see."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from hamgr.sim.ground import Ground
from hamgr.sim.lab.network import LabNetwork
from hamgr.sim.wal import Commit

OnNotice = Callable[[], None]

CLIENTS = "clients"
"""The clients that stand with the majority, as the network knows them. Each member has others beside it, which reach it
whatever is cut.
"""


class Copy(Protocol):
    """A member's log. `timeline`: the leadership under which its last was written."""

    name: str
    head: Commit | None
    timeline: int

    @property
    def is_awake(self) -> bool: ...


class Cluster(Protocol):
    """One protocol at work. A member is an agent, which takes part in the election, and a server on one host."""

    ground: Ground
    network: LabNetwork
    names: tuple[str, ...]
    on_notice: OnNotice
    """Called when a member, or the store, finds that there is no leader."""

    def begin(self) -> None:
        """All members and their clients are up."""

    def is_ready(self) -> bool:
        """One leads, and every other member streams from it."""

    def accepting(self) -> tuple[str, ...]:
        """Whose clients' writes, sent now, would be acknowledged."""

    def copies(self) -> Mapping[str, Copy]:
        """Every member's log."""

    def acknowledged(self) -> Sequence[Commit]:
        """What clients were told is safe."""

    def lose(self, name: str) -> None:
        """Power off."""

    def bring_back(self, name: str) -> None:
        """The host boots."""

    def freeze_agent(self, name: str) -> None:
        """SIGSTOP to the agent; where there is none beside the server, to that."""

    def thaw_agent(self, name: str) -> None:
        """SIGCONT, if it is still there."""

    def suspend(self, name: str) -> None:
        """The whole host stands still."""

    def resume(self, name: str) -> None:
        """It goes on."""

    def cuts_changed(self) -> None:
        """The network was cut, or mended."""
