"""The ZooKeeper recipe: ephemeral sequential nodes, and each candidate watches only the one before it.

Source: ZooKeeper Recipes and Solutions, "Leader Election"; ZooKeeper Programmer's Guide, "ZooKeeper Sessions".
The ensemble is one place here: its own elections are not simulated, and its messages within itself not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any

from hamgr.sim.asking import NoAnswer, settle
from hamgr.sim.clock import HostClock
from hamgr.sim.ground import Ground
from hamgr.sim.lab.field import Field, Node
from hamgr.sim.steps import Drive, Wait

RECONNECT_S = 0.5
DISCOVER_S = 0.5
"""Standbys look for a writable server among all hosts so often, as libpq does with target_session_attrs: the recipe
does not tell them who leads without a herd.
"""


@dataclass(frozen=True, slots=True)
class ZooKeeperSetting:
    """Seconds. `steps_down`: a leader that is disconnected stops leading at once, as Curator's documentation asks for;
    the recipe itself says nothing of it.
    """

    session_s: float = 6.0
    tick_s: float = 2.0
    steps_down: bool = False

    @property
    def ping_s(self) -> float:
        """A client says so often that it is there. One that has then not been answered for as long again, two thirds
        of the session since it was last heard, is disconnected.
        """
        return self.session_s / 3


@dataclass(slots=True)
class Session:
    """`expires_at` is a tick of the ensemble."""

    owner: str
    expires_at: float


class Ensemble:
    """Sessions, the candidates' nodes in order, and who watches which of them."""

    def __init__(self, ground: Ground, setting: ZooKeeperSetting, on_gone: Callable[[], None]) -> None:
        self._ground = ground
        self._setting = setting
        self._on_gone = on_gone
        self.sessions: dict[int, Session] = {}
        self.candidates: dict[int, int] = {}
        """Sequence number of the node -> its session. In order of their making."""
        self._watches: dict[int, dict[int, Callable[[], None]]] = {}
        """Number of the watched node -> session that watches it -> how it is told."""
        self._last = 0
        self.notified = 0
        """Watches that went off."""
        ground.at(ground.now + setting.tick_s, self._tick)

    def open(self, owner: str) -> int:
        """A new session."""
        self._last += 1
        self.sessions[self._last] = Session(owner, 0.0)
        self.touch(self._last)
        return self._last

    def touch(self, session_id: int) -> bool:
        """The session lives on; False: it has expired."""
        session = self.sessions.get(session_id)
        if session is None:
            return False
        ticks = int((self._ground.now + self._setting.session_s) / self._setting.tick_s) + 1
        session.expires_at = ticks * self._setting.tick_s
        return True

    def join(self, session_id: int) -> int:
        """An ephemeral node with the next number; 0: the session has expired."""
        if session_id not in self.sessions:
            return 0
        self._last += 1
        self.candidates[self._last] = session_id
        return self._last

    def children(self) -> tuple[int, ...]:
        """The candidates' numbers, the smallest first."""
        return tuple(self.candidates)

    def watch(self, session_id: int, number: int, tell: Callable[[], None]) -> bool:
        """That session, if it lives, is told once when that node is gone, however often it asks; False: it is gone."""
        if number not in self.candidates:
            return False
        if session_id in self.sessions:
            self._watches.setdefault(number, {})[session_id] = tell
        return True

    def _tick(self) -> None:
        """Sessions end at ticks, never between them."""
        now = self._ground.now
        self._ground.at(now + self._setting.tick_s, self._tick)
        for number in [each for each, session in self.sessions.items() if session.expires_at <= now]:
            self.end(number)

    def end(self, session_id: int) -> None:
        """The session is over, and its nodes are gone."""
        del self.sessions[session_id]
        for watchers in self._watches.values():
            watchers.pop(session_id, None)
        for number in [each for each, owner in self.candidates.items() if owner == session_id]:
            if number == next(iter(self.candidates)):
                self._on_gone()
            del self.candidates[number]
            for tell in self._watches.pop(number, {}).values():
                self.notified += 1
                tell()


