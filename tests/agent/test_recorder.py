"""The flight recorder's files are bounded, survive crashes, hold no secret, and never make anybody wait."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hamgr.agent import recorder as module
from hamgr.agent.chronicle import Chronicle
from hamgr.agent.clock import now
from hamgr.agent.recorder import Recorder, Segments
from hamgr.cli.recording import paths_beside, read_recording
from hamgr.core.actions import AskPeers, Checkpoint, Fence, Promote, PutStatus, StartStandby, Upstream
from hamgr.core.cluster import Status
from hamgr.core.decide import decide
from hamgr.core.facts import ClusterSeen, Probed, Renewed, ServerExited, StoreFailed
from hamgr.core.observe import observe
from hamgr.core.reasons import Code, because
from hamgr.core.recording import Event, Kind, event_as_json, words
from hamgr.core.result import Outcome, Result
from hamgr.core.state import State
from hamgr.core.units import Instant, Term, WallTime, after
from tests.agent.workbench import LEASE, SERVER, TERM, leading, replica, view

DONE = Outcome(Result.DONE)
PATIENCE_S = 20.0
SIZE = 64 << 10


def event(number: int, text: str = "") -> Event:
    return Event(Instant(float(number)), WallTime(1e9 + number), Kind.STARTED, "Fence", {"n": number, "text": text})


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def numbers(data_dir: Path) -> list[int]:
    return [each.values["n"] for each in read_recording(paths_beside(data_dir)).events if each.kind is Kind.STARTED]


def test_recording_keeps_the_latest_events_within_its_size(data_dir: Path) -> None:
    recorder = Recorder(data_dir, SIZE)
    recorder.start()
    for number in range(1500):
        recorder.post(event(number, "x" * 100))
    recorder.close(PATIENCE_S)
    sizes = [path.stat().st_size for path in paths_beside(data_dir)]
    assert all(0 < size <= SIZE // 2 for size in sizes)
    kept = numbers(data_dir)
    assert kept == list(range(kept[0], 1500))
    assert len(kept) >= 100
    assert {stat.S_IMODE(path.stat().st_mode) & 0o007 for path in paths_beside(data_dir)} == {0}


def test_line_torn_by_a_crash_costs_no_other_event(data_dir: Path) -> None:
    first = Recorder(data_dir, SIZE)
    first.start()
    first.post(event(1))
    first.close(PATIENCE_S)
    with paths_beside(data_dir)[1].open("ab") as stream:
        stream.write(json.dumps(event_as_json(event(2))).encode()[:40])
    second = Recorder(data_dir, SIZE)
    second.start()
    second.post(event(3))
    second.close(PATIENCE_S)
    found = read_recording(paths_beside(data_dir))
    assert [each.values["n"] for each in found.events] == [1, 3]
    assert found.skipped == 1


def test_disk_that_hangs_holds_nobody_and_what_it_cost_is_told(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a room for four events, one of which the hanging thread has taken out."""
    monkeypatch.setattr(module, "QUEUE_EVENTS", 4)
    hangs, may_go_on = threading.Event(), threading.Event()

    def write(descriptor: int, content: bytes) -> int:
        hangs.set()
        assert may_go_on.wait(PATIENCE_S)
        return os.write(descriptor, content)

    recorder = Recorder(data_dir, SIZE)
    older, present = paths_beside(data_dir)
    monkeypatch.setattr(recorder, "_segments", Segments(older, present, SIZE // 2, write))
    recorder.start()
    recorder.post(event(0))
    assert hangs.wait(PATIENCE_S)
    for number in range(1, 101):
        recorder.post(event(number))
    recorder.close(0.0)
    may_go_on.set()
    deadline = time.monotonic() + PATIENCE_S
    while recorder._backlog._queue.qsize():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    recorder.post(event(101))
    recorder.close(PATIENCE_S)
    found = read_recording(paths_beside(data_dir)).events
    gaps = [each.values["count"] for each in found if each.kind is Kind.DROPPED]
    assert gaps == [96]
    assert [each.values["n"] for each in found if each.kind is Kind.STARTED] == [0, 1, 2, 3, 4, 101]


def test_full_disk_is_told_once_there_is_room_again(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = [0, 0, 1000]

    def write(descriptor: int, content: bytes) -> int:
        if not room or room.pop(0) == 0:
            raise OSError(errno.ENOSPC, "no space left")
        return os.write(descriptor, content)

    recorder = Recorder(data_dir, SIZE)
    older, present = paths_beside(data_dir)
    monkeypatch.setattr(recorder, "_segments", Segments(older, present, SIZE // 2, write))
    recorder.start()
    for number in range(3):
        recorder.post(event(number))
    recorder.close(PATIENCE_S)
    found = read_recording(paths_beside(data_dir)).events
    assert [each.kind for each in found] == [Kind.DROPPED, Kind.STARTED]
    assert found[0].values["count"] == 2


def test_recorder_that_is_off_makes_no_file(data_dir: Path) -> None:
    recorder = Recorder(data_dir, 0)
    recorder.start()
    recorder.post(event(1))
    recorder.close(PATIENCE_S)
    assert list(data_dir.parent.iterdir()) == []


def test_passwords_in_texts_are_blotted_out(data_dir: Path) -> None:
    recorder = Recorder(data_dir, SIZE)
    recorder.start()
    told = Chronicle(recorder.post)
    texts = (
        "connection to host=a user=rep password=Geheim1 failed",
        "password='Geheim1 with blanks' refused",
        "postgres://rep:Geheim1@a:5432/postgres does not answer",
        "http://root:Geheim1@etcd:2379 says no",
    )
    for text in texts:
        told.ended(Fence(), Outcome(Result.FAILED, "x", text), now(), now())
    recorder.close(PATIENCE_S)
    written = paths_beside(data_dir)[1].read_text()
    assert written.count("***") == len(texts)
    assert "Geheim1" not in written


class Told(list[Event]):
    """What a chronicle told."""

    def __init__(self) -> None:
        super().__init__()
        self.chronicle = Chronicle(self.append)

    def sentences(self) -> list[str]:
        return [words(each) for each in self]

    def fold(self, state: State, fact: object) -> State:
        changed = observe(state, fact)  # type: ignore[arg-type]
        self.chronicle.folded(state, fact, changed)  # type: ignore[arg-type]
        return changed


def test_steady_leader_has_nothing_to_tell() -> None:
    told = Told()
    state = leading(server=replica(in_recovery=False), verified_term=TERM)
    for _ in range(3):
        told.chronicle.decided(state, decide(state, now()), now())
    first = len(told)
    assert first == 1
    for number in range(1, 50):
        seen = view(revision=10 + number, status=Status())
        state = told.fold(state, ClusterSeen(seen))
        state = told.fold(state, Renewed(LEASE, after(now(), 100.0 + number), 5.0, seen._replace(revision=20 + number)))
        state = told.fold(state, Probed(replace(state.server, probed_at=now())))
        told.chronicle.decided(state, replace(decide(state, now()), reason=because(Code.LEADING, term=TERM)), now())
        told.chronicle.started(PutStatus(Status()), now())
        told.chronicle.ended(PutStatus(Status()), DONE, now(), now())
    assert len(told) <= first + 1


def test_exit_of_the_server_is_dated_by_its_pidfd() -> None:
    told = Told()
    state = leading(server=replica(in_recovery=False, identity=SERVER), verified_term=TERM)
    at = Instant(now() - 0.02)
    told.fold(state, ServerExited(SERVER, at))
    exits = [each for each in told if each.name == "server_exited"]
    assert [each.at for each in exits] == [at]
    assert "(pid 4321)" in words(exits[0])


def test_etcd_that_fails_for_hours_is_told_twice() -> None:
    told = Told()
    state = leading()
    for number in range(100):
        state = told.fold(state, StoreFailed(now(), f"no answer in {number} ms"))
        ask = AskPeers(TERM, (), 5.0)
        told.chronicle.started(ask, now())
        told.chronicle.ended(ask, Outcome(Result.FAILED, "peers", f"silent for {number} ms"), now(), now())
    state = told.fold(state, ClusterSeen(view(revision=50)))
    told.chronicle.ended(AskPeers(TERM, (), 5.0), DONE, now(), now())
    names = [(each.kind, each.name) for each in told]
    assert names.count((Kind.SEEN, "store_failed")) == 1
    assert names.count((Kind.SEEN, "store_answers")) == 1
    ends = [each.values["repeats"] for each in told if each.name == "AskPeers"]
    assert ends == [0, 100]


def test_action_is_told_with_what_it_is_about_and_its_duration() -> None:
    told = Told()
    told.chronicle.started(Promote(Term(4)), Instant(10.0))
    told.chronicle.ended(Promote(Term(4)), DONE, Instant(10.0), Instant(10.034))
    told.chronicle.started(StartStandby(Upstream("b", "10.0.0.2")), Instant(11.0))
    told.chronicle.started(Checkpoint(3), Instant(12.0))
    assert told.sentences() == [
        "Promote (term 4) begins",
        "Promote (term 4) done after 34 ms",
        "StartStandby (upstream b) begins",
        "Checkpoint begins",
    ]


def test_late_renewal_is_told_with_what_was_left() -> None:
    told = Told()
    state = leading()
    state = state._replace(lease=replace(state.lease, ttl_s=5.0, deadline=after(now(), 1.0)))
    told.fold(state, Renewed(LEASE, after(now(), 4.5), 5.0, view(revision=12)))
    late = [each for each in told if each.name == "renewed_late"]
    assert len(late) == 1
    assert 3.0 <= late[0].values["gap_s"] <= 4.0
    assert late[0].values["left_s"] <= 1.0
