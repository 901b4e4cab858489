"""`hamgr explain --at TIME` tells on each member what it saw and did. A steady cluster records nothing."""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from hamgr.core.pipeline import STAGES
from hamgr.core.recording import SUFFIXES
from hamgr.drill.cluster import Cluster
from hamgr.drill.member import Member
from tests.cluster.bench import Cli, Said, log_of, term, wait_until

pytestmark = pytest.mark.cluster


def told(member: Member, at: str, *options: str) -> Said:
    said = Cli(member.config_path)("explain", "--at", at, "--for", "60s", *options)
    assert said.status == 0, said.err
    return said


def story(member: Member, at: str) -> dict[str, Any]:
    return dict(told(member, at, "-f", "json").value)


def names(told_story: dict[str, Any], kind: str) -> list[str]:
    return [event["name"] for event in told_story["events"] if event["kind"] == kind]


def change_to(told_story: dict[str, Any], leader: Member) -> dict[str, Any]:
    """The last change of leader that is told, which must be the one to this member."""
    change = told_story["changes"][-1]
    assert change["leader"] == leader.name
    assert [stage["name"] for stage in change["stages"]] == list(STAGES)
    return dict(change)


def seen_stages(change: dict[str, Any]) -> set[str]:
    seen = [stage for stage in change["stages"] if stage["is_seen"]]
    assert all(stage["took_s"] >= 0 for stage in seen)
    return {stage["name"] for stage in seen}


def wait_until_recorded(leader: Member, at: str) -> dict[str, Any]:
    """The new leader's story, once it holds the record that this member wrote."""

    def recorded() -> dict[str, Any] | None:
        found = story(leader, at)
        changes = found["changes"]
        return found if changes and changes[-1]["leader"] == leader.name and changes[-1]["record"] else None

    found = wait_until("the new leader has told of its promotion", recorded)
    assert found is not None
    return found


def utc() -> str:
    return datetime.now(UTC).isoformat()


def test_switchover_is_told_by_both_of_its_members(cluster: Cluster, hamgr: Cli) -> None:
    former, before = cluster.need_leader(), term(cluster)
    at = utc()
    assert hamgr("switchover", "--leader", former.name, "--force").status == 0
    cluster.wait_until_settled(45.0)
    leader = cluster.need_leader()
    new = change_to(wait_until_recorded(leader, at), leader)
    assert (new["former"], new["term"], new["record"]["cause"]) == (former.name, before + 1, "switchover")
    assert {"vote", "elect", "promote", "writable"} <= seen_stages(new)
    assert "fence" not in seen_stages(new)
    old = story(former, at)
    assert seen_stages(change_to(old, leader)) == {"fence"}
    assert "hand_over" in names(old, "decided")
    assert {"HandOverStop", "PutOffer", "StartStandby"} <= set(names(old, "ended"))


def test_killed_server_is_told_with_rule_and_durations(cluster: Cluster) -> None:
    former = cluster.need_leader()
    at = utc()
    os.kill(former.postmaster_pid(), signal.SIGKILL)
    wait_until("the crash is in the recording", lambda: "ExamineCrash" in names(story(former, at), "ended"))
    cluster.wait_until_settled(45.0)
    old, text = story(former, at), told(former, at).out
    assert "the server ended without being asked" in text
    rules = [event for event in old["events"] if event["values"].get("reason") == "examining_crash"]
    assert f"rule {rules[0]['name']}: the server ended without being asked: reading where its WAL ends" in text
    assert "crashed" in names(old, "decided")
    examined = next(event for event in old["events"] if event["kind"] == "ended" and event["name"] == "ExamineCrash")
    assert examined["values"]["took_s"] > 0
    leader = cluster.need_leader()
    if leader is former:
        assert "StartPrimary" in names(old, "ended")
        return
    assert {"detect", "fence"} <= seen_stages(change_to(old, leader))
    assert "vote      not seen here" in text
    new = wait_until_recorded(leader, at)
    assert {"elect", "promote", "writable"} <= seen_stages(change_to(new, leader))
    assert "server_crashed" in told(leader, at).out
    assert "offer" in names(new, "seen")


def test_fresh_agent_goes_on_with_the_recording(cluster: Cluster) -> None:
    leader = cluster.need_leader()
    replica = next(member for member in cluster.members if member is not leader)
    at = utc()
    ended = replica.agent_pid()
    os.kill(ended, signal.SIGKILL)

    def since_begun() -> list[dict[str, Any]]:
        """Events of the agent that came after, once it has read etcd."""
        events = story(replica, at)["events"]
        begun = [n for n, event in enumerate(events) if event["kind"] == "began" and event["values"]["pid"] != ended]
        own = events[begun[-1] :] if begun else []
        return own if "found_leader" in [event["name"] for event in own] else []

    events = wait_until("another agent tells what it found", since_begun)
    found = [event["values"]["leader"] for event in events if event["name"] == "found_leader"]
    assert found == [leader.name]
    assert story(replica, at)["standing"] is not None


def test_steady_cluster_writes_no_event(cluster: Cluster) -> None:
    """Ten turns of the loop of every member, without a fault."""
    files = [member.data_dir.with_name(member.data_dir.name + SUFFIXES[1]) for member in cluster.members]
    last = [file.read_bytes() for file in files]
    quiet_since = time.monotonic()

    def has_been_quiet() -> bool:
        nonlocal last, quiet_since
        present = [file.read_bytes() for file in files]
        if present != last:
            last, quiet_since = present, time.monotonic()
        return time.monotonic() - quiet_since > 10.0

    wait_until("no member records anything for ten seconds", has_been_quiet, 60.0)


def test_no_password_is_in_log_or_recording(cluster: Cluster) -> None:
    for member in cluster.members:
        recording = member.data_dir.with_name(member.data_dir.name + SUFFIXES[1]).read_text()
        assert recording
        assert member.password not in recording
        assert member.password not in log_of(member)
