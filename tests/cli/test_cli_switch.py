"""`switchover` and `failover`: what is asked of whom, what is shown, and how it ends."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from cli_world import World, record, status

from hamgr.cli import follow
from hamgr.cli.follow import is_of_a_writable_leader

Steps = Callable[[str], bool]


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "CHANGE_TIMEOUT_S", 10.0)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """Waits until the command has shown a step, by its code."""
    shown: defaultdict[str, threading.Event] = defaultdict(threading.Event)
    say = follow.Log.say

    def say_and_tell(log: follow.Log, code: str, text: str) -> None:
        say(log, code, text)
        shown[code].set()

    monkeypatch.setattr(follow.Log, "say", say_and_tell)
    return lambda code: shown[code].wait(10.0)


def at_once(_code: str) -> bool:
    return True


def hand_over(
    world: World, to: str, *, by_key: bool = False, after: Steps = at_once
) -> Callable[[Any], tuple[int, str]]:
    """What the agents do to the keys in a switchover, one step after the other.

    etcd may tell of steps that follow each other at once in one go, of which only the last is seen: each comes `after`
    the one before was shown.
    """

    def act(body: Any) -> tuple[int, str]:
        request = {"leader": "p1", "candidate": to}
        if not by_key:
            world.put("failover", request)
        after("requested")
        offer = {"holder": "p1", "term": 6, "timeline": 3, "lsn": 0x5000200, "cause": "switchover"}
        world.put("failover", {**request, "offer": offer})
        after("offered")
        world.put_leader(to, 7)
        world.delete("failover")
        world.put("failovers/7", record(7, to, "p1"))
        world.agents[to].routes["GET", "/primary"] = (200, status("primary"))
        return 200, f"Successfully switched over to {to}"

    return act


def test_switchover_asks_the_leader_and_shows_each_phase_and_the_record(world: World, steps: Steps) -> None:
    world.agents["p1"].routes["POST", "/switchover"] = hand_over(world, "p2", after=steps)
    result = world.run("switchover", "--candidate", "p2", "--force")
    assert result.exit_code == 0, result.output
    method, path, body, authorization = world.agents["p1"].calls[0]
    assert (method, path, body) == ("POST", "/switchover", {"leader": "p1", "candidate": "p2"})
    assert authorization.startswith("Basic ")
    lines = [line for line in result.output.splitlines() if " ms  " in line]
    texts = [line.partition(" ms  ")[2] for line in lines[:4]]
    assert texts == [
        "requested",
        "p1 stopped at 0/5000200 and offers the lead",
        "taken by p2 in term 7",
        "p2 is writable",
    ]
    assert "term 7: p2 from p1, switchover" in result.output


def test_a_leader_that_died_before_it_accepted_a_write_is_not_said_to_be_writable() -> None:
    whole = record(7, "p2", "p1")
    cut_short = {**whole, "stages": [{**stage, "end_s": None} for stage in whole["stages"]]}
    assert is_of_a_writable_leader(whole)
    assert not is_of_a_writable_leader(cut_short)


def test_switchover_that_the_leader_refuses_ends_in_status_1_with_its_reason(world: World) -> None:
    world.agents["p1"].routes["POST", "/switchover"] = (412, "switchover is not possible: p2 lags")
    result = world.run("switchover", "--candidate", "p2", "--force")
    assert result.exit_code == 1
    assert "Error: switchover is not possible: p2 lags (status code 412)" in result.output
    assert world.get("failover") == ""


def test_wrong_password_ends_in_status_1_and_does_not_go_round_by_etcd(world: World) -> None:
    world.agents["p1"].routes["POST", "/switchover"] = (401, "unauthorized")
    result = world.run("switchover", "--force")
    assert result.exit_code == 1
    assert "ctl.authentication" in result.output
    assert world.get("failover") == ""


def test_switchover_is_prechecked_before_anybody_is_asked(world: World) -> None:
    for arguments, why in (
        (["--candidate", "p9"], "no member p9 is up; members: p1, p2, p3"),
        (["--candidate", "p1"], "p1 leads already"),
        (["--leader", "p2"], "p2 does not lead, p1 does"),
    ):
        result = world.run("switchover", "--force", *arguments)
        assert result.exit_code == 1
        assert why in result.output
    assert world.agents["p1"].calls == []


def test_switchover_asks_before_it_acts_and_no_means_no(world: World) -> None:
    result = world.run("switchover", stdin="\np2\nnow\nn\n")
    assert result.exit_code == 1
    assert "demoting leader p1? [y/N]" in result.output
    assert world.agents["p1"].calls == []


def test_switchover_by_prompts_is_carried_out(world: World) -> None:
    world.agents["p1"].routes["POST", "/switchover"] = hand_over(world, "p2")
    assert world.run("switchover", stdin="p1\np2\n\ny\n").exit_code == 0


def test_switchover_goes_by_etcd_where_the_leader_does_not_answer(world: World) -> None:
    world.agents["p1"].stop()
    act = hand_over(world, "p2", by_key=True)
    written: list[str] = []

    def agents() -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not written:
            if text := world.get("failover"):
                written.append(text)
                act(None)

    thread = threading.Thread(target=agents)
    thread.start()
    result = world.run("switchover", "--candidate", "p2", "--force")
    thread.join()
    assert result.exit_code == 0, result.output
    assert json.loads(written[0])["leader"] == "p1"
    assert "no member could be asked: request written to etcd" in result.output


@pytest.mark.parametrize("scheduled", [(), ("--scheduled", "2099-01-01T03:00:00+00:00")], ids=["now", "scheduled"])
def test_request_by_etcd_does_not_replace_one_of_a_cluster_that_is_led(
    world: World, scheduled: tuple[str, ...]
) -> None:
    """As by REST."""
    world.agents["p1"].stop()
    world.put("failover", {"leader": "p1", "scheduled_at": "2098-01-01T03:00:00+00:00"})
    before = world.get("failover")
    result = world.run("switchover", "--candidate", "p2", "--force", *scheduled)
    assert result.exit_code == 1
    assert "another switchover or failover is under way" in result.output
    assert "`hamgr flush switchover`" in result.output
    assert world.get("failover") == before


def test_failover_by_etcd_replaces_a_request_where_nobody_leads_and_keeps_the_offer(world: World) -> None:
    """As by REST."""
    for agent in world.agents.values():
        agent.stop()
    world.delete("leader")
    offer = {"holder": "p1", "term": 6, "timeline": 3, "lsn": 0x5000200, "cause": "switchover"}
    world.put("failover", {"leader": "p1", "candidate": "p3", "offer": offer})
    before = world.get("failover")
    written: list[str] = []

    def agents() -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not written:
            if (text := world.get("failover")) != before:
                written.append(text)
                world.put_leader("p2", 7)
                world.put("failovers/7", record(7, "p2", "p1"))

    thread = threading.Thread(target=agents)
    thread.start()
    result = world.run("failover", "--candidate", "p2", "--force")
    thread.join()
    assert result.exit_code == 0, result.output
    placed = json.loads(written[0])
    assert placed["candidate"] == "p2"
    assert placed["offer"].items() >= offer.items()


def test_request_by_etcd_that_is_withdrawn_ends_in_status_1_with_the_leaders_note(world: World) -> None:
    world.agents["p1"].stop()
    member = {"api_url": world.dead_url(), "state": "running", "role": "primary", "note": "p2 lags too far"}
    world.put("members/p1", member)

    def agents() -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if world.get("failover"):
                world.delete("failover")
                return

    thread = threading.Thread(target=agents)
    thread.start()
    result = world.run("switchover", "--candidate", "p2", "--force")
    thread.join()
    assert result.exit_code == 1
    assert "withdrawn, the leader is who it was: p2 lags too far" in result.output


def test_change_that_is_never_seen_ends_in_status_3(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "CHANGE_TIMEOUT_S", 0.5)
    world.agents["p1"].routes["POST", "/switchover"] = (200, "done")
    result = world.run("switchover", "--candidate", "p2", "--force")
    assert result.exit_code == 3
    assert "no change of leader was seen" in result.output


def test_scheduled_switchover_is_handed_to_the_leader(world: World) -> None:
    world.agents["p1"].routes["POST", "/switchover"] = (202, "Switchover scheduled")
    result = world.run("switchover", "--scheduled", "2099-01-01T03:00:00+00:00", "--force")
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, "Switchover scheduled")
    assert world.agents["p1"].calls[0][2] == {"leader": "p1", "scheduled_at": "2099-01-01T03:00:00+00:00"}


def test_time_in_the_past_is_refused(world: World) -> None:
    result = world.run("switchover", "--scheduled", "2001-01-01T03:00:00+00:00", "--force")
    assert result.exit_code == 1
    assert "is in the past" in result.output


def test_time_that_is_none_in_utc_is_refused(world: World) -> None:
    result = world.run("switchover", "--scheduled", "9999-12-31T23:59:59-23:59", "--force")
    assert result.exit_code == 1
    assert "is no time in UTC" in result.output
    assert world.agents["p1"].calls == []


def test_failover_asks_the_candidate_first(world: World) -> None:
    world.delete("leader")
    act = hand_over(world, "p2")
    world.agents["p2"].routes["POST", "/failover"] = act
    result = world.run("failover", "--candidate", "p2", "--force", "--allow-data-loss")
    assert result.exit_code == 0, result.output
    assert world.agents["p2"].calls[0][2] == {"candidate": "p2", "allow_data_loss": True}
    assert world.agents["p1"].calls == []


def test_failover_asks_another_member_where_the_candidate_does_not_answer(world: World) -> None:
    world.delete("leader")
    world.agents["p1"].routes["POST", "/failover"] = (412, "p3 is silent")
    result = world.run("failover", "--candidate", "p3", "--force")
    assert result.exit_code == 1
    assert "p3 is silent" in result.output


def test_failover_needs_a_candidate(world: World) -> None:
    result = world.run("failover", "--force")
    assert result.exit_code == 1
    assert "--candidate" in result.output


def test_another_winner_than_the_candidate_ends_in_status_1(world: World) -> None:
    world.agents["p3"].start()
    world.agents["p1"].routes["POST", "/switchover"] = hand_over(world, "p2")
    result = world.run("switchover", "--candidate", "p3", "--force")
    assert result.exit_code == 1
    assert "p2 took the lead, not p3" in result.output
