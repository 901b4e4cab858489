"""The command line before any command runs, and the values that commands share."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
from click.testing import CliRunner

from hamgr.__main__ import COMMANDS, cli
from hamgr.cli.output import Column, Table, human_bytes, render
from hamgr.cli.targets import split_names
from hamgr.cli.values import assignments, difference, patched

HEAVY = ("grpc", "etcd3", "pydantic", "rich", "requests", "psycopg", "aiohttp", "yaml")


def test_help_loads_no_command() -> None:
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom hamgr.__main__ import cli\n"
        "assert CliRunner().invoke(cli, ['--help']).exit_code == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_agent_and_drill_are_not_imported_by_the_commands_of_cli() -> None:
    own = [target.partition(":")[0] for target, _ in COMMANDS.values() if ".cli." in target]
    code = (
        f"import importlib, sys\nfor name in {own!r}: importlib.import_module(name)\n"
        "print([name for name in sys.modules if name.startswith(('hamgr.agent', 'hamgr.drill', 'hamgr.postgres'))])"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", [name for name, (target, _) in COMMANDS.items() if ".cli." in target])
def test_every_command_of_the_table_is_there_and_has_help(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert result.output.startswith("Usage:")


def test_module_of_every_own_command_exists() -> None:
    for target, _ in COMMANDS.values():
        if ".cli." in target:
            assert importlib.util.find_spec(target.partition(":")[0])


def test_unknown_command_is_wrong_usage() -> None:
    assert CliRunner().invoke(cli, ["lst"]).exit_code == 2


def test_parameter_names_may_hold_dots() -> None:
    patch = assignments(["postgresql.use_slots=false"], ["pg_stat_statements.track=all", "work_mem='4MB'"])
    assert patch == {
        "postgresql": {
            "use_slots": False,
            "parameters": {"pg_stat_statements.track": "all", "work_mem": "4MB"},
        }
    }


def test_assignment_without_a_value_sign_is_refused() -> None:
    with pytest.raises(ValueError, match="ttl"):
        assignments(["ttl"], [])


def test_null_takes_a_nested_key_away_and_leaves_the_rest() -> None:
    assert patched({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": None}}) == {"a": {"c": 2}, "d": 3}


def test_difference_of_the_same_is_nothing() -> None:
    assert difference({"a": 1}, {"a": 1}) == ""
    assert difference({"a": 1}, {"a": 2}).splitlines()[1:] == ["-a: 1", "+a: 2"]


@pytest.mark.parametrize(
    ("names", "scope", "expected"),
    [
        (("demo", "p1"), "demo", ("demo", ("p1",))),
        (("p1",), "demo", ("demo", ("p1",))),
        (("demo", "p1"), "", ("demo", ("p1",))),
        ((), "demo", ("demo", ())),
    ],
)
def test_first_name_is_the_cluster_if_it_is_the_scope_or_none_is_configured(
    names: tuple[str, ...], scope: str, expected: tuple[str, tuple[str, ...]]
) -> None:
    assert split_names(names, scope) == expected


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 30, "1.0 GiB")])
def test_bytes_are_shown_in_the_largest_unit(count: int, text: str) -> None:
    assert human_bytes(count) == text


def test_tsv_keeps_one_row_on_one_line() -> None:
    assert render(Table((Column("a"), Column("b")), [{"a": "x\ty\nz", "b": None}]), "tsv") == "a\tb\nx y z\t"


def test_markup_in_a_value_is_shown_as_it_is() -> None:
    assert "[red]x[/red]" in render(Table((Column("a"),), [{"a": "[red]x[/red]"}]), "pretty")
