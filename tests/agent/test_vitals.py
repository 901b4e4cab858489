"""Vital signs: each judged by its own deadline, none held up by another, and a starved agent calls nobody ill."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from hamgr.agent.clock import now
from hamgr.agent.vitals import SLICES, VitalSensor, ends_within
from hamgr.core import actions
from hamgr.core.actions import Upstream
from hamgr.core.cluster import ClusterView
from hamgr.core.facts import Fact, VitalChecked
from hamgr.core.policy import Policy
from hamgr.core.server import DataDir, Phase, ServerIdentity, ServerView, Vital
from hamgr.core.state import State, UnderWay
from hamgr.core.units import Instant
from hamgr.postgres.health import Door
from hamgr.postgres.process import start_ticks
from hamgr.postgres.server import LocalServer
from hamgr.postgres.threads import in_own_thread
from tests.agent.workbench import leading, until

QUICK = Policy(
    ttl_s=5.0,
    loop_wait_s=0.02,
    probe_connection_timeout_s=0.2,
    probe_commit_timeout_s=0.2,
    probe_disk_timeout_s=0.2,
    primary_start_timeout_s=300.0,
)


TURNS_PAST_A_DEADLINE = 3 * int(QUICK.probe_connection_timeout_s / QUICK.loop_wait_s)


def this_process() -> ServerIdentity:
    """A process that lives as long as the test."""
    return ServerIdentity(os.getpid(), start_ticks(os.getpid()) or 0)


def primary(**rest: Any) -> ServerView:
    given = {"identity": this_process(), "answered": True, "in_recovery": False, "data_dir": DataDir.VALID, **rest}
    return ServerView(Phase.RUNNING, **given)


class Connection:
    closed = False

    async def close(self) -> None:
        self.closed = True


@dataclass
class Server:
    """A server that is well until told otherwise. What hangs does so until `thaw` is set."""

    door: Door = field(default_factory=Door)
    commits: str | None = ""
    disks: dict[Vital, str | None] = field(default_factory=lambda: {Vital.DATA_DISK: "", Vital.WAL_DISK: ""})
    hung: set[Vital] = field(default_factory=set)
    thaw: threading.Event = field(default_factory=threading.Event)
    begun: list[Vital] = field(default_factory=list)
    given: list[Connection] = field(default_factory=list)

    async def _meet(self, vital: Vital) -> None:
        self.begun.append(vital)
        while vital in self.hung and not self.thaw.is_set():  # noqa: ASYNC110 -- threads wait for it, too
            await asyncio.sleep(0.001)

    async def open_door(self, _patience_s: float) -> Door:
        await self._meet(Vital.CONNECTION)
        if self.door != Door():
            return self.door
        self.given.append(Connection())
        return Door(cast(Any, self.given[-1]))

    async def commit(self, door: Door) -> str | None:
        await self._meet(Vital.COMMIT)
        if door.connection is not None:
            await door.connection.close()
        return self.commits

    def write_data_disk(self) -> str | None:
        return self._write(Vital.DATA_DISK)

    def write_wal_disk(self) -> str | None:
        return self._write(Vital.WAL_DISK)

    def _write(self, vital: Vital) -> str | None:
        self.begun.append(vital)
        if vital in self.hung:
            self.thaw.wait()
        return self.disks[vital]


@dataclass
class Ward:
    """A sensor over a server and a state that the test changes."""

    state: State
    server: Server = field(default_factory=Server)
    facts: list[Fact] = field(default_factory=list)
    looks: int = 0
    """How often the sensor asked what it has to do."""

    def told(self, vital: Vital) -> list[VitalChecked]:
        return [fact for fact in self.facts if isinstance(fact, VitalChecked) and fact.vital is vital]

    def last(self, vital: Vital) -> VitalChecked | None:
        told = self.told(vital)
        return told[-1] if told else None

    def is_well(self, vital: Vital) -> bool:
        last = self.last(vital)
        return last is not None and not last.problem

    def is_hung(self, vital: Vital) -> bool:
        last = self.last(vital)
        return last is not None and last.is_hung

    def see(self, server: ServerView) -> None:
        self.state = self.state._replace(server=server)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        def state() -> State:
            self.looks += 1
            return self.state

        sensor = VitalSensor(cast(LocalServer, self.server), self.facts.append, state)
        task = asyncio.ensure_future(sensor.run())
        try:
            yield
            if task.done():
                task.result()
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def turns(self, more: int) -> None:
        """So many more looks at the disk have begun, each after a pause of loop_wait."""
        count = self.server.begun.count(Vital.DATA_DISK) + more
        await until(lambda: self.server.begun.count(Vital.DATA_DISK) >= count, "some more turns")


@pytest.fixture
def ward() -> Iterator[Ward]:
    made = Ward(leading(server=primary())._replace(policy=QUICK))
    yield made
    made.server.thaw.set()


# -- who is checked --------------------------------------------------------------------------------------------


async def test_a_primary_that_is_well_is_told_so_in_everything_again_and_again(ward: Ward) -> None:
    began_at = now()
    async with ward.watched():
        for vital in Vital:
            await until(lambda vital=vital: len(ward.told(vital)) >= 2, f"{vital} is told twice")
    assert all(not fact.problem for vital in Vital for fact in ward.told(vital))
    assert all(fact.began_at >= began_at for vital in Vital for fact in ward.told(vital))
    assert all(connection.closed for connection in ward.server.given[:-1])


async def test_only_the_disks_of_a_replica_are_looked_at(ward: Ward) -> None:
    ward.see(primary(in_recovery=True))
    async with ward.watched():
        await ward.turns(2)
    assert set(ward.server.begun) == {Vital.DATA_DISK, Vital.WAL_DISK}


async def test_a_primary_that_stopped_answering_is_looked_at_all_the_more(ward: Ward) -> None:
    ward.see(primary(answered=False, in_recovery=None))
    async with ward.watched():
        await until(lambda: ward.is_well(Vital.COMMIT), "its commits are checked")


@pytest.mark.parametrize("data_dir", [DataDir.EMPTY, DataDir.UNFINISHED, DataDir.UNUSABLE, DataDir.UNKNOWN])
async def test_nothing_is_written_where_no_cluster_stands(ward: Ward, data_dir: DataDir) -> None:
    ward.see(ServerView(Phase.STOPPED, data_dir=data_dir))
    async with ward.watched():
        await until(lambda: ward.looks > 30, "it asked again and again what there is to do")
    assert ward.server.begun == []


@pytest.mark.parametrize("cluster", [None, ClusterView(1, Instant(0.0), "7000000000000000001")])
async def test_nothing_is_written_into_data_that_are_not_known_to_be_ours(
    ward: Ward, cluster: ClusterView | None
) -> None:
    foreign = ServerView(Phase.STOPPED, data_dir=DataDir.VALID, system_identifier="7000000000000000002")
    ward.state = ward.state._replace(server=foreign, cluster=cluster)
    async with ward.watched():
        await until(lambda: ward.looks > 30, "it asked again and again what there is to do")
    assert ward.server.begun == []


async def test_nothing_is_written_while_the_directory_is_made_anew(ward: Ward) -> None:
    cloning = UnderWay(actions.Clone(Upstream("b")), now())
    ward.state = ward.state._replace(server=ServerView(Phase.STOPPED, data_dir=DataDir.VALID), under_way=(cloning,))
    async with ward.watched():
        await until(lambda: ward.looks > 30, "it asked again and again what there is to do")
    assert ward.server.begun == []


async def test_a_server_that_we_are_ending_is_not_called_ill(ward: Ward) -> None:
    ward.server.hung = {Vital.CONNECTION}
    async with ward.watched():
        await until(lambda: Vital.CONNECTION in ward.server.begun, "the check has begun")
        ward.state = ward.state._replace(under_way=(UnderWay(actions.StopServer(1.0), now()),))
        await ward.turns(TURNS_PAST_A_DEADLINE)
    assert ward.told(Vital.CONNECTION) == []


async def test_what_was_found_of_a_server_is_not_said_of_its_successor(ward: Ward) -> None:
    ward.server.hung = {Vital.CONNECTION}
    async with ward.watched():
        await until(lambda: Vital.CONNECTION in ward.server.begun, "the check has begun")
        ward.see(primary(identity=ServerIdentity(os.getpid(), 1)))
        await ward.turns(TURNS_PAST_A_DEADLINE)
    assert ward.told(Vital.CONNECTION) == []


# -- what is told ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vital", list(Vital))
async def test_what_hangs_is_told_at_each_turn_has_no_second_beside_it_and_delays_no_other(
    ward: Ward, vital: Vital
) -> None:
    ward.server.hung = {vital}
    # Of a connection that hangs there are no commits to be checked.
    others = [each for each in Vital if each is not vital and (vital, each) != (Vital.CONNECTION, Vital.COMMIT)]
    async with ward.watched():
        await until(lambda: len(ward.told(vital)) >= 3, "it is told again")
        assert ward.server.begun.count(vital) == 1
        assert all(fact.is_hung and fact.problem for fact in ward.told(vital))
        assert all(ward.is_well(other) for other in others)
        ward.server.hung.clear()
        ward.server.thaw.set()
        await until(lambda: ward.is_well(vital), "it is well again")


async def test_a_problem_is_told_in_its_words_and_not_as_hung(ward: Ward) -> None:
    ward.server.disks[Vital.DATA_DISK] = "/data: No space left on device"
    ward.server.commits = "could not write"
    async with ward.watched():
        await until(lambda: ward.last(Vital.COMMIT) and ward.last(Vital.DATA_DISK), "both are told")
    told = ward.last(Vital.DATA_DISK), ward.last(Vital.COMMIT)
    assert [(fact.problem, fact.is_hung) for fact in told if fact] == [
        ("/data: No space left on device", False),
        ("could not write", False),
    ]


async def test_of_what_cannot_be_told_nothing_is_told(ward: Ward) -> None:
    ward.server.disks[Vital.WAL_DISK] = None
    ward.server.commits = None
    async with ward.watched():
        await until(lambda: ward.server.begun.count(Vital.COMMIT) >= 2, "commits are checked twice")
    assert ward.told(Vital.WAL_DISK) == ward.told(Vital.COMMIT) == []


async def test_where_all_connections_are_taken_the_commit_is_checked_all_the_same(ward: Ward) -> None:
    ward.server.open_door = lambda _patience_s: answered(Door())  # type: ignore[method-assign]
    async with ward.watched():
        await until(lambda: ward.is_well(Vital.CONNECTION) and ward.is_well(Vital.COMMIT), "both are well")


async def answered(door: Door) -> Door:
    return door


async def test_a_server_that_recovers_is_well_and_commits_nothing_until_it_has_been_at_it_for_too_long(
    ward: Ward,
) -> None:
    ward.server.door = Door(is_recovering=True)
    async with ward.watched():
        await until(lambda: ward.is_well(Vital.CONNECTION), "it is well")
        ward.state = ward.state._replace(policy=replace(QUICK, primary_start_timeout_s=0.05))
        await until(lambda: not ward.is_well(Vital.CONNECTION), "it takes too long")
        assert not ward.is_hung(Vital.CONNECTION)
        ward.server.door = Door()
        await until(lambda: ward.is_well(Vital.CONNECTION), "it has recovered")
    assert Vital.COMMIT in ward.server.begun


async def test_a_refusal_that_a_healthy_server_does_not_make_is_a_problem(ward: Ward) -> None:
    ward.server.door = Door(problem="could not fork")
    async with ward.watched():
        await until(lambda: ward.last(Vital.CONNECTION), "it is told")
    fact = ward.last(Vital.CONNECTION)
    assert fact is not None
    assert (fact.problem, fact.is_hung) == ("could not fork", False)
    assert Vital.COMMIT not in ward.server.begun


# -- judging ---------------------------------------------------------------------------------------------------


async def test_a_check_that_ended_in_time_did_so() -> None:
    assert await ends_within(asyncio.ensure_future(asyncio.sleep(0)), 1.0)


async def test_a_check_that_does_not_end_is_given_up() -> None:
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    assert not await ends_within(never, 0.05)


@pytest.mark.parametrize("starved_at", [0.0, 0.5, 0.9])
async def test_time_in_which_the_agent_did_not_run_is_not_held_against_the_server(starved_at: float) -> None:
    """The answer comes after half the deadline of running time; the agent was held up for longer than all of it."""
    timeout_s = 0.4
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[None] = loop.create_future()

    async def server() -> None:
        for _ in range(SLICES // 2):
            await asyncio.sleep(timeout_s / SLICES)
        answer.set_result(None)

    loop.call_later(timeout_s * starved_at, time.sleep, timeout_s * 1.2)
    asked = asyncio.ensure_future(server())
    assert await ends_within(answer, timeout_s)
    await asked


async def test_what_ended_while_the_deadline_passed_is_seen_before_it_is_judged() -> None:
    check = in_own_thread(lambda: time.sleep(0.1))
    loop = asyncio.get_running_loop()
    loop.call_soon(time.sleep, 0.3)
    assert await ends_within(check, 0.1)


async def test_a_thread_that_hangs_keeps_no_other_waiting() -> None:
    release = threading.Event()
    hung = [in_own_thread(release.wait) for _ in range(20)]
    try:
        assert await asyncio.wait_for(in_own_thread(lambda: "well"), 10) == "well"
        assert not any(future.done() for future in hung)
        assert all(thread.daemon for thread in threading.enumerate() if thread.name == "hamgr-call")
    finally:
        release.set()
        await asyncio.wait(hung)


def test_a_loop_that_has_ended_wants_no_answer() -> None:
    release = threading.Event()

    async def begin() -> None:
        in_own_thread(release.wait)

    asyncio.run(begin())
    thread = next(thread for thread in threading.enumerate() if thread.name == "hamgr-call")
    release.set()
    thread.join(10)
    assert not thread.is_alive()


async def test_where_no_thread_is_to_be_had_nothing_is_said_and_the_agent_lives(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    async with ward.watched():
        looks = ward.looks
        await until(lambda: ward.looks > looks + 20, "it goes on looking")
    assert not [fact for fact in ward.facts if isinstance(fact, VitalChecked) and fact.vital.is_of_disk]