class ZooKeeperNode(Node):
    """Keeps nothing on disk: a member that comes back opens a session of its own."""

    def __init__(
        self, field: Field, name: str, rank: int, clock: HostClock, ensemble: Ensemble, setting: ZooKeeperSetting
    ) -> None:
        super().__init__(field, name, rank, clock)
        self.ensemble = ensemble
        self.setting = setting
        self.session_id = 0
        self.number = 0
        self._is_looking = self._is_due = self._is_away = False

    def start(self) -> None:
        self.session_id = self.number = 0
        self._is_looking = self._is_due = self._is_away = False
        self._drive(self._live())
        self._discover()

    def receive(self, source: str, message: object) -> None:
        raise AssertionError(f"members do not talk to each other: {source}, {message}")

    def _drive(self, steps: Generator[Wait, Any, Any]) -> None:
        Drive(steps, lambda: self.ground.now, self.at, lambda _outcome: None).advance()

    def _ask(self, do: Callable[[], Any]) -> Generator[Wait, Any, Any]:
        return settle(self.ground, self, self.name, do, self.setting.ping_s)

    # -- the session -------------------------------------------------------------------------------------------

    def _live(self) -> Generator[Wait, Any, Any]:
        """Open a session and keep it; one that has expired is replaced, which is learnt only from the ensemble."""
        while True:
            if not self.session_id:
                opened = yield from self._ask(lambda: self.ensemble.open(self.name))
                if not isinstance(opened, NoAnswer):
                    self.session_id = opened
                    self._drive(self._join())
                yield RECONNECT_S
                continue
            lives = yield from self._ask(partial(self.ensemble.touch, self.session_id))
            if isinstance(lives, NoAnswer):
                self._disconnected()
                yield RECONNECT_S
            elif not lives:
                self._expired()
            else:
                self._connected()
                yield self.setting.ping_s / self.clock.rate

    def _disconnected(self) -> None:
        self._is_away = True
        if self.setting.steps_down:
            self.database.demote()

    def _connected(self) -> None:
        """If it was not: it is so in time, and the node is still there."""
        if self._is_away and self.setting.steps_down and self.number and not self.database.leads:
            self._look_again()
        self._is_away = False

    def _expired(self) -> None:
        self.session_id = self.number = 0
        self.database.demote()

    # -- the recipe --------------------------------------------------------------------------------------------

    def _join(self) -> Generator[Wait, Any, Any]:
        session_id = self.session_id
        number = yield from self._ask(lambda: self.ensemble.join(session_id))
        if not isinstance(number, NoAnswer) and number and session_id == self.session_id:
            self.number = number
            self._look_again()

    def _look_again(self) -> None:
        """What is learned while it looks is followed by another look."""
        self._is_due = True
        if not self._is_looking:
            self._drive(self._look())

    def _look(self) -> Generator[Wait, Any, Any]:
        self._is_looking = True
        while self._is_due and self.number:
            self._is_due = False
            if (yield from self._look_once(self.number)) is False:
                self._is_due = True
                yield RECONNECT_S
        self._is_looking = False

    def _look_once(self, number: int) -> Generator[Wait, Any, bool]:
        """Lead if no candidate is before this one, else watch the one right before it. False: there was no answer."""
        children = yield from self._ask(self.ensemble.children)
        if isinstance(children, NoAnswer):
            return False
        before = [each for each in children if each < number]
        if not before:
            if number in children and number == self.number:
                self.database.promote(self.database.timeline + 1)
            return True
        tell = partial(self._notified, self.session_id, self.generation)
        watches = yield from self._ask(partial(self.ensemble.watch, self.session_id, before[-1], tell))
        if watches is False:
            self._is_due = True
        return not isinstance(watches, NoAnswer)

    def _notified(self, session_id: int, life: int) -> None:
        """The ensemble's event is on its way, once; a client that is disconnected gets it when it reconnects, unless
        its session has ended by then.
        """
        if session_id not in self.ensemble.sessions or self.generation != life:
            return
        late_s = self.field.network.from_etcd_s(self.name)
        if late_s is None:
            self.ground.at(self.ground.now + RECONNECT_S, lambda: self._notified(session_id, life))
        else:
            self.at(self.ground.now + late_s, self._look_again)

    # -- the standby beside it ---------------------------------------------------------------------------------

    def _discover(self) -> None:
        """The server's own work, whatever becomes of the agent."""
        database, connects = self.database, self.field.network.connects
        if not database.leads and not database.is_writable:
            present = self.field.databases.get(database.upstream)
            if present is None or not present.is_writable or not connects(self.name, present.name):
                for other in self.field.databases.values():
                    if other.is_writable and other.is_awake and connects(self.name, other.name):
                        database.follow(other.name)
                        break
        database.at(self.ground.now + DISCOVER_S, self._discover)
