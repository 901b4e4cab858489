"""A lease and polling, as Patroni elects: a key with a time to live, a loop, and a race of polls for the key.

Source: Patroni's ha.py and dcs/etcd3.py as of 2026-07. One lease per member for member and leader key, renewed in each
turn of the loop; a watch on the leader key wakes the loop; who finds no leader asks every member that it knows, the
last leader among them, by GET /patroni with 2 s of patience, and races for the key if none that answers is ahead. No
watchdog, no failsafe_mode, which is off by default. Left out: that it awaits promotion and stop by polls of a second.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from hamgr.sim.asking import NoAnswer, ask
from hamgr.sim.clock import HostClock
from hamgr.sim.ground import Ground
from hamgr.sim.lab.field import Field, Node
from hamgr.sim.steps import Drive, Resume, Wait

POLL_PATIENCE_S = 2.0
LEADER = "leader"
MEMBERS = "members/"


@dataclass(frozen=True, slots=True)
class PollingSetting:
    """Seconds; the defaults are Patroni's."""

    ttl_s: float = 30.0
    loop_wait_s: float = 10.0
    retry_timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Poll:
    """GET /patroni."""

    number: int


@dataclass(frozen=True, slots=True)
class Answer:
    """`position`: leadership and length of the log; `leads`: its server is a running primary."""

    number: int
    position: tuple[int, int]
    leads: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """What one read of the store shows."""

    leader: str
    members: tuple[str, ...]


def keep_expiring(ground: Ground) -> None:
    """etcd looks for leases that have run out at its own steps."""

    def look() -> None:
        ground.etcd.expire(ground.now)
        ground.at(ground.now + ground.pace.expiry_step_s, look)

    ground.at(ground.now + ground.dice.random() * ground.pace.expiry_step_s, look)


class PollingNode(Node):
    """Keeps nothing on disk."""

    def __init__(self, field: Field, name: str, rank: int, clock: HostClock, setting: PollingSetting) -> None:
        super().__init__(field, name, rank, clock)
        self.setting = setting
        self._reset()
        self.ground.etcd.after_write.append(self._store_changed)

    def _reset(self) -> None:
        self.lease_id = 0
        self.known: dict[str, bool] = {}
        """Every member that was ever seen, whether its key is still there or not."""
        self._polls = 0
        self._answers: dict[str, Answer] = {}
        self._on_answer: Resume | None = None
        self._is_in_turn = False
        self._is_woken = False
        self._turns = 0
        self._leader_revision = 0

    def start(self) -> None:
        self._reset()
        self._turn()

    # -- the loop ----------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        self._is_in_turn, self._is_woken = True, False
        self._turns += 1
        Drive(self._steps(), lambda: self.ground.now, self.at, lambda _outcome: self._turn_ended()).advance()

    def _turn_ended(self) -> None:
        self._is_in_turn = False
        if self._is_woken:
            self._turn()
            return
        turns = self._turns
        self.after(self.setting.loop_wait_s, lambda: self._turn() if self._turns == turns else None)

    def _store_changed(self) -> None:
        """The watch is on the leader key."""
        revision = self.ground.etcd.mod(LEADER)
        if not self.is_running or revision == self._leader_revision:
            return
        self._leader_revision = revision
        late_s = self.field.network.from_etcd_s(self.name)
        if late_s is not None:
            self.at(self.ground.later(self.ground.pace.watch) + late_s, self._wake)

    def _wake(self) -> None:
        if self._is_in_turn:
            self._is_woken = True
        else:
            self._turn()

    def _steps(self) -> Generator[Wait, Any, Any]:
        seen = yield from self._ask(self._read)
        if isinstance(seen, NoAnswer):
            self.database.demote()
            return
        self.known.update(dict.fromkeys(seen.members, True))
        lives = yield from self._keep_lease()
        if not lives:
            self.database.demote()
        elif seen.leader == self.name:
            self.database.promote(self.database.timeline + 1)
        elif seen.leader:
            self.database.demote()
            self.database.follow(seen.leader)
        else:
            yield from self._race()

    def _ask(self, do: Any) -> Generator[Wait, Any, Any]:
        answer = yield ask(self.ground, self, self.name, do, self.setting.retry_timeout_s)
        return answer

    def _read(self) -> Seen:
        etcd = self.ground.etcd
        members = [key.removeprefix(MEMBERS) for key in sorted(etcd.keys) if key.startswith(MEMBERS)]
        return Seen(etcd.get(LEADER, ""), tuple(members))

    def _keep_lease(self) -> Generator[Wait, Any, bool]:
        """The lease lives on; one that is gone is replaced, and what it led with it is over."""
        if self.lease_id:
            ttl_s = yield from self._ask(lambda: self.ground.etcd.renew(self.lease_id, self.ground.now))
            if isinstance(ttl_s, NoAnswer):
                return False
            if ttl_s:
                return True
        lease_id = yield from self._ask(self._grant)
        self.lease_id = 0 if isinstance(lease_id, NoAnswer) else lease_id
        return bool(self.lease_id) and not self.database.leads

    def _grant(self) -> int:
        etcd = self.ground.etcd
        lease_id = etcd.grant(self.setting.ttl_s, self.ground.now, self.name)
        etcd.write({f"{MEMBERS}{self.name}": ("", lease_id)})
        return lease_id

    # -- the race ----------------------------------------------------------------------------------------------

    def _race(self) -> Generator[Wait, Any, None]:
        others = [name for name in self.known if name != self.name]
        answers: dict[str, Answer] = yield self._poll(others)
        is_best = all(not each.leads and each.position <= self.database.position for each in answers.values())
        if not is_best and not self.database.leads:
            return
        won = yield from self._ask(self._take)
        if won is True:
            self.database.promote(self.database.timeline + 1)

    def _take(self) -> bool:
        etcd = self.ground.etcd
        if LEADER in etcd.keys or self.lease_id not in etcd.leases:
            return False
        etcd.write({LEADER: (self.name, self.lease_id)})
        return True

    def _poll(self, names: list[str]) -> Wait:
        """Answered when all have answered, or patience is over."""

        def begin(resume: Resume) -> None:
            self._polls += 1
            number, self._answers = self._polls, {}

            def over() -> None:
                if self._on_answer is not None and number == self._polls:
                    self._on_answer = None
                    resume(self._answers)

            def answered(_name: str) -> None:
                if len(self._answers) == len(names):
                    over()

            self._on_answer = answered
            for name in names:
                self.send(name, Poll(number))
            self.at(self.ground.now + (POLL_PATIENCE_S if names else 0.0), over)

        return begin

    def receive(self, source: str, message: object) -> None:
        if isinstance(message, Poll):
            self.send(source, Answer(message.number, self.database.position, self.database.leads))
        elif isinstance(message, Answer) and message.number == self._polls and self._on_answer is not None:
            self._answers[source] = message
            self._on_answer(source)
