"""`show-config`, `edit-config`, `validate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_world import World

SECRET = "s3cret-of-rest"


def config_of(world: World) -> Any:
    return json.loads(world.get("config"))


def test_set_changes_nested_keys_and_null_takes_one_away(world: World) -> None:
    result = world.run("edit-config", "--force", "-s", "ttl=6", "-s", "retry_timeout=null", "-p", "max_connections=200")
    assert result.exit_code == 0, result.output
    assert "+ttl: 6" in result.output
    assert config_of(world) == {
        "loop_wait": 1,
        "ttl": 6,
        "postgresql": {"parameters": {"max_connections": 200}},
    }


def test_unknown_key_is_refused_with_the_nearest_name_and_nothing_is_written(world: World) -> None:
    before = world.get("config")
    result = world.run("edit-config", "--force", "-s", "loop_wat=2")
    assert result.exit_code == 1
    assert "loop_wat: unknown key (did you mean loop_wait?)" in result.output
    assert world.get("config") == before


def test_value_out_of_bounds_is_refused(world: World) -> None:
    result = world.run("edit-config", "--force", "-s", "ttl=1")
    assert result.exit_code == 1
    assert "ttl" in result.output
    assert config_of(world)["ttl"] == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-p", "work_mem=.inf"), "postgresql.parameters.work_mem: is not a finite number"),
        (("-p", "work_mem=.nan"), "postgresql.parameters.work_mem: is not a finite number"),
        (("-s", "standby_cluster.port=2026-01-01"), "standby_cluster.port: is a date"),
        (("-s", 'standby_cluster.host="\\ud800"'), "standby_cluster.host: is no text in UTF-8"),
        (("-s", f"ttl={'1' * 5000}"), "the value of ttl is not YAML: this is no int"),
        (("-s", "ttl=!!int ''"), "the value of ttl is not YAML: this is no int"),
        (("-s", f"ttl={'[' * 90}{']' * 90}"), "the value of ttl is not YAML: this is nested more than 50 deep"),
        (("-s", "ttl=&a [*a]"), "the value of ttl is not YAML: an alias repeats what it is part of"),
    ],
)
def test_value_that_etcd_cannot_hold_is_refused_and_nothing_is_written(
    world: World, words: tuple[str, str], said: str
) -> None:
    before = world.get("config")
    result = world.run("edit-config", "--force", *words)
    assert result.exit_code == 1
    assert said in result.output
    assert world.get("config") == before


def test_no_leaves_the_configuration_as_it_is(world: World) -> None:
    result = world.run("edit-config", "-s", "ttl=7", stdin="n\n")
    assert result.exit_code == 1
    assert config_of(world)["ttl"] == 5


def test_same_configuration_is_not_written(world: World) -> None:
    assert world.run("edit-config", "-s", "ttl=5").output == "Not changed\n"


def test_file_is_laid_over_or_replaces(world: World, tmp_path: Path) -> None:
    patch = tmp_path / "patch.yml"
    patch.write_text("ttl: 8\n")
    assert world.run("edit-config", "--force", "--apply", str(patch)).exit_code == 0
    assert config_of(world) == {"ttl": 8, "loop_wait": 1, "retry_timeout": 1}
    assert world.run("edit-config", "--force", "--replace", "-", stdin="ttl: 9\n").exit_code == 0
    assert config_of(world) == {"ttl": 9}


def test_file_that_is_no_yaml_is_refused_with_line_and_column(world: World, tmp_path: Path) -> None:
    patch = tmp_path / "patch.yml"
    patch.write_text("ttl: 8\nloop_wait: [1\n")
    result = world.run("edit-config", "--force", "--apply", str(patch))
    assert result.exit_code == 1
    assert "line 3, column 1" in result.output


def test_broken_configuration_in_etcd_can_be_replaced(world: World) -> None:
    world.put("config", "{half")
    assert world.run("show-config").exit_code == 1
    assert world.run("edit-config", "--force", "--replace", "-", stdin="ttl: 9\n").exit_code == 0
    assert config_of(world) == {"ttl": 9}


def test_cluster_without_configuration_is_refused(empty: World) -> None:
    assert empty.run("show-config").exit_code == 1


@pytest.fixture
def member_file(tmp_path: Path) -> Path:
    values = {
        "scope": "demo",
        "name": "p1",
        "restapi": {"listen": "127.0.0.1:8008", "authentication": {"username": "u", "password": SECRET}},
        "etcd3": {"hosts": "127.0.0.1:2379", "username": "root", "password": SECRET},
        "bootstrap": {"dcs": {"ttl": 5}},
        "postgresql": {
            "listen": "127.0.0.1:5432",
            "data_dir": "/var/lib/postgresql/15/demo",
            "bin_dir": "/usr/lib/postgresql/15/bin",
            "authentication": {
                "superuser": {"username": "postgres", "password": SECRET},
                "replication": {"username": "replicator", "password": SECRET},
            },
        },
    }
    path = tmp_path / "member.yml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_valid_file_shows_the_budget(empty: World, member_file: Path) -> None:
    result = empty.run("validate", str(member_file))
    assert result.exit_code == 0, result.output
    assert f"{member_file}: valid" in result.output
    assert "Failover budget (ms)" in result.output
    assert "planned switchover" in result.output


def test_effective_values_show_their_origin_and_no_password(empty: World, member_file: Path) -> None:
    for fmt in ("pretty", "json", "yaml", "tsv"):
        result = empty.run("validate", "--effective", "-f", fmt, str(member_file))
        assert result.exit_code == 0
        assert SECRET not in result.output
    value = json.loads(empty.run("validate", "--effective", "-f", "json", str(member_file)).output)
    origins = {each["path"]: (each["value"], each["origin"]) for each in value["effective"]}
    assert origins["scope"] == ("demo", "file")
    assert origins["namespace"] == ("/service/", "default")
    assert origins["etcd3.password"][0] == "***"


def test_budget_in_json_is_the_tables(empty: World, member_file: Path) -> None:
    value = json.loads(empty.run("validate", "-f", "json", str(member_file)).output)
    lost = next(each for each in value["budget"]["scenarios"] if each["cause"] == "leader_lost")
    assert f"{lost['writable_s'] * 1000:.0f}" in empty.run("validate", str(member_file)).output


def test_each_problem_is_named_with_its_path_and_the_nearest_name(empty: World, member_file: Path) -> None:
    values = yaml.safe_load(member_file.read_text())
    values["postgresql"]["data_dri"] = values["postgresql"].pop("data_dir")
    values["scpoe"] = values.pop("scope")
    member_file.write_text(yaml.safe_dump(values))
    result = empty.run("validate", str(member_file))
    assert result.exit_code == 1
    assert "postgresql.data_dri: unknown key (did you mean data_dir?)" in result.output
    assert "scpoe: unknown key (did you mean scope?)" in result.output
    assert SECRET not in result.output
    value = json.loads(empty.run("validate", "-f", "json", str(member_file)).output)
    assert value["valid"] is False


def test_half_written_file_is_named_with_line_and_column(empty: World, member_file: Path) -> None:
    member_file.write_text("scope: demo\npostgresql: {listen: [")
    result = empty.run("validate", str(member_file))
    assert result.exit_code == 1
    assert "line 2" in result.output


def test_file_that_is_not_there_is_said_so(empty: World, tmp_path: Path) -> None:
    assert empty.run("validate", str(tmp_path / "none.yml")).exit_code == 1
    result = empty.run("-c", str(tmp_path / "none.yml"), "list")
    assert result.exit_code == 4
