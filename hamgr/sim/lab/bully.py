"""Bully: the member with the highest id leads.

Source: H. Garcia-Molina, Elections in a Distributed Computing System, IEEE Transactions on Computers C-31 (1982),
section III. It assumes that a message that is not answered in a known time means that the other is dead.
"""

from __future__ import annotations

from enum import Enum

from hamgr.sim.clock import HostClock
from hamgr.sim.lab.field import Field, Node, Timer

HEARTBEAT_S = 0.5
"""So often the leader says that it is there (procedure Check)."""
SILENCE_S = 1.5
"""A member that has not heard of the leader for so long begins an election (procedure Timeout)."""
ANSWER_S = 0.25
"""A stronger member that is alive has answered by then: twice the longest way, and what it takes to answer."""
VICTORY_S = 1.0
"""A stronger member that has answered has won by then, or it is dead after all."""


class Word(Enum):
    """The messages."""

    ELECTION = "election"
    ANSWER = "answer"
    VICTORY = "victory"
    """Also the leader's heartbeat: it leads."""


class BullyNode(Node):
    """Keeps nothing on disk."""

    def __init__(self, field: Field, name: str, rank: int, clock: HostClock) -> None:
        super().__init__(field, name, rank, clock)
        self.leader = ""
        self._is_electing = False
        self._called_at: float | None = None
        self._silence = Timer(self, self._elect)
        self._answer = Timer(self, self._win)
        self._beat = Timer(self, self._say_that_i_lead)

    def start(self) -> None:
        """Back again: it bullies whoever leads out of the lead, unless somebody stronger is there."""
        self.leader, self._is_electing, self._called_at = "", False, None
        for timer in (self._silence, self._answer, self._beat):
            timer.reset()
        self._elect()

    def receive(self, source: str, message: object) -> None:
        if message is Word.ELECTION:
            self.send(source, Word.ANSWER)
            if self.leader == self.name:
                self._say_that_i_lead()
            elif not self._is_electing and not self._has_just_called():
                self._elect()
        elif message is Word.ANSWER:
            self._answer.stop()
            self._silence.set(VICTORY_S)
        elif message is Word.VICTORY:
            self._heard_leader(source)

    def _heard_leader(self, source: str) -> None:
        if self.field.nodes[source].rank < self.rank:
            if not self._is_electing and self.leader != self.name:
                self._elect()
            elif self.leader == self.name:
                self._say_that_i_lead()
            return
        self._is_electing = False
        self._answer.stop()
        self._beat.stop()
        self._silence.set(SILENCE_S)
        self.leader = source
        self.database.demote()
        self.database.follow(source)

    def _has_just_called(self) -> bool:
        """A call that comes late belongs to the election that was. Else, where messages are late, each call begets
        more than one, and in a large cluster they grow without end.
        """
        return self._called_at is not None and self.local_now() - self._called_at < VICTORY_S

    def _elect(self) -> None:
        self._is_electing = True
        self._called_at = self.local_now()
        self.field.on_notice()
        stronger = [node.name for node in self.others if node.rank > self.rank]
        if not stronger:
            self._win()
            return
        for name in stronger:
            self.send(name, Word.ELECTION)
        self._answer.set(ANSWER_S)

    def _win(self) -> None:
        self._is_electing = False
        self._silence.stop()
        self.leader = self.name
        self.database.promote(self.database.timeline + 1)
        self._say_that_i_lead()

    def _say_that_i_lead(self) -> None:
        self.send_all(Word.VICTORY)
        self._beat.set(HEARTBEAT_S)
