"""`explain`: who waits for what, and what would free it; and what a lossy failover says before it is done."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cli_world import World, status

from hamgr.cli import rest


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is to be silent here refuses the connection; a busy machine must not make others silent."""
    monkeypatch.setattr(rest, "STATUS_TIMEOUT_S", 20.0)


def says(world: World, name: str, *, rule: str, reason: str, note: str, role: str = "replica") -> None:
    """What the member answers to GET /patroni."""
    world.agents[name].routes["GET", "/patroni"] = (200, {**status(role, note=note), "rule": rule, "reason": reason})


@pytest.fixture
def well(world: World) -> World:
    """All three answer, and all is well."""
    world.agents["p3"].start()
    world.add_member("p3", 5434)
    says(world, "p1", rule="lead.steady", reason="leading", note="leading in term 6", role="primary")
    for name in ("p2", "p3"):
        says(world, name, rule="repair.steady", reason="following", note="following p1")
    return world


def test_a_cluster_that_is_well_is_told_in_one_line(well: World) -> None:
    result = well.run("explain")
    assert result.exit_code == 0, result.output
    assert result.output == f"{well.scope}: p1 leads in term 6, nothing is held back\n"


def test_each_member_says_what_it_waits_for_and_is_told_what_frees_it(well: World) -> None:
    well.delete("leader")
    well.put("sync", {"leader": "p1", "sync_standby": "p2,p3", "quorum": 1})
    says(well, "p1", rule="election.not_fit", reason="may_not_lead", note="not a candidate: tagged nofailover")
    says(well, "p2", rule="election.wait", reason="wait_quorum", note="waiting for 1 more of p2, p3 to vote")
    says(well, "p3", rule="lease.need_lease", reason="store_down", note="etcd does not answer: timed out")
    result = well.run("explain")
    assert result.exit_code == 1
    lines = {name: line for line in result.output.splitlines() for name in ("p1", "p2", "p3") if f"| {name} " in line}
    assert "tagged nofailover" in lines["p1"]
    assert "take the tag nofailover away" in lines["p1"]
    assert "election.wait" in lines["p2"]
    assert "--allow-data-loss" in lines["p2"]
    assert "make etcd answer this host" in lines["p3"]
    assert " nobody leads since term 6" in result.output
    assert " Without loss may lead: p1; or of p2, p3, having compared 1 others of them" in result.output


def test_members_that_do_not_answer_are_told_from_etcd(world: World) -> None:
    world.delete("leader")
    world.put("failsafe", {"p1": "http://p1", "p9": "http://p9"})
    world.add_member("p3", 5434, with_rest=False, note="lags_too_far")
    result = world.run("explain", "--format", "json")
    assert result.exit_code == 1
    value: dict[str, Any] = json.loads(result.output)
    assert (value["leader"], value["term"], value["is_well"]) == (None, 6, False)
    members = {member["member"]: member for member in value["members"]}
    assert members["p3"]["reason"] == "silent"
    assert "maximum_lag_on_failover" in members["p3"]["frees"]
    assert (members["p9"]["role"], members["p9"]["reason"]) == ("gone", "gone")


def test_a_leader_that_is_ill_where_nobody_is_better_off_is_not_well(well: World) -> None:
    says(well, "p1", rule="lead.ill", reason="ill_and_none_better", note="the server is ill", role="primary")
    result = well.run("explain", "--format", "json")
    assert result.exit_code == 1
    assert json.loads(result.output)["leader"] == "p1"


def test_reasons_of_a_newer_agent_are_shown_as_they_are(well: World) -> None:
    says(well, "p2", rule="new", reason="something_new", note="doing something new")
    assert well.run("explain").exit_code == 0


# -- a failover that loses -------------------------------------------------------------------------------------


@pytest.fixture
def synchronous(world: World) -> World:
    """p2 is in the synchronous set, p3 is not, and 384 bytes behind; nobody leads."""
    world.put("config", {"ttl": 5, "synchronous_mode": True})
    world.put("sync", {"leader": "p1", "sync_standby": "p2", "quorum": 0})
    world.delete("leader")
    return world


def test_a_failover_to_a_member_outside_the_synchronous_set_is_refused_and_names_what_would_be_lost(
    synchronous: World,
) -> None:
    result = synchronous.run("failover", "--candidate", "p3", "--force")
    assert result.exit_code == 1
    assert "p3 is not in the synchronous set: 384 bytes of WAL" in result.output
    assert "--allow-data-loss" in result.output
    assert all(agent.calls == [] for agent in synchronous.agents.values())


def test_a_failover_that_may_lose_names_the_bytes_before_it_asks_and_no_means_no(synchronous: World) -> None:
    result = synchronous.run("failover", "--candidate", "p3", "--allow-data-loss", stdin="n\n")
    assert result.exit_code == 1
    risk, question = (result.output.index(words) for words in ("384 bytes of WAL", "Commits may be LOST? [y/N]"))
    assert risk < question
    assert all(agent.calls == [] for agent in synchronous.agents.values())


def test_a_failover_that_may_lose_names_the_bytes_also_where_nobody_is_asked(synchronous: World) -> None:
    for agent in synchronous.agents.values():
        agent.routes["POST", "/failover"] = (412, "no")
    result = synchronous.run("failover", "--candidate", "p3", "--allow-data-loss", "--force")
    assert "Commits may be LOST: 384 bytes of WAL" in result.output


def test_a_failover_within_the_synchronous_set_needs_no_such_flag(synchronous: World) -> None:
    synchronous.agents["p2"].routes["POST", "/failover"] = (412, "asked, and that is all")
    result = synchronous.run("failover", "--candidate", "p2", "--force")
    assert "asked, and that is all" in result.output


@pytest.mark.parametrize(
    ("mode", "quorum", "role"),
    [
        ("on", 0, "Sync Standby"),
        ("quorum", 1, "Quorum Standby"),
        ("quorum", 0, "Quorum Standby"),
        ("off", 0, "Replica"),
    ],
)
def test_list_names_standbys_by_the_mode(world: World, mode: str, quorum: int, role: str) -> None:
    world.put("config", {"ttl": 5, "synchronous_mode": mode})
    world.put("sync", {"leader": "p1", "sync_standby": "p2", "quorum": quorum})
    rows = {row["Member"]: row["Role"] for row in json.loads(world.run("list", "--format", "json").output)}
    assert rows == {"p1": "Leader", "p2": role, "p3": "Replica"}
