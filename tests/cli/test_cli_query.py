"""`query` against a real server."""

from __future__ import annotations

import json

from cli_world import World, free_port

LOGIN = ("-U", "postgres", "-d", "postgres")


def test_rows_come_in_every_format(empty: World, server_port: int) -> None:
    empty.add_member("p1", server_port, role="primary", with_rest=False)
    empty.put("leader", "p1")
    sql = "select 1 as a, null as b, 'x' as c"
    assert empty.run("query", *LOGIN, "-c", sql).output == "a\tb\tc\n1\t\tx\n"
    as_json = empty.run("query", *LOGIN, "-c", sql, "--format", "json").output
    assert json.loads(as_json) == [{"a": 1, "b": None, "c": "x"}]
    assert "'2026-11-23'" in empty.run("query", *LOGIN, "-c", "select date '2026-11-23' d", "--format", "yaml").output


def test_wrong_sql_ends_in_status_1_with_the_servers_words(empty: World, server_port: int) -> None:
    empty.add_member("p1", server_port, with_rest=False)
    result = empty.run("query", *LOGIN, "-m", "p1", "-c", "select nonsense")
    assert result.exit_code == 1
    assert 'column "nonsense" does not exist' in result.output


def test_server_that_is_not_there_ends_in_status_3(empty: World) -> None:
    empty.add_member("p1", free_port(), with_rest=False)
    assert empty.run("query", *LOGIN, "-m", "p1", "-c", "select 1").exit_code == 3


def test_sql_comes_from_a_file_too_but_from_one_place(empty: World, server_port: int) -> None:
    empty.add_member("p1", server_port, with_rest=False)
    arguments = ["query", *LOGIN, "-m", "p1", "-f", "-", "--format", "tsv"]
    assert empty.run(*arguments, stdin="select 2 as n").output == "n\n2\n"
    assert empty.run(*arguments, "-c", "select 1").exit_code == 2
    assert empty.run(*arguments[:-4]).exit_code == 2


def test_columns_of_the_same_name_all_show(empty: World, server_port: int) -> None:
    empty.add_member("p1", server_port, with_rest=False)
    arguments = ["query", *LOGIN, "-m", "p1", "-c", "select 1 as n, 2 as n, 3 as n_2, 4 as n", "--format"]
    assert json.loads(empty.run(*arguments, "json").output) == [{"n": 1, "n_3": 2, "n_2": 3, "n_4": 4}]
    assert empty.run(*arguments, "yaml").output == "- n: 1\n  n_3: 2\n  n_2: 3\n  n_4: 4\n"
    assert empty.run(*arguments, "tsv").output == "n\tn_3\tn_2\tn_4\n1\t2\t3\t4\n"
    pretty = empty.run(*arguments, "pretty").output
    assert "| n | n | n_2 | n |" in pretty
    assert "| 1 | 2 | 3   | 4 |" in pretty
