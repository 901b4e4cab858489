"""`failovers`: the records of past changes of leader."""

from __future__ import annotations

import click

from hamgr.cli.connect import connect
from hamgr.cli.context import Globals
from hamgr.cli.errors import Refused
from hamgr.cli.output import format_option, render, render_value
from hamgr.cli.timeline import record_text, records_table

KEPT = 50


@click.command()
@click.argument("term", required=False, type=click.IntRange(min=1))
@click.option("-n", "--limit", type=click.IntRange(min=1, max=KEPT), default=20, show_default=True)
@format_option
@click.pass_obj
def failovers(globals_: Globals, term: int | None, limit: int, fmt: str) -> None:
    """Show past changes of leader, newest first; with TERM, one of them stage by stage."""
    records = connect(globals_).records(KEPT)
    if term is None:
        if fmt in ("json", "yaml"):
            click.echo(render_value(records[:limit], fmt))
        else:
            click.echo(render(records_table(records[:limit]), fmt))
        return
    found = [record for record in records if record.get("term") == term]
    if not found:
        kept = ", ".join(str(record.get("term")) for record in records) or "none"
        raise Refused(f"no record of term {term}; terms on record: {kept}")
    if fmt == "pretty":
        click.echo(record_text(found[0]))
    elif fmt == "tsv":
        click.echo(render(records_table(found), fmt))
    else:
        click.echo(render_value(found[0], fmt))
