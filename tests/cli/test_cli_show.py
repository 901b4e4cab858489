"""`list`, `topology`, `history`, `version`, `failovers`."""

from __future__ import annotations

import json
import socket

import pytest
import yaml
from cli_world import World, free_port, record, status

from hamgr.core.cluster import ClusterView, Member
from hamgr.core.units import Instant
from hamgr.dcs.keys import ScopeKeys
from hamgr.dcs.remembered import SUFFIX, remembered

TABLE = """\
Cluster: {scope} (7300000000000000001)
+--------+----------------+---------+-----------+----+-------------+-------+------------+---------+---------------------+----------------------+
| Member | Host           | Role    | State     | TL | Receive LSN |   Lag | Replay LSN |     Lag | Tags                | Note                 |
+--------+----------------+---------+-----------+----+-------------+-------+------------+---------+---------------------+----------------------+
| p1     | 127.0.0.1:5432 | Leader  | running   |  3 |             |       |            |         |                     |                      |
| p2     | 127.0.0.1:5433 | Replica | streaming |  3 |   0/5000200 |   0 B |  0/5000180 |   128 B | {{"clonefrom": true}} |                      |
| p3     | 127.0.0.1:5434 | Replica | streaming |  3 |   0/5000080 | 384 B |    unknown | unknown |                     | REST does not answer |
+--------+----------------+---------+-----------+----+-------------+-------+------------+---------+---------------------+----------------------+
"""  # noqa: E501


def test_list_shows_what_members_say_and_etcd_where_they_are_silent(world: World) -> None:
    result = world.run("list")
    assert result.output == TABLE.format(scope=world.scope)
    assert result.exit_code == 0


def test_list_has_patronictls_keys_in_json_with_lags_in_bytes(world: World) -> None:
    rows = json.loads(world.run("list", "-f", "json").output)
    assert rows[0] == {
        "Cluster": world.scope,
        "Member": "p1",
        "Host": "127.0.0.1:5432",
        "Role": "Leader",
        "State": "running",
        "TL": 3,
    }
    assert rows[1] == {
        "Cluster": world.scope,
        "Member": "p2",
        "Host": "127.0.0.1:5433",
        "Role": "Replica",
        "State": "streaming",
        "TL": 3,
        "Receive LSN": "0/5000200",
        "Receive Lag": 0,
        "Replay LSN": "0/5000180",
        "Replay Lag": 128,
        "Tags": {"clonefrom": True},
    }


def test_yaml_holds_the_same_as_json(world: World) -> None:
    as_json = json.loads(world.run("list", "-f", "json").output)
    assert yaml.safe_load(world.run("list", "-f", "yaml").output) == as_json


def test_tsv_has_every_column_whatever_stands_in_them(world: World) -> None:
    lines = world.run("list", "-f", "tsv").output.splitlines()
    assert lines[0] == (
        "Cluster\tMember\tHost\tRole\tState\tTL\tReceive LSN\tReceive Lag\tReplay LSN\tReplay Lag"
        "\tPending restart\tPending restart reason\tTags\tNote"
    )
    assert lines[3] == (
        f"{world.scope}\tp3\t127.0.0.1:5434\tReplica\tstreaming\t3\t0/5000080\t384\tunknown\tunknown"
        "\t\t\t\tREST does not answer"
    )


def test_member_that_is_not_well_says_why(world: World) -> None:
    body = status("replica", state="creating replica", note="copying the data directory from p1")
    world.agents["p2"].routes["GET", "/patroni"] = (200, {**body, "replication_state": ""})
    row = json.loads(world.run("list", "-f", "json").output)[1]
    assert (row["State"], row["Note"]) == ("creating replica", "copying the data directory from p1")


def test_list_says_that_the_cluster_is_paused_and_without_leader(world: World) -> None:
    world.delete("leader")
    world.put("config", {"pause": True})
    output = world.run("list").output
    assert " No leader\n Maintenance mode: on\n" in output


def test_list_says_when_a_switchover_is_due(world: World) -> None:
    world.put("failover", {"leader": "p1", "candidate": "p2", "scheduled_at": "2099-01-01T03:00:00+01:00"})
    assert " Switchover scheduled at 2099-01-01T02:00:00+00:00, from p1 to p2\n" in world.run("list").output


