"""`show-config` and `edit-config`: the dynamic configuration, checked before it is written."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from hamgr.cli.connect import connect
from hamgr.cli.context import Globals
from hamgr.cli.errors import Refused
from hamgr.cli.values import as_yaml, assignments, difference, patched, read_mapping
from hamgr.core.cluster import ClusterView
from hamgr.settings import parse_dynamic


@click.command("show-config")
@click.argument("cluster_name", required=False)
@click.pass_obj
def show_config(globals_: Globals, cluster_name: str | None) -> None:
    """Show the dynamic configuration as it is kept in etcd, in YAML."""
    click.echo(as_yaml(present_values(connect(globals_, cluster_name).read_view())), nl=False)


@click.command("edit-config")
@click.argument("cluster_name", required=False)
@click.option("-s", "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Set a key; null takes it away.")
@click.option("-p", "--pg", "parameters", multiple=True, metavar="NAME=VALUE", help="Set a PostgreSQL parameter.")
@click.option("--apply", "apply_file", metavar="FILE", help="Lay a YAML file over the configuration; - for stdin.")
@click.option("--replace", "replace_file", metavar="FILE", help="Replace the configuration by a YAML file.")
@click.option("-q", "--quiet", is_flag=True, help="Show no difference.")
@click.option("--force", is_flag=True, help="Do not ask.")
@click.pass_obj
def edit_config(
    globals_: Globals,
    cluster_name: str | None,
    settings: tuple[str, ...],
    parameters: tuple[str, ...],
    apply_file: str | None,
    replace_file: str | None,
    quiet: bool,
    force: bool,
) -> None:
    """Change the dynamic configuration; without options in an editor. It is checked before it is written."""
    site = connect(globals_, cluster_name)
    view = site.read_view()
    is_unreadable = view.config is not None and view.config.values is None
    before = {} if replace_file is not None and is_unreadable else present_values(view)
    try:
        after = _changed(before, settings, parameters, apply_file, replace_file)
    except ValueError as problem:
        raise Refused(str(problem)) from problem
    shown = difference(before, after)
    if not shown:
        click.echo("Not changed")
        return
    if not quiet:
        click.echo(_coloured(shown))
    refuse_wrong(after)
    if not force:
        click.confirm("Apply these changes?", abort=True)
    site.put_config(after, view.config_revision)
    click.echo("Configuration changed")


def present_values(view: ClusterView) -> dict[str, Any]:
    """The dynamic configuration of a view. Raises Refused when there is none, or none that can be read."""
    if view.config is None:
        raise Refused("there is no configuration in etcd: the cluster is not initialized, or another scope is meant")
    if view.config.values is None:
        raise Refused(
            "the configuration in etcd cannot be read: it is not a JSON object",
            "`hamgr edit-config --replace FILE` writes a new one",
        )
    return dict(view.config.values)


def refuse_wrong(values: Mapping[str, Any]) -> None:
    """Raises Refused if the configuration has errors; warnings are printed."""
    _, problems = parse_dynamic(values)
    for problem in problems:
        click.echo(str(problem), err=True)
    if any(problem.is_error for problem in problems):
        raise Refused("the configuration has errors, nothing was written")


def _changed(
    before: Mapping[str, Any],
    settings: tuple[str, ...],
    parameters: tuple[str, ...],
    apply_file: str | None,
    replace_file: str | None,
) -> dict[str, Any]:
    after = dict(before)
    if replace_file is not None:
        after = read_mapping(_text_of(replace_file), replace_file)
    if apply_file is not None:
        after = patched(after, read_mapping(_text_of(apply_file), apply_file))
    if settings or parameters:
        after = patched(after, assignments(settings, parameters))
    if replace_file is None and apply_file is None and not settings and not parameters:
        edited = click.edit(as_yaml(before), extension=".yaml", require_save=True)
        after = dict(before) if edited is None else read_mapping(edited, "the edited text")
    return after


def _text_of(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise ValueError(f"cannot read {file}: {problem}") from problem


def _coloured(diff: str) -> str:
    colours = {"+": "green", "-": "red", "@": "cyan"}
    return "\n".join(click.style(line, fg=colours.get(line[:1])) for line in diff.split("\n"))
