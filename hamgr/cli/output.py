"""One table value, shown as a table for people or as json, yaml or tsv for programs."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import click
import yaml
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

FORMATS = ("pretty", "tsv", "json", "yaml")
WIDE = 500
"""Columns when nobody looks: a pipe must not get folded cells."""

format_option = click.option(
    "-f", "--format", "fmt", type=click.Choice(FORMATS), default="pretty", show_default=True, help="Output format."
)


@dataclass(frozen=True, slots=True)
class Column:
    """`key` names the value in json and yaml and heads it in tsv; `title` heads it in the table.

    `show` turns a value into what people read; without it text as such, mappings as JSON.
    """

    key: str
    title: str = ""
    right: bool = False
    show: Callable[[Any], str] | None = None
    for_programs: bool = False
    """Left out of the table."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows are mappings by column key; a missing or None value shows as nothing."""

    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    title: str = ""
    footer: Sequence[str] = field(default_factory=tuple)
    """Lines below the table, only for people."""


def render(table: Table, fmt: str) -> str:
    """The table in one of FORMATS, without a newline at the end. json and yaml leave out what is None."""
    if fmt == "pretty":
        return _pretty(table)
    if fmt == "tsv":
        return _tsv(table)
    keys = [column.key for column in table.columns]
    rows = [{key: row[key] for key in keys if row.get(key) is not None} for row in table.rows]
    return render_value(rows, fmt)


def render_all(tables: Sequence[Table], fmt: str) -> str:
    """Tables of the same columns: below each other for people, as one for programs."""
    if fmt == "pretty":
        return "\n".join(_pretty(table) for table in tables)
    return render(Table(tables[0].columns, [row for table in tables for row in table.rows]), fmt)


def render_value(value: Any, fmt: str) -> str:
    """Plain values as json, else as yaml."""
    if fmt == "json":
        return json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return yaml.safe_dump(value, default_flow_style=False, allow_unicode=True, sort_keys=False).rstrip("\n")


def human_bytes(count: int) -> str:
    """A number of bytes in the largest unit of which there is at least one: 17 B, 4.2 MiB."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(amount) < 1024:
            return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str) if value else ""
    return str(value)


def _cell(column: Column, row: Mapping[str, Any]) -> str:
    value = row.get(column.key)
    if value is None or column.show is None:
        return _text(value)
    return column.show(value)


def _pretty(table: Table) -> str:
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDE
    shown = RichTable(title=table.title or None, box=box.ASCII2, title_style="bold", title_justify="left")
    columns = [column for column in table.columns if not column.for_programs]
    for column in columns:
        shown.add_column(column.title or column.key, justify="right" if column.right else "left", overflow="fold")
    for row in table.rows:
        shown.add_row(*(Text(_cell(column, row)) for column in columns))
    text = io.StringIO()
    Console(file=text, width=width, color_system=None, highlight=False).print(shown)
    lines = [line.rstrip() for line in text.getvalue().rstrip("\n").split("\n")]
    return "\n".join([*lines, *table.footer])


def _tsv(table: Table) -> str:
    def plain(value: Any) -> str:
        return _text(value).replace("\t", " ").replace("\n", " ")

    lines = ["\t".join(column.key for column in table.columns)]
    lines += ["\t".join(plain(row.get(column.key)) for column in table.columns) for row in table.rows]
    return "\n".join(lines)