@pytest.mark.parametrize("at", ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"])
def test_list_shows_the_members_also_beside_a_time_that_is_none_in_utc(world: World, at: str) -> None:
    world.put("failover", {"leader": "p1", "scheduled_at": at})
    result = world.run("list")
    assert result.exit_code == 0
    assert "p1" in result.output


def test_list_of_two_clusters_is_one_json_list(world: World) -> None:
    rows = json.loads(world.run("list", world.scope, "nowhere", world.scope, "-f", "json").output)
    assert [row["Member"] for row in rows] == ["p1", "p2", "p3"] * 2


def test_key_that_cannot_be_read_is_named(world: World) -> None:
    world.put("status", "{half")
    assert f" Key not understood: /service/{world.scope}/status" in world.run("list").output


def test_topology_puts_the_leader_first_and_the_others_below(world: World) -> None:
    world.put("leader", "p2")
    lines = world.run("topology").output.splitlines()
    assert [line.split("|")[1].rstrip() for line in lines[4:7]] == [" p2", " + p1", " + p3"]


def test_history_shows_each_timelines_end(world: World) -> None:
    world.put("history", [[1, 83886592, "no recovery target specified", "2026-11-23T20:00:00+00:00", "p1"]])
    assert json.loads(world.run("history", "-f", "json").output) == [
        {
            "TL": 1,
            "LSN": 83886592,
            "Reason": "no recovery target specified",
            "Timestamp": "2026-11-23T20:00:00+00:00",
            "New Leader": "p1",
        }
    ]


def test_version_asks_members_only_when_named(world: World) -> None:
    assert world.run("version").output.startswith("hamgr version ")
    output = world.run("version", world.scope, "p1").output
    assert output.splitlines()[2:] == ["p1: hamgr 0.1.1 PostgreSQL 15.13"]


def test_version_of_a_member_that_is_older_or_silent_is_as_it_announced_it(world: World) -> None:
    older = {key: value for key, value in status("primary").items() if key != "hamgr"}
    world.agents["p1"].routes["GET", "/patroni"] = (200, older)
    lines = world.run("version", world.scope, "p1", "p3").output.splitlines()[2:]
    assert lines[0] == "p1: hamgr 0.1.0 PostgreSQL 15.13"
    assert lines[1].startswith("p3: hamgr 0.1.0 PostgreSQL unknown (REST does not answer")


def test_failovers_are_listed_newest_first(world: World) -> None:
    for term in (9, 10):
        world.put(f"failovers/{term}", record(term, "p2", "p1"))
    rows = json.loads(world.run("failovers", "-f", "json").output)
    assert [row["term"] for row in rows] == [10, 9]
    assert rows[0] == record(10, "p2", "p1")


def test_failover_record_is_drawn_with_its_stages(world: World) -> None:
    world.put("failovers/7", record(7, "p2", "p1"))
    lines = world.run("failovers", "7").output.splitlines()
    assert lines[0] == "term 7: p2 from p1, switchover, writable 94 ms after the fault"
    drawn = {line.split()[0]: line for line in lines[6:]}
    assert drawn["detect"].endswith("(of 10 ms)  OVER BUDGET")
    assert drawn["promote"].index("#") > drawn["fence"].index("#")
    assert drawn["promote"].count("#") > drawn["fence"].count("#")
    assert drawn["routed"].split() == ["routed", "unknown"]


def test_failover_record_tells_what_became_of_poolers(world: World) -> None:
    note = "pool 10.0.0.5:6432 was not held: no connection within 1 s"
    world.put("failovers/7", {**record(7, "p2", "p1"), "notes": [note]})
    assert f"  note      {note}" in world.run("failovers", "7").output.splitlines()


def test_record_that_does_not_exist_is_refused_with_those_that_do(world: World) -> None:
    world.put("failovers/7", record(7, "p2", "p1"))
    result = world.run("failovers", "8")
    assert result.exit_code == 1
    assert "terms on record: 7" in result.output


def test_etcd_that_is_not_there_ends_in_status_3_with_a_hint(world: World) -> None:
    world.write_config(etcd3={"hosts": "127.0.0.1:1"})
    result = world.run("list")
    assert result.exit_code == 3
    assert "Hint:" in result.output


def test_dcs_url_wins_over_the_file(world: World) -> None:
    world.write_config(etcd3={"hosts": "127.0.0.1:1"})
    result = world.run("-d", f"etcd3://{world.endpoint}/service", "list", "-f", "json")
    assert len(json.loads(result.output)) == 3


def test_wrong_key_of_the_file_is_named_and_ends_in_status_4(world: World) -> None:
    world.write_config(etcd3={"host": world.endpoint, "pasword": "x"})
    result = world.run("list")
    assert result.exit_code == 4
    assert "etcd3.pasword: unknown key (did you mean password?)" in result.output


def test_a_members_whole_file_will_do_whatever_is_wrong_elsewhere_in_it(world: World) -> None:
    world.write_config(name="p1", postgresql={"listen": "nonsense"}, bootstrap={"dcs": {"ttl": "x"}})
    assert world.run("list").exit_code == 0


def test_proxy_of_the_environment_does_not_come_between(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert "Note" not in json.loads(world.run("list", "-f", "json").output)[1]


def test_idle_member_that_never_answers_does_not_hold_the_table_up(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/patroni"
        world.put("members/p3", {"conn_url": "postgres://127.0.0.1:5434/postgres", "api_url": url, "state": "running"})
        rows = json.loads(world.run("list", "-f", "json").output)
    assert rows[2]["Note"] == "REST does not answer"


def test_with_etcd_gone_members_are_shown_as_this_hosts_member_remembers_them(world: World) -> None:
    world.write_config(etcd3={"hosts": f"127.0.0.1:{free_port()}"}, postgresql={"data_dir": str(world.folder / "data")})
    keys = ScopeKeys.of(world.scope)
    p2 = Member("p2", "postgres://127.0.0.1:5433/postgres", world.agents["p2"].api_url, "running")
    text = remembered(keys, ClusterView(9, Instant(0.0), "73", members=(p2,)))
    (world.folder / f"data{SUFFIX}").write_text(text)
    result = world.run("list", "-f", "json")
    assert result.exit_code == 0
    assert "as this host's member last saw the cluster" in result.stderr
    assert json.loads(result.stdout)[0]["State"] == "streaming"
    (world.folder / f"data{SUFFIX}").write_text(text[:-20])
    assert world.run("list").exit_code == 3
