"""A configuration that cannot be used is refused before anything is started, by name, with exit 78 (EX_CONFIG)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.bench import Cli, Said

EXIT_REFUSED_CONFIGURATION = 78
EXIT_FAILED = 1
EXIT_BAD_CONFIG = 4

GOOD: dict[str, Any] = {
    "scope": "main",
    "name": "db1",
    "restapi": {"listen": "127.0.0.1:8008", "connect_address": "127.0.0.1:8008"},
    "etcd3": {"hosts": ["127.0.0.1:2379"]},
    "bootstrap": {"dcs": {"ttl": 5}},
    "postgresql": {
        "listen": "127.0.0.1:5432",
        "connect_address": "127.0.0.1:5432",
        "data_dir": "/nonexistent/data",
        "authentication": {
            "superuser": {"username": "postgres", "password": "secret-word"},
            "replication": {"username": "replicator", "password": "secret-word"},
        },
    },
}


def agent(file: Path) -> Said:
    """`hamgr agent FILE`, which must end by itself, without a traceback and without a password."""
    said = Cli(file)("agent", str(file), timeout_s=20.0)
    assert "Traceback" not in said.err
    assert "secret-word" not in said.err + said.out
    return said


def written(path: Path, settings: dict[str, Any]) -> Path:
    file = path / "hamgr.yml"
    file.write_text(yaml.safe_dump({"guard": {"runtime_dir": str(path / "run")}, **settings}))
    return file


@pytest.mark.parametrize(
    ("text", "said_of_it"),
    [
        (yaml.safe_dump(GOOD).partition("replicator")[0] + '"repl', "YAML"),
        ("scope: main\nname: [db1", "YAML"),
        ("- scope\n- main\n", "mapping"),
        ("", "scope"),
    ],
    ids=["cut off", "unclosed", "a list", "empty"],
)
def test_half_written_file_is_refused(tmp_path: Path, text: str, said_of_it: str) -> None:
    file = tmp_path / "hamgr.yml"
    file.write_text(text)
    said = agent(file)
    assert said.status == EXIT_REFUSED_CONFIGURATION
    assert said_of_it in said.err


def test_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "hamgr.yml"
    file.write_bytes(b"scope: \xff\xfe\x00main\n")
    said = agent(file)
    assert said.status == EXIT_REFUSED_CONFIGURATION
    assert str(file) in said.err


@pytest.mark.parametrize("command", [("agent",), ("list",), ("validate",)])
def test_missing_file_is_named(tmp_path: Path, command: tuple[str, ...]) -> None:
    file = tmp_path / "none.yml"
    arguments = (*command, str(file)) if command[0] != "list" else command
    said = Cli(file)(*arguments)
    assert said.status in (EXIT_FAILED, EXIT_BAD_CONFIG, EXIT_REFUSED_CONFIGURATION)
    assert str(file) in said.err + said.out
    assert "Traceback" not in said.err


def test_unknown_key_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    settings = {**GOOD, "postgresql": {**GOOD["postgresql"], "data_dri": "/x"}}
    said = agent(written(tmp_path, settings))
    assert said.status == EXIT_REFUSED_CONFIGURATION
    assert "postgresql.data_dri" in said.err
    assert "data_dir" in said.err.replace("data_dri", "")


@pytest.mark.parametrize("ttl", [1, -5, "soon"])
def test_lease_that_etcd_would_not_grant_is_refused(tmp_path: Path, ttl: object) -> None:
    said = agent(written(tmp_path, {**GOOD, "bootstrap": {"dcs": {"ttl": ttl}}}))
    assert said.status == EXIT_REFUSED_CONFIGURATION
    assert "bootstrap.dcs.ttl" in said.err


@pytest.mark.skipif(os.geteuid() != 0, reason="root only")
def test_agent_does_not_run_as_root_and_leaves_nothing_behind(tmp_path: Path) -> None:
    said = agent(written(tmp_path, GOOD))
    assert said.status == EXIT_REFUSED_CONFIGURATION
    assert "root" in said.err
    # One of root's would keep the right user's agent from starting later.
    assert not (tmp_path / "run").exists()


COMMANDS = (
    ("list",),
    ("topology",),
    ("history",),
    ("failovers",),
    ("show-config",),
    ("edit-config", "-s", "ttl=30", "--force"),
    ("switchover", "--force"),
    ("pause",),
    ("restart", "main", "db1", "--force"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_command_without_etcd_exits_3_and_says_who_did_not_answer(tmp_path: Path, command: tuple[str, ...]) -> None:
    settings = {**GOOD, "etcd3": {"hosts": ["127.0.0.1:1"]}}
    said = Cli(written(tmp_path, settings))(*command, timeout_s=20.0)
    assert said.status == 3
    assert "127.0.0.1:1" in said.err
    assert "Traceback" not in said.err
