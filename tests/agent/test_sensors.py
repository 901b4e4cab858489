"""Where facts come from: a watch that survives gaps and outages, a pidfd, the guard's heartbeat."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from hamgr.agent import sensors
from hamgr.agent.clock import now
from hamgr.agent.guardlink import GuardLink, nanoseconds
from hamgr.agent.sensors import (
    LONGEST_RETRY_S,
    RETRY_S,
    ServerSensor,
    first_of,
    watch_guard,
    watch_store,
)
from hamgr.core.facts import ClusterSeen, Fact, GuardSeen, Probed, ServerExited, StoreFailed, StoreReset, WallClockSeen
from hamgr.core.server import Phase, ServerIdentity, ServerView
from hamgr.core.units import after
from hamgr.dcs.errors import StoreError, StoreUnavailable
from hamgr.dcs.ops import Gap, Interrupted
from hamgr.postgres.process import start_ticks
from hamgr.postgres.server import LocalServer
from tests.agent.workbench import leading, until, view

AWAY = StoreUnavailable("no answer")


@asynccontextmanager
async def running(task: Awaitable[None]) -> AsyncIterator[None]:
    """Beside what is tested; its own error is raised at the end."""
    future = asyncio.ensure_future(task)
    try:
        yield
    finally:
        future.cancel()
        with suppress(asyncio.CancelledError):
            await future


# -- the store -------------------------------------------------------------------------------------------------


@dataclass
class Store:
    """`reads` are answered one after another, then never again; each watch yields what is next in `watches`."""

    reads: list[Any] = field(default_factory=list)
    watches: list[list[Any]] = field(default_factory=list)
    watched: list[tuple[int, float]] = field(default_factory=list)

    async def read(self) -> Any:
        if not self.reads:
            await asyncio.Future()
        answer = self.reads.pop(0)
        if isinstance(answer, StoreError):
            raise answer
        return answer

    async def watch(self, from_revision: int, idle_s: float) -> AsyncIterator[Any]:
        self.watched.append((from_revision, idle_s))
        for change in self.watches.pop(0):
            if isinstance(change, StoreError):
                raise change
            yield change


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were asked for, each over at once."""
    asked: list[float] = []
    real_sleep = asyncio.sleep

    async def sleep(pause_s: float) -> None:
        asked.append(pause_s)
        await real_sleep(0)

    monkeypatch.setattr(sensors.asyncio, "sleep", sleep)
    return asked


async def watched(store: Store, facts: int, known: Callable[[], int] | None = None) -> list[Fact]:
    """What is posted of that store, until there are so many facts."""
    posted: list[Fact] = []
    enough = asyncio.Event()

    def post(fact: Fact) -> None:
        posted.append(fact)
        if len(posted) >= facts:
            enough.set()

    async with running(watch_store(cast(Any, store), post, lambda: 2.0, known or (lambda: 0))), asyncio.timeout(20):
        await enough.wait()
    return posted


async def test_every_newer_view_is_posted() -> None:
    views = [view(revision=revision) for revision in (10, 11, 12)]
    store = Store([views[0]], [[views[1], views[2]]])
    assert await watched(store, 3) == [ClusterSeen(seen) for seen in views]
    assert store.watched == [(10, 2.0)]


@pytest.mark.parametrize("end", [Gap("compacted"), Interrupted("stream lost")])
async def test_after_each_interruption_all_is_read_again(end: object) -> None:
    """Resumed, the watch would not show that etcd was restored meanwhile."""
    views = [view(revision=revision) for revision in (10, 20, 21)]
    store = Store(views[:2], [[end, view(revision=15)], [views[2]]])
    assert await watched(store, 3) == [ClusterSeen(seen) for seen in views]
    assert store.watched == [(10, 2.0), (20, 2.0)]


async def test_what_is_older_than_what_was_known_before_is_told_as_a_loss() -> None:
    store = Store([view(revision=10), view(revision=4)], [[Gap("behind")], []])
    posted = await watched(store, 2, lambda: 10)
    assert [type(fact) for fact in posted] == [ClusterSeen, StoreReset]
    assert store.watched == [(10, 2.0), (4, 2.0)]


async def test_an_outage_is_told_each_time_with_growing_pauses_up_to_a_bound(pauses: list[float]) -> None:
    seen = view()
    posted = await watched(Store([AWAY] * 6 + [seen], [[]]), 7)
    assert [type(fact) for fact in posted] == [StoreFailed] * 6 + [ClusterSeen]
    assert pauses[:6] == [RETRY_S, 2 * RETRY_S, *[LONGEST_RETRY_S] * 4]


async def test_the_pauses_of_an_earlier_outage_are_forgotten_once_the_store_answered(pauses: list[float]) -> None:
    store = Store([AWAY, AWAY, view(), AWAY, view()], [[AWAY], []])
    await watched(store, 6)
    assert pauses[:4] == [RETRY_S, 2 * RETRY_S, RETRY_S, 2 * RETRY_S]


