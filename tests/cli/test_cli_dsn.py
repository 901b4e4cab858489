"""`dsn`: what libpq reads, in every form."""

from __future__ import annotations

import json
import shlex

import pytest
from cli_world import World
from psycopg.conninfo import conninfo_to_dict

from hamgr.cli.commands_dsn import ATTRIBUTES

READ_WRITE = "host=127.0.0.1,127.0.0.1,127.0.0.1 port=5432,5434,5433 target_session_attrs=read-write connect_timeout=2"


def test_dsn_is_the_leaders_or_the_named_members(world: World) -> None:
    assert world.run("dsn").output == "host=127.0.0.1 port=5432\n"
    assert world.run("dsn", "-m", "p3").output == "host=127.0.0.1 port=5434\n"
    assert world.run("dsn", "-r", "replica").output == "host=127.0.0.1 port=5433\n"


def test_multi_host_names_all_members_with_the_leader_first(world: World) -> None:
    assert world.run("dsn", "--multi-host").output == f"{READ_WRITE}\n"
    assert world.run("dsn", "-r", "primary", "--multi-host").output == f"{READ_WRITE}\n"


@pytest.mark.parametrize(
    ("role", "attributes", "ports"),
    [
        ("replica", "standby", "5433,5434,5432"),
        ("standby", "standby", "5433,5434,5432"),
        ("any", "any", "5432,5434,5433"),
    ],
)
def test_role_says_what_libpq_looks_for(world: World, role: str, attributes: str, ports: str) -> None:
    said = conninfo_to_dict(world.run("dsn", "-r", role, "--multi-host").output.strip())
    assert (said["target_session_attrs"], said["port"]) == (attributes, ports)


@pytest.mark.parametrize("attributes", ATTRIBUTES)
def test_every_form_reads_the_same_to_libpq(world: World, attributes: str) -> None:
    wanted = ("dsn", "--target-session-attrs", attributes, "-U", "o'app user", "-d", "sh op", "--connect-timeout", "7")
    shown = json.loads(world.run(*wanted, "-f", "json").output)
    read = conninfo_to_dict(shown["dsn"])
    assert read == conninfo_to_dict(shown["uri"])
    assert (read["user"], read["dbname"], read["connect_timeout"]) == ("o'app user", "sh op", "7")
    assert read["target_session_attrs"] == shown["target_session_attrs"] == attributes
    assert world.run(*wanted, "-f", "uri").output == f"{shown['uri']}\n"
    assert world.run(*wanted).output == f"{shown['dsn']}\n"


def test_json_says_which_host_is_whose(world: World) -> None:
    shown = json.loads(world.run("dsn", "--multi-host", "-f", "json").output)
    assert shown["hosts"] == [
        {"name": "p1", "host": "127.0.0.1", "port": 5432, "role": "leader"},
        {"name": "p3", "host": "127.0.0.1", "port": 5434, "role": "replica"},
        {"name": "p2", "host": "127.0.0.1", "port": 5433, "role": "replica"},
    ]
    one = json.loads(world.run("dsn", "-f", "json").output)
    assert (one["dsn"], "target_session_attrs" in one, len(one["hosts"])) == ("host=127.0.0.1 port=5432", False, 1)


def test_without_a_leader_the_string_for_all_is_there_and_the_leaders_is_not(world: World) -> None:
    world.delete("leader")
    assert world.run("dsn").exit_code == 1
    said = conninfo_to_dict(world.run("dsn", "--multi-host").output.strip())
    assert sorted(said["port"].split(",")) == ["5432", "5433", "5434"]


def test_a_member_that_is_away_is_named(world: World) -> None:
    world.put("failsafe", dict.fromkeys(("p1", "p2", "p3", "p4"), "http://127.0.0.1:1/patroni"))
    result = world.run("dsn", "--multi-host")
    assert (result.exit_code, result.stdout) == (0, f"{READ_WRITE}\n")
    assert "without p4" in result.stderr


def test_a_member_of_ipv6_is_bracketed_in_the_uri_only(world: World) -> None:
    world.add_member("p1", 0, conn_url="postgres://[fd00::11]:5432/postgres", with_rest=False)
    shown = json.loads(world.run("dsn", "-f", "json").output)
    assert shlex.split(shown["dsn"]) == ["host=fd00::11", "port=5432"]
    assert conninfo_to_dict(shown["uri"]) == {"host": "fd00::11", "port": "5432"}


def test_one_member_and_all_of_them_exclude_each_other(world: World) -> None:
    for more in (("--multi-host",), ("--target-session-attrs", "any"), ("-r", "replica")):
        assert world.run("dsn", "-m", "p2", *more).exit_code == 2
    assert world.run("dsn", "--target-session-attrs", "master").exit_code == 2


def test_nobody_up_is_refused(empty: World) -> None:
    result = empty.run("dsn", "--multi-host")
    assert (result.exit_code, result.stdout) == (1, "")
