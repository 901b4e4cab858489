"""Raft's election.

Source: D. Ongaro, J. Ousterhout, In Search of an Understandable Consensus Algorithm (USENIX ATC 2014), §5.2 leader
election, §5.4.1 election restriction; D. Ongaro, Consensus: Bridging Theory and Practice (Stanford, 2014), §6.2 a
leader without a majority steps down, §9.6 pre-vote.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from hamgr.sim.clock import HostClock
from hamgr.sim.lab.field import Field, Node, Timer
from hamgr.sim.pace import Range


@dataclass(frozen=True, slots=True)
class RaftSetting:
    """Seconds; the defaults are the paper's, whose leader sends two heartbeats in the shortest timeout."""

    election_timeout: Range = (0.15, 0.3)
    heartbeat_s: float = 0.075
    flush: Range = (0.0005, 0.004)
    """Term and vote are on disk before a vote is given or asked for."""
    wakes_late: Range = (0.0, 0.002)
    """A process runs so late when its timer goes off."""
    pre_vote: bool = False
    checks_quorum: bool = False
    """A leader that has not heard of a majority for one election timeout steps down."""


@dataclass(frozen=True, slots=True)
class VoteAsked:
    """RequestVote. `is_pre`: would you vote for me in that term?"""

    term: int
    position: tuple[int, int]
    is_pre: bool = False


@dataclass(frozen=True, slots=True)
class Vote:
    """The answer to it. `term`: of the member that answers."""

    term: int
    is_granted: bool
    is_pre: bool = False


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """AppendEntries without entries: the log is streamed beside it."""

    term: int


@dataclass(frozen=True, slots=True)
class HeartbeatHeard:
    """The answer to it."""

    term: int


class Role(Enum):
    """What a member is at the moment."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(slots=True)
class OnDisk:
    """Survives a crash."""

    term: int = 0
    voted_for: str = ""


@dataclass(slots=True)
class Volatile:
    """Does not."""

    role: Role = Role.FOLLOWER
    leader: str = ""
    heard_at: float = float("-inf")
    """When the leader was last heard of, on this host's clock."""
    votes: dict[str, bool] = field(default_factory=dict)
    answered_at: dict[str, float] = field(default_factory=dict)
    """A leader's: when each member last answered."""