# -- the server ------------------------------------------------------------------------------------------------


@dataclass
class Server:
    seen: ServerView

    async def probe(self) -> ServerView:
        return self.seen


def started() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        yield process
        process.kill()


process = pytest.fixture(started, name="process")
other = pytest.fixture(started, name="other")


def identity_of(process: subprocess.Popen[bytes]) -> ServerIdentity:
    ticks = start_ticks(process.pid)
    assert ticks is not None
    return ServerIdentity(process.pid, ticks)


def sensor_of(server: Server, post: Callable[[Fact], None]) -> ServerSensor:
    return ServerSensor(cast(LocalServer, server), post, leading)


async def test_the_end_of_the_server_is_told_by_its_pidfd_though_nobody_probes_or_reaps(
    process: subprocess.Popen[bytes],
) -> None:
    identity = identity_of(process)
    facts: list[Fact] = []
    sensor = sensor_of(Server(ServerView(Phase.RUNNING, identity=identity)), facts.append)
    await sensor.probe()
    await sensor.probe()
    assert [type(fact) for fact in facts] == [Probed, Probed]
    process.kill()
    await until(lambda: len(facts) == 3, "the end is posted")
    end = facts[2]
    assert isinstance(end, ServerExited)
    assert end.identity == identity


async def test_a_server_that_ended_before_it_was_watched_has_ended(process: subprocess.Popen[bytes]) -> None:
    identity = identity_of(process)
    process.kill()
    process.wait()
    facts: list[Fact] = []
    sensor = sensor_of(Server(ServerView(Phase.RUNNING, identity=identity)), facts.append)
    await sensor.probe()
    await until(lambda: len(facts) == 2, "the end is posted")
    assert isinstance(facts[1], ServerExited)


async def test_a_server_started_anew_is_watched_in_the_place_of_the_old_one(
    process: subprocess.Popen[bytes], other: subprocess.Popen[bytes]
) -> None:
    facts: list[Fact] = []
    server = Server(ServerView(Phase.RUNNING, identity=identity_of(process)))
    sensor = sensor_of(server, facts.append)
    await sensor.probe()
    server.seen = ServerView(Phase.RUNNING, identity=identity_of(other))
    await sensor.probe()
    process.kill()
    process.wait()
    other.kill()
    await until(lambda: len(facts) == 3, "an end is posted")
    ends = [fact.identity for fact in facts if isinstance(fact, ServerExited)]
    assert ends == [server.seen.identity]


async def test_the_server_is_looked_at_again_and_again() -> None:
    facts: list[Fact] = []
    sensor = sensor_of(Server(ServerView()), facts.append)
    async with running(sensor.run()):
        sensor.probe_soon()
        await until(lambda: len(facts) >= 2, "it is probed twice")


# -- the guard -------------------------------------------------------------------------------------------------


async def test_a_guard_that_falls_silent_and_comes_back_is_told_once_each(link: GuardLink) -> None:
    facts: list[Fact] = []
    beat = link.page.guard_heartbeat_ns

    def told() -> list[bool]:
        return [fact.alive for fact in facts if isinstance(fact, GuardSeen)]

    async with running(watch_guard(link, facts.append, 0.001)):
        await until(lambda: link.page.agent_heartbeat_ns, "the agent beats")
        link.page.guard_heartbeat_ns = nanoseconds(after(now(), -10.0))
        await until(lambda: told() == [False], "its silence is told")
        link.page.guard_heartbeat_ns = beat
        await until(lambda: told() == [False, True], "its return is told")
        first = link.page.agent_heartbeat_ns
        await until(lambda: link.page.agent_heartbeat_ns > first, "the agent goes on beating")
    assert told() == [False, True]


async def test_a_step_of_the_wall_clock_is_told_once(link: GuardLink, monkeypatch: pytest.MonkeyPatch) -> None:
    facts: list[Fact] = []
    ahead_s = [1000.0]
    monkeypatch.setattr(sensors, "wall", lambda: now() + ahead_s[0])

    def told() -> list[int]:
        return [round(fact.ahead_s) for fact in facts if isinstance(fact, WallClockSeen)]

    async with running(watch_guard(link, facts.append, 0.001)):
        await until(told, "the clock is told")
        ahead_s[0] = 4600.0
        await until(lambda: len(told()) >= 2, "its step is told")
        first = link.page.agent_heartbeat_ns
        await until(lambda: link.page.agent_heartbeat_ns > first, "one more turn")
    assert told() == [1000, 4600]


# -- all of them -----------------------------------------------------------------------------------------------


async def test_the_first_to_end_ends_the_others_and_its_error_is_raised() -> None:
    ended: list[str] = []

    async def for_ever() -> None:
        try:
            await asyncio.Future()
        finally:
            ended.append("cancelled")

    async def broken() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError("a defect")

    with pytest.raises(ZeroDivisionError):
        await first_of(for_ever(), broken())
    await until(lambda: ended == ["cancelled"], "the other is cancelled")
