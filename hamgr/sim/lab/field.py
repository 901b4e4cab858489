"""Protocols that the lab implements itself: members that talk, each beside a database, on one network."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hamgr.sim.clock import HostClock
from hamgr.sim.ground import Ground
from hamgr.sim.lab.cluster import Copy, OnNotice
from hamgr.sim.lab.database import Database, Stream
from hamgr.sim.lab.network import LabNetwork
from hamgr.sim.lab.writers import Writers
from hamgr.sim.pace import Pace
from hamgr.sim.process import Process
from hamgr.sim.wal import Commit

PACE = Pace()
HOST = "host"
FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a protocol is put. `drift`: how far the speeds of the slowest and the fastest clock are from etcd's."""

    members: int
    drift: float = 0.0
    pace: Pace = PACE

    @property
    def names(self) -> tuple[str, ...]:
        """Members in the order of their ids."""
        return tuple(f"m{number:02}" for number in range(1, self.members + 1))

    def clocks(self, dice: random.Random) -> list[HostClock]:
        """One for each member, their speeds spread evenly over what the drift allows, in an order by chance."""
        steps = max(1, self.members - 1)
        rates = [1.0 + self.drift * (2 * number / steps - 1) for number in range(self.members)]
        dice.shuffle(rates)
        return [HostClock(dice.uniform(0.0, 1e5), rate) for rate in rates]


class Node(Process):
    """A member's agent. What it keeps on disk outlives `begin`; everything else starts afresh there."""

    def __init__(self, field: Field, name: str, rank: int, clock: HostClock) -> None:
        super().__init__(field.ground)
        self.field = field
        self.ground = field.ground
        self.name = name
        self.rank = rank
        """Its id: the greater, the stronger, where a protocol goes by ids."""
        self.clock = clock
        self.database = field.databases[name]

    @property
    def others(self) -> Iterator[Node]:
        return (node for node in self.field.nodes.values() if node is not self)

    def begin(self) -> None:
        """A fresh process, which knows what is on disk."""
        self.launch()
        self.start()

    def start(self) -> None:
        """What a fresh process does first."""
        raise NotImplementedError

    def receive(self, source: str, message: object) -> None:
        """What another member says."""
        raise NotImplementedError

    def would_commit(self) -> bool:
        """Its database being writable, the protocol lets a write be acknowledged."""
        return True

    def send(self, target: str, message: object) -> None:
        """On its way, if it arrives at all."""
        late_s = self.field.network.talk_s(self.name, target)
        node = self.field.nodes[target]
        if late_s is not None and node.is_running:
            node.at(self.ground.now + late_s, lambda: node.receive(self.name, message))

    def send_all(self, message: object) -> None:
        """To every other member."""
        for node in self.others:
            self.send(node.name, message)

    def after(self, local_s: float, do: Callable[[], None]) -> None:
        """Do that when so much time has passed on this host's clock."""
        self.at(self.ground.now + local_s / self.clock.rate, do)

    def local_now(self) -> float:
        """This host's clock."""
        return self.clock.read(self.ground.now)


class Timer:
    """One alarm of a node, which may be put off again and again at little cost."""

    def __init__(self, node: Node, do: Callable[[], None]) -> None:
        self._node = node
        self._do = do
        self._due: float | None = None
        self._asleep_until: float | None = None

    def reset(self) -> None:
        """A fresh process: nothing is set."""
        self._due = self._asleep_until = None

    def set(self, local_s: float) -> None:
        """It goes off after so much time on the host's clock, not before."""
        self._due = self._node.ground.now + local_s / self._node.clock.rate
        if self._asleep_until is None or self._asleep_until > self._due:
            self._sleep(self._due)

    def stop(self) -> None:
        """It does not go off."""
        self._due = None

    def _sleep(self, until: float) -> None:
        self._asleep_until = until
        self._node.at(until, lambda: self._wake(until))

    def _wake(self, until: float) -> None:
        if self._asleep_until != until:
            return
        self._asleep_until = None
        if self._due is None:
            return
        if self._due > self._node.ground.now:
            self._sleep(self._due)
        else:
            self._due = None
            self._do()


MakeNode = Callable[["Field", str, int, HostClock], Node]


class Field:
    """A Cluster of nodes of one kind. `is_embedded`: member and database are one process, which freezes as one.
    `quorum`: copies before a commit is acknowledged.
    """

    def __init__(
        self,
        dice: random.Random,
        setting: Setting,
        make: MakeNode,
        *,
        is_embedded: bool = False,
        quorum: int = 1,
    ) -> None:
        self.ground = Ground(dice, setting.pace)
        self.network = LabNetwork(dice, setting.pace)
        self.ground.network = self.network
        self.names = setting.names
        self.is_embedded = is_embedded
        self.on_notice: OnNotice = _nothing
        self.databases = {name: Database(self.ground, name) for name in self.names}
        self.stream = Stream(self.ground, self.databases)
        self.writers = Writers(self.ground, self.databases, self.stream, quorum)
        self._writable: dict[str, Database] = {}
        for database in self.databases.values():
            database.on_writable = self._became_writable
            database.on_read_only = self._became_read_only
        clocks = setting.clocks(dice)
        self.nodes = {
            name: make(self, name, rank, clock)
            for rank, (name, clock) in enumerate(zip(self.names, clocks, strict=True))
        }

    @property
    def majority(self) -> int:
        """More than half of the members."""
        return len(self.names) // 2 + 1

    def _became_writable(self, database: Database) -> None:
        self._writable[database.name] = database
        self.stream.spread(database)

    def _became_read_only(self, database: Database) -> None:
        del self._writable[database.name]
        self.writers.forget(database)

    # -- the interface of the lab ------------------------------------------------------------------------------

    def begin(self) -> None:
        for name in self.names:
            self.bring_back(name)
        self.writers.begin()

    def is_ready(self) -> bool:
        leaders = self.accepting()
        if len(leaders) != 1:
            return False
        return all(each.upstream == leaders[0] for name, each in self.databases.items() if name != leaders[0])

    def accepting(self) -> tuple[str, ...]:
        return tuple(
            name for name, database in self._writable.items() if database.is_awake and self.nodes[name].would_commit()
        )

    def copies(self) -> Mapping[str, Copy]:
        return self.databases

    def acknowledged(self) -> Sequence[Commit]:
        return self.writers.acknowledged

    def lose(self, name: str) -> None:
        self.nodes[name].end()
        self.databases[name].lose()

    def bring_back(self, name: str) -> None:
        if not self.nodes[name].is_running:
            self.databases[name].launch()
            self.nodes[name].begin()

    def freeze_agent(self, name: str) -> None:
        self.nodes[name].freeze(FAULT)
        if self.is_embedded:
            self.databases[name].freeze(FAULT)

    def thaw_agent(self, name: str) -> None:
        self._thaw(name, FAULT)

    def suspend(self, name: str) -> None:
        self.nodes[name].freeze(HOST)
        self.databases[name].freeze(HOST)

    def resume(self, name: str) -> None:
        self._thaw(name, HOST)

    def _thaw(self, name: str, by: str) -> None:
        pace = self.ground.pace
        self.databases[name].thaw(by, lambda: self.ground.draw(pace.hop))
        self.nodes[name].thaw(by, lambda: self.ground.draw(pace.thaw))

    def cuts_changed(self) -> None:
        """Whoever streams looks for a way again by itself."""


def _nothing() -> None:
    return None
