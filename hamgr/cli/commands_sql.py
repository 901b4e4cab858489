"""`query`: straight to a member's server."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import psycopg
from psycopg.types.string import TextLoader

from hamgr.cli.connect import connect
from hamgr.cli.context import Globals
from hamgr.cli.errors import Refused, Unavailable
from hamgr.cli.output import FORMATS, Column, Table, render, render_value
from hamgr.cli.targets import address_of, member_option, pick_one, role_option

CONNECT_TIMEOUT_S = 5
BEYOND_PYTHON = ("date", "timestamp", "timestamptz", "interval")
"""Types with values that Python has none for (infinity, years after 9999): shown as the server writes them."""


@click.command()
@click.argument("cluster_name", required=False)
@click.option("--format", "fmt", type=click.Choice(FORMATS), default="tsv", show_default=True, help="Output format.")
@click.option("-f", "--file", help="File with the SQL; - for stdin.")
@click.option("-c", "--command", help="The SQL.")
@click.option("--password", "ask_password", is_flag=True, help="Ask for the password.")
@click.option("-U", "--username", help="User name.")
@click.option("-d", "--dbname", help="Database.")
@role_option
@member_option
@click.option("-W", "is_watching", is_flag=True, help="Again every 2 seconds.")
@click.option("-w", "--watch", "watch_s", type=click.FloatRange(min=0.1), help="Again every so many seconds.")
@click.pass_obj
def query(
    globals_: Globals,
    cluster_name: str | None,
    fmt: str,
    file: str | None,
    command: str | None,
    ask_password: bool,
    username: str | None,
    dbname: str | None,
    role: str | None,
    member: str | None,
    is_watching: bool,
    watch_s: float | None,
) -> None:
    """Run SQL on a member; without -r or -m on the leader."""
    sql = _sql(command, file)
    site = connect(globals_, cluster_name)
    password = click.prompt("Password", hide_input=True) if ask_password else None
    while True:
        host, port = address_of(pick_one(site.read_view(), role, member))
        login = {"host": host, "port": port, "user": username, "dbname": dbname, "password": password}
        table = _run(sql, {key: value for key, value in login.items() if value is not None})
        # Unlike in other tables, a null is a value here, and programs are to see it.
        click.echo(render_value(list(table.rows), fmt) if fmt in ("json", "yaml") else render(table, fmt))
        if not is_watching and watch_s is None:
            return
        time.sleep(watch_s or 2.0)


def _sql(command: str | None, file: str | None) -> str:
    if (command is None) == (file is None):
        raise click.UsageError("give the SQL by either --command or --file")
    if command is not None:
        return command
    try:
        return sys.stdin.read() if file == "-" else Path(str(file)).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise Refused(f"cannot read {file}: {problem}") from problem


def _run(sql: str, login: dict[str, Any]) -> Table:
    """The result's rows; a statement without rows gives its command tag. Raises Unavailable or Refused."""
    try:
        connection = psycopg.connect(**login, connect_timeout=CONNECT_TIMEOUT_S, autocommit=True)
    except psycopg.OperationalError as problem:
        raise Unavailable(f"cannot connect: {problem}") from problem
    with connection:
        for name in BEYOND_PYTHON:
            connection.adapters.register_loader(name, TextLoader)
        try:
            cursor = connection.execute(sql.encode())
            found = cursor.fetchall() if cursor.description is not None else []
        except psycopg.Error as problem:
            raise Refused(str(problem).strip()) from problem
        if cursor.description is None:
            return Table((Column("status"),), [{"status": cursor.statusmessage or ""}])
        names = [column.name for column in cursor.description]
        keys = _unique(names)
        rows = [dict(zip(keys, map(_plain, row), strict=True)) for row in found]
        return Table([Column(key, title=name) for key, name in zip(keys, names, strict=True)], rows)


def _unique(names: Sequence[str]) -> list[str]:
    """Names of columns as keys: count, count_2. A column that has such a name of its own keeps it."""
    own, keys = set(names), dict[str, None]()
    for name in names:
        key, number = name, 2
        while key in keys or (key != name and key in own):
            key, number = f"{name}_{number}", number + 1
        keys[key] = None
    return list(keys)


def _plain(value: Any) -> Any:
    """What json and yaml can hold; dates, numerics and the like as PostgreSQL's text would read."""
    return value if isinstance(value, str | int | float | None) else str(value)