class RaftNode(Node):
    """Compares logs by leadership of the last entry, then length."""

    def __init__(self, field: Field, name: str, rank: int, clock: HostClock, setting: RaftSetting) -> None:
        super().__init__(field, name, rank, clock)
        self.setting = setting
        self.disk = OnDisk()
        self.now = Volatile()
        self._election = Timer(self, self._timed_out)
        self._beat = Timer(self, self.send_heartbeats)

    def start(self) -> None:
        self.now = Volatile()
        self._election.reset()
        self._beat.reset()
        self._wait_again()

    def would_commit(self) -> bool:
        """Where commits need a majority: one that follows this leader, or would, is within reach."""
        if not self.field.writers.is_quorum:
            return True
        connects, missing = self.field.network.connects, self.field.majority - 1
        for node in self.others:
            if missing <= 0:
                break
            missing -= node.is_awake and connects(self.name, node.name) and _term_of(node) <= self.disk.term
        return missing <= 0

    def _wait_again(self) -> None:
        self._election.set(self.ground.draw(self.setting.election_timeout) + self.ground.draw(self.setting.wakes_late))

    # -- messages ----------------------------------------------------------------------------------------------

    def receive(self, source: str, message: object) -> None:
        if isinstance(message, VoteAsked):
            self._vote(source, message)
        elif isinstance(message, Vote):
            self._count(source, message)
        elif isinstance(message, Heartbeat):
            self._heard_leader(source, message.term)
        elif isinstance(message, HeartbeatHeard):
            self._see_term(message.term)
            self.now.answered_at[source] = self.local_now()

    def _see_term(self, term: int) -> None:
        """A greater term than one's own ends whatever one is (§5.1)."""
        if term > self.disk.term:
            self.disk.term, self.disk.voted_for = term, ""
            self._step_down()
            # Nothing of an earlier leader is taken any more.
            self.database.follow("")

    def _step_down(self) -> None:
        was_leader = self.now.role is Role.LEADER
        self.now.role, self.now.leader = Role.FOLLOWER, ""
        self._beat.stop()
        if was_leader:
            self.database.demote()
            self._wait_again()

    # -- voting ------------------------------------------------------------------------------------------------

    def _vote(self, source: str, asked: VoteAsked) -> None:
        if not asked.is_pre:
            self._see_term(asked.term)
        is_granted = asked.term >= self.disk.term and asked.position >= self.database.position
        if asked.is_pre:
            is_granted = is_granted and not self._hears_leader()
            self.send(source, Vote(self.disk.term, is_granted, is_pre=True))
            return
        is_granted = is_granted and self.disk.voted_for in ("", source)
        if is_granted:
            self.disk.voted_for = source
            self._wait_again()
        vote = Vote(self.disk.term, is_granted)
        self.at(self.ground.later(self.setting.flush), lambda: self.send(source, vote))

    def _hears_leader(self) -> bool:
        """It leads itself, or has heard of a leader within the shortest election timeout."""
        if self.now.role is Role.LEADER:
            return True
        return self.local_now() - self.now.heard_at < self.setting.election_timeout[0]

    def _count(self, source: str, vote: Vote) -> None:
        self._see_term(vote.term)
        wanted = Role.PRE_CANDIDATE if vote.is_pre else Role.CANDIDATE
        if self.now.role is not wanted or not vote.is_granted or (not vote.is_pre and vote.term != self.disk.term):
            return
        self.now.votes[source] = True
        if len(self.now.votes) < self.field.majority:
            return
        if vote.is_pre:
            self._campaign()
        else:
            self._lead()

    # -- campaigning -------------------------------------------------------------------------------------------

    def _timed_out(self) -> None:
        if self.now.role is Role.LEADER:
            return
        self.field.on_notice()
        if not self.setting.pre_vote:
            self._campaign()
            return
        self.now.role, self.now.leader = Role.PRE_CANDIDATE, ""
        self.now.votes = {self.name: True}
        self._wait_again()
        self.send_all(VoteAsked(self.disk.term + 1, self.database.position, is_pre=True))

    def _campaign(self) -> None:
        self.disk.term += 1
        self.disk.voted_for = self.name
        self.now.role, self.now.leader = Role.CANDIDATE, ""
        self.now.votes = {self.name: True}
        self.database.follow("")
        self._wait_again()
        asked = VoteAsked(self.disk.term, self.database.position)
        self.at(self.ground.later(self.setting.flush), lambda: self.send_all(asked))

    def _lead(self) -> None:
        now = self.local_now()
        self.now.role, self.now.leader = Role.LEADER, self.name
        self.now.answered_at = {node.name: now for node in self.others}
        self._election.stop()
        self.database.promote(self.disk.term)
        self.send_heartbeats()

    # -- leading and following ---------------------------------------------------------------------------------

    def send_heartbeats(self) -> None:
        """A leader's, to everybody; the next come by themselves."""
        if self.setting.checks_quorum and not self._has_quorum():
            self.field.on_notice()
            self._step_down()
            return
        self.send_all(Heartbeat(self.disk.term))
        self._beat.set(self.setting.heartbeat_s)

    def _has_quorum(self) -> bool:
        since = self.local_now() - self.setting.election_timeout[1]
        return 1 + sum(at >= since for at in self.now.answered_at.values()) >= self.field.majority

    def _heard_leader(self, source: str, term: int) -> None:
        self._see_term(term)
        if term == self.disk.term:
            self.now.role, self.now.leader = Role.FOLLOWER, source
            self.now.heard_at = self.local_now()
            self._wait_again()
            self.database.follow(source)
        self.send(source, HeartbeatHeard(self.disk.term))


def _term_of(node: Node) -> int:
    return node.disk.term if isinstance(node, RaftNode) else 0
