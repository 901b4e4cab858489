"""`list`, `topology`, `history`, `version`: what there is, changing nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

import click

from hamgr.cli.config import read_config
from hamgr.cli.connect import Site, connect, installed_version
from hamgr.cli.context import Globals
from hamgr.cli.members import member_rows, member_table, topology_table
from hamgr.cli.output import Column, Table, format_option, render, render_all
from hamgr.cli.rest import ask_all
from hamgr.cli.targets import pick_members, split_names

WATCH_S = 2.0

watch_options = (
    click.option("-W", "is_watching", is_flag=True, help=f"Show again every {WATCH_S:.0f} seconds."),
    click.option("-w", "--watch", "watch_s", type=click.FloatRange(min=0.1), help="Show again every so many seconds."),
)


@click.command("list")
@click.argument("cluster_names", nargs=-1)
@click.option("-e", "--extended", is_flag=True, help="All columns, also those that nothing stands in.")
@click.option("-t", "--timestamp", is_flag=True, help="Print the time above the table.")
@format_option
@watch_options[0]
@watch_options[1]
@click.pass_obj
def list_members(
    globals_: Globals,
    cluster_names: tuple[str, ...],
    extended: bool,
    timestamp: bool,
    fmt: str,
    is_watching: bool,
    watch_s: float | None,
) -> None:
    """Show the members of a cluster, each as it says of itself."""
    sites = [connect(globals_, name) for name in cluster_names or (None,)]

    def show() -> str:
        shown = render_all([_member_table(site, extended=extended) for site in sites], fmt)
        return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n{shown}" if timestamp and fmt == "pretty" else shown

    _repeat(show, is_watching=is_watching, watch_s=watch_s)


@click.command()
@click.argument("cluster_names", nargs=-1)
@watch_options[0]
@watch_options[1]
@click.pass_obj
def topology(globals_: Globals, cluster_names: tuple[str, ...], is_watching: bool, watch_s: float | None) -> None:
    """Show the members as a tree, the leader first."""
    sites = [connect(globals_, name) for name in cluster_names or (None,)]

    def show() -> str:
        texts = []
        for site in sites:
            view = site.read_or_recall()
            rows = member_rows(view, ask_all(site.rest, view.members))
            texts.append(render(topology_table(view, rows, site.scope), "pretty"))
        return "\n".join(texts)

    _repeat(show, is_watching=is_watching, watch_s=watch_s)


@click.command()
@click.argument("cluster_name", required=False)
@format_option
@click.pass_obj
def history(globals_: Globals, cluster_name: str | None, fmt: str) -> None:
    """Show where each timeline ended and who led next."""
    view = connect(globals_, cluster_name).read_view()
    columns = (
        Column("TL", right=True),
        Column("LSN", right=True),
        Column("Reason"),
        Column("Timestamp"),
        Column("New Leader"),
    )
    rows = [
        {
            "TL": line.timeline,
            "LSN": int(line.lsn),
            "Reason": line.reason,
            "Timestamp": line.timestamp,
            "New Leader": line.new_leader,
        }
        for line in view.history
    ]
    click.echo(render(Table(columns, rows), fmt))


@click.command()
@click.argument("names", nargs=-1, metavar="[CLUSTER] [MEMBERS]...")
@click.pass_obj
def version(globals_: Globals, names: tuple[str, ...]) -> None:
    """Show this program's version; with a cluster or members named, theirs too."""
    click.echo(f"hamgr version {installed_version()}")
    if not names:
        return
    scope, member_names = split_names(names, read_config(globals_).scope)
    site = connect(globals_, scope)
    members = pick_members(site.read_view(), member_names)
    answers = ask_all(site.rest, members)
    click.echo("")
    for member in sorted(members, key=lambda member: member.name):
        body = answers.get(member.name)
        theirs = (body.get("hamgr") or {}).get("version", "") if body else ""
        server = int((body or {}).get("server_version") or member.server_version)
        silent = "" if body else " (REST does not answer; as announced in etcd)"
        click.echo(f"{member.name}: hamgr {theirs or member.version} PostgreSQL {_server_version(server)}{silent}")


def _server_version(number: int) -> str:
    """150013 as `15.13`."""
    return f"{number // 10000}.{number % 10000}" if number else "unknown"


def _member_table(site: Site, *, extended: bool) -> Table:
    view = site.read_or_recall()
    rows = member_rows(view, ask_all(site.rest, view.members))
    return member_table(view, rows, site.scope, extended=extended)


def _repeat(show: Callable[[], str], *, is_watching: bool, watch_s: float | None) -> None:
    """Print once, or over and over until interrupted."""
    if not is_watching and watch_s is None:
        click.echo(show())
        return
    while True:
        text = show()
        click.clear()
        click.echo(text)
        time.sleep(watch_s or WATCH_S)
