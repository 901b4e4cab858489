"""`restart`, `reload`, `reinit`, `flush`, `pause`, `resume`, `remove`."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

from cli_world import World, status


def test_restart_goes_member_by_member_with_the_leader_last(world: World) -> None:
    order: list[str] = []
    for name in ("p1", "p2"):

        def restart(body: Any, name: str = name) -> tuple[int, str]:
            order.append(name)
            return 200, "PostgreSQL restarted"

        world.agents[name].routes["POST", "/restart"] = restart
    result = world.run("restart", world.scope, "p1", "p2", "--force", "--timeout", "30", "--pending")
    assert result.exit_code == 0, result.output
    assert order == ["p2", "p1"]
    assert world.agents["p2"].calls[0][2] == {"timeout": 30.0, "restart_pending": True}


def test_restart_that_one_member_refuses_is_tried_on_all_and_ends_in_status_1(world: World) -> None:
    world.agents["p2"].routes["POST", "/restart"] = (503, "restart conditions are not satisfied")
    world.agents["p1"].routes["POST", "/restart"] = (200, "restarted")
    result = world.run("restart", "p1", "p2", "--force")
    assert result.exit_code == 1
    assert "Failed: restart of member p2, status code 503: restart conditions are not satisfied" in result.output
    assert "Success: restart of member p1: restarted" in result.output


def test_restart_ends_at_the_first_server_that_does_not_come_up_again(world: World) -> None:
    world.agents["p2"].routes["POST", "/restart"] = (503, "restart failed: invalid value for parameter")
    world.agents["p2"].routes["GET", "/patroni"] = (503, {"state": "start failed"})
    result = world.run("restart", "p1", "p2", "--force")
    assert result.exit_code == 1
    assert "Stopped: p2 does not run; not restarted: p1" in result.output
    assert not [call for call in world.agents["p1"].calls if call[0] == "POST"]


def test_restart_of_a_member_that_does_not_answer_ends_in_status_1(world: World) -> None:
    result = world.run("restart", "p3", "--force")
    assert result.exit_code == 1
    assert "Failed: restart of member p3: REST of p3" in result.output


def test_unknown_member_is_refused_with_the_names_of_those_that_are_up(world: World) -> None:
    result = world.run("restart", "p7", "--force")
    assert result.exit_code == 1
    assert "no member p7 is up; members: p1, p2, p3" in result.output


def test_role_chooses_members(world: World) -> None:
    world.agents["p1"].routes["POST", "/reload"] = (202, "reload scheduled")
    result = world.run("reload", "-r", "leader", "--force")
    assert result.exit_code == 0
    assert world.agents["p1"].calls[0][1] == "/reload"
    assert world.agents["p2"].calls == []


def test_restart_asks_before_it_acts(world: World) -> None:
    result = world.run("restart", "p2", stdin="n\n")
    assert result.exit_code == 1
    assert "Are you sure you want to restart members p2? [y/N]" in result.output
    assert world.agents["p2"].calls == []


def test_reinit_waits_until_the_replica_is_another_process_that_streams(world: World) -> None:
    agent = world.agents["p2"]
    rebuilt = {**status("replica"), "postmaster_start_time": "2026-11-23 21:00:00+00:00"}
    told: list[str] = []

    def patroni(body: Any) -> tuple[int, Any]:
        told.append("asked")
        copying = {**status("replica", state="creating replica"), "replication_state": ""}
        return 200, copying if len(told) == 1 else rebuilt

    def reinitialize(body: Any) -> tuple[int, str]:
        agent.routes["GET", "/patroni"] = patroni
        return 200, "reinitialize started"

    agent.routes["POST", "/reinitialize"] = reinitialize
    result = world.run("reinit", world.scope, "p2", "--force", "--from-leader", "--wait")
    assert result.exit_code == 0, result.output
    assert agent.calls[0][2] == {"force": True, "from_leader": True}
    assert [line.strip() for line in result.output.splitlines()] == [
        "Success: reinitialize of member p2: reinitialize started",
        "p2  creating replica",
        "p2  running",
        "Reinitialize is completed on: p2",
    ]


def test_leader_is_not_reinitialized(world: World) -> None:
    result = world.run("reinit", "p1", "--force")
    assert result.exit_code == 1
    assert "p1 leads" in result.output


def test_reinit_without_a_member_is_refused(world: World) -> None:
    assert world.run("reinit", world.scope, "--force").exit_code == 1


def test_flush_deletes_the_scheduled_switchover(world: World) -> None:
    assert world.run("flush", "switchover", "--force").exit_code == 1
    world.put("failover", {"leader": "p1", "scheduled_at": "2099-01-01T00:00:00+00:00"})
    assert world.run("flush", world.scope, "switchover", "--force").exit_code == 0
    assert world.get("failover") == ""


def test_switchover_that_is_under_way_is_not_flushed(world: World) -> None:
    world.put("failover", {"leader": "p1"})
    assert world.run("flush", "switchover", "--force").exit_code == 1
    assert world.get("failover") != ""


def test_a_failover_that_nobody_took_up_is_flushed_where_nobody_leads(world: World) -> None:
    world.delete("leader")
    world.put("failover", {"candidate": "p2"})
    assert world.run("flush", "switchover", "--force").exit_code == 0
    assert world.get("failover") == ""


def test_restarts_are_not_scheduled_so_there_are_none_to_flush(world: World) -> None:
    assert world.run("flush", "restart", "--force").exit_code == 2


def test_pause_is_written_once_and_resume_takes_it_away(world: World) -> None:
    assert world.run("pause").exit_code == 0
    assert json.loads(world.get("config"))["pause"] is True
    again = world.run("pause")
    assert (again.exit_code, again.output) == (1, f"Error: cluster {world.scope} is already paused\n")
    assert world.run("resume").exit_code == 0
    assert json.loads(world.get("config")) == {"ttl": 5, "loop_wait": 1, "retry_timeout": 1}
    assert world.run("resume").exit_code == 1


def test_pause_waits_until_every_member_has_taken_notice(world: World) -> None:
    world.delete("members/p3")
    noticed = {**status("replica"), "pause": True}
    world.agents["p1"].routes["GET", "/patroni"] = (200, noticed)

    def later() -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and "pause" not in world.get("config"):
            pass
        world.agents["p2"].routes["GET", "/patroni"] = (200, noticed)

    thread = threading.Thread(target=later)
    thread.start()
    result = world.run("pause", "--wait")
    thread.join()
    assert result.exit_code == 0
    assert result.output.endswith("Success: cluster management is paused\n")


def test_remove_asks_three_times_and_then_leaves_no_key(world: World) -> None:
    answers = f"{world.scope}\nYes I am aware\np1\n"
    assert world.run("remove", stdin=f"{world.scope}\nYes I am aware\np2\n").exit_code == 1
    assert world.get("leader") == "p1"
    assert world.run("remove", stdin=answers).exit_code == 0
    assert world.etcdctl("get", "--prefix", f"/service/{world.scope}/") == ""
