"""`pause` and `resume`: automatic changes of leader off and on, by the dynamic configuration."""

from __future__ import annotations

import time

import click

from hamgr.cli.commands_config import present_values
from hamgr.cli.connect import Site, connect
from hamgr.cli.context import Globals
from hamgr.cli.errors import Refused, Unavailable
from hamgr.cli.rest import ask_all
from hamgr.cli.values import patched

WAIT_S = 60.0
POLL_S = 0.25

wait_option = click.option("--wait", "is_waiting", is_flag=True, help="Wait until all members have taken notice.")


@click.command()
@click.argument("cluster_name", required=False)
@wait_option
@click.pass_obj
def pause(globals_: Globals, cluster_name: str | None, is_waiting: bool) -> None:
    """Turn automatic failover off: servers are left as they are."""
    _set_pause(connect(globals_, cluster_name), is_paused=True, is_waiting=is_waiting)


@click.command()
@click.argument("cluster_name", required=False)
@wait_option
@click.pass_obj
def resume(globals_: Globals, cluster_name: str | None, is_waiting: bool) -> None:
    """Turn automatic failover on again."""
    _set_pause(connect(globals_, cluster_name), is_paused=False, is_waiting=is_waiting)


def _set_pause(site: Site, *, is_paused: bool, is_waiting: bool) -> None:
    view = site.read_view()
    values = present_values(view)
    if bool(values.get("pause")) is is_paused:
        raise Refused(f"cluster {site.scope} is {'already' if is_paused else 'not'} paused")
    site.put_config(patched(values, {"pause": True if is_paused else None}), view.config_revision)
    if is_waiting:
        _wait_until_noticed(site, is_paused=is_paused)
    click.echo(f"Success: cluster management is {'paused' if is_paused else 'resumed'}")


def _wait_until_noticed(site: Site, *, is_paused: bool) -> None:
    what = "pause" if is_paused else "resume"
    click.echo(f"'{what}' request sent, waiting until it is recognized by all members")
    ends = time.monotonic() + WAIT_S
    left: list[str] = []
    while time.monotonic() < ends:
        members = site.read_view().members
        bodies = ask_all(site.rest, members)
        left = [m.name for m in members if bool(bodies.get(m.name, {"pause": not is_paused}).get("pause")) != is_paused]
        if not left:
            return
        time.sleep(POLL_S)
    raise Unavailable(f"not yet noticed by {', '.join(sorted(left))}", "the change is written; look at their logs")
