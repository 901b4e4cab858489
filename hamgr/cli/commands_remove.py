"""`remove`: a cluster's keys out of etcd, after patronictl's three questions."""

from __future__ import annotations

import click

from hamgr.cli.connect import connect
from hamgr.cli.context import Globals
from hamgr.cli.errors import Refused
from hamgr.cli.members import member_rows, member_table
from hamgr.cli.output import format_option, render
from hamgr.cli.rest import ask_all

ACKNOWLEDGEMENT = "Yes I am aware"


@click.command()
@click.argument("cluster_name", required=False)
@format_option
@click.pass_obj
def remove(globals_: Globals, cluster_name: str | None, fmt: str) -> None:
    """Remove a cluster's keys from etcd: its configuration, history and records. Servers are left as they are."""
    site = connect(globals_, cluster_name)
    view = site.read_view()
    click.echo(render(member_table(view, member_rows(view, ask_all(site.rest, view.members)), site.scope), fmt))
    if click.prompt("Please confirm the cluster name to remove") != site.scope:
        raise Refused("cluster names do not match")
    question = f'You are about to remove all information in etcd for {site.scope}, please type: "{ACKNOWLEDGEMENT}"'
    if click.prompt(question) != ACKNOWLEDGEMENT:
        raise Refused(f'you did not type "{ACKNOWLEDGEMENT}"')
    if view.leader is not None:
        named = click.prompt("This cluster currently is healthy. Please specify the leader name to continue")
        if named != view.leader.name:
            raise Refused("you did not specify the current leader")
    site.run(lambda store: store.delete_all())
    click.echo(f"Success: cluster {site.scope} removed from etcd")
