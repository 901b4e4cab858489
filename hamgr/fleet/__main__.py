"""Command line: `python -m hamgr.fleet`, as scripts/fleet calls it."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console

from hamgr.drill.accounts import own, server_account
from hamgr.drill.archive import replace_file, why_not_writable
from hamgr.drill.conditions import this_machine, version_of
from hamgr.drill.demo import progress
from hamgr.drill.errors import DrillError
from hamgr.drill.hosts import loopback_hosts
from hamgr.drill.network import Network
from hamgr.drill.store import Store
from hamgr.fleet.document import document_of, pair
from hamgr.fleet.findings import Findings, Step
from hamgr.fleet.survey import Plan, survey
from hamgr.settings import parse_dynamic
from hamgr.version import VERSION

EXIT_BAD = 1
EXIT_NOT_CARRIED_OUT = 3
ETCD_NAMES = ("etcd1", "etcd2", "etcd3")
_LOG_WIDTH = 140

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option(
    "--clusters",
    "sizes",
    default="3,10,33,67,100",
    show_default=True,
    help="How many, step by step; each has three agents.",
)
@click.option("--ttl", "ttl_s", type=click.IntRange(min=2), default=5, show_default=True, help="Lease, in s.")
@click.option("--loop-wait", "loop_wait_s", type=click.IntRange(min=1), default=1, show_default=True, help="In s.")
@click.option("--window", "window_s", type=click.FloatRange(min=1), default=30.0, show_default=True, help="In s.")
@click.option("--elections", type=click.IntRange(min=1), default=10, show_default=True, help="Single ones per step.")
@click.option("--per-process", type=click.IntRange(min=1), default=10, show_default=True, help="Agents in a process.")
@click.option("--on", "place", type=click.Choice(["loopback", "netns"]), default="netns", show_default=True)
@click.option("--spread", is_flag=True, help="Agents begin with different etcd members.")
@click.option("--json", "json_path", type=_FILE, help="Write what was found here.")
@click.option("--markdown", "markdown_path", type=_FILE, help="Write the page here.")
def main(
    sizes: str,
    ttl_s: int,
    loop_wait_s: int,
    window_s: float,
    elections: int,
    per_process: int,
    place: str,
    spread: bool,
    json_path: Path | None,
    markdown_path: Path | None,
) -> None:
    """Measure how many light agents one etcd of three members carries.

    Exit 0: no lease was lost and every lead was taken; 1: not so; 3: it could not be carried out.
    """
    plan = Plan(
        sizes=_sizes(sizes),
        ttl_s=ttl_s,
        loop_wait_s=loop_wait_s,
        window_s=window_s,
        elections=elections,
        per_process=per_process,
        spread=spread,
    )
    _check_timings(plan)
    for path in (json_path, markdown_path):
        if path is not None and (refusal := why_not_writable(path)):
            raise click.UsageError(refusal)
    console = Console() if Console().is_terminal else Console(width=_LOG_WIDTH)
    try:
        findings = _carry_out(console, plan, place)
    except DrillError as error:
        console.print(f"[red]not carried out:[/red] {error}", highlight=False)
        raise SystemExit(EXIT_NOT_CARRIED_OUT) from error
    if json_path is not None:
        replace_file(json_path, json.dumps(findings.as_json(), indent=1) + "\n")
    page = document_of(findings)
    if markdown_path is not None:
        replace_file(markdown_path, page)
    else:
        console.print(page, highlight=False, markup=False)
    raise SystemExit(0 if findings.is_good else EXIT_BAD)


def _sizes(text: str) -> tuple[int, ...]:
    """Raises click.BadParameter."""
    parts = [part.strip() for part in text.split(",")]
    numbers = tuple(int(part) for part in parts if part.isdecimal())
    if len(numbers) != len(parts) or not all(numbers) or list(numbers) != sorted(set(numbers)):
        raise click.BadParameter(f"{text!r}: give growing numbers of clusters, as in 3,10,33", param_hint="--clusters")
    return numbers


def _check_timings(plan: Plan) -> None:
    """Raises click.UsageError for what agents would not take as it is: nobody would know what was run."""
    settings, problems = parse_dynamic({"ttl": plan.ttl_s, "loop_wait": plan.loop_wait_s})
    policy = settings.policy()
    if (policy.ttl_s, policy.loop_wait_s) != (plan.ttl_s, plan.loop_wait_s):
        raise click.UsageError("; ".join(map(str, problems)))


def _carry_out(console: Console, plan: Plan, place: str) -> Findings:
    began_at = datetime.now(UTC).isoformat(timespec="seconds")
    began = time.monotonic()
    steps: list[Step] = []

    def note(step: Step) -> None:
        steps.append(step)
        console.print(_line(step), highlight=False, soft_wrap=True)

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ended_by = ""
    try:
        with _room() as room, _store(place, room) as store, progress(console) as say:
            asyncio.run(survey(store, plan, own(room / "agents", None), say, note))
    except DrillError as error:
        if not steps:
            raise
        ended_by = str(error)
        console.print(f"[red]ended early:[/red] {error}", highlight=False)
    return Findings(
        hamgr=VERSION,
        etcd=version_of(["etcd", "--version"]),
        machine=this_machine(),
        place=place,
        began_at=began_at,
        command=shlex.join(["scripts/fleet", *sys.argv[1:]]),
        seconds=time.monotonic() - began,
        members=plan.members,
        ttl_s=plan.ttl_s,
        loop_wait_s=plan.loop_wait_s,
        spread=plan.spread,
        steps=tuple(steps),
        ended_by=ended_by,
    )


def _line(step: Step) -> str:
    """A step in one line, while the next one runs."""
    shares = ", ".join(f"{member.cpu_share * 100:.0f}" for member in step.busy.load.members)
    return (
        f"{step.agents} agents: etcd {shares} % of a core, {step.busy.load.proposals_per_s:.1f} proposals/s, "
        f"renewals {pair(step.busy.renewals)}, vacancy {pair(step.single.vacancy, worst=True)}, "
        f"lost leases {step.lost_leases}, machine idle {step.busy.load.machine_idle_share * 100:.0f} %"
    )


@contextmanager
def _room() -> Iterator[Path]:
    """A directory that goes again; with its logs it stays where the survey failed."""
    room = Path(tempfile.mkdtemp(prefix="hamgr-fleet-"))
    room.chmod(0o755)
    try:
        yield room
    except DrillError:
        raise
    except BaseException:
        shutil.rmtree(room, ignore_errors=True)
        raise
    else:
        shutil.rmtree(room, ignore_errors=True)


@contextmanager
def _store(place: str, room: Path) -> Iterator[Store]:
    """An etcd of three members that accepts writes. Raises DrillError."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if place == "netns" and os.geteuid() != 0:
        raise DrillError("network namespaces take root: run as root, or with --on loopback")
    account = server_account()
    home = own(room / "etcd", None)
    network = Network(ETCD_NAMES, home, account) if place == "netns" else None
    hosts = loopback_hosts(ETCD_NAMES, home, account) if network is None else network.hosts
    try:
        store = Store(list(hosts.values()), own(room / "logs", None), set())
        store.start()
        yield store
    finally:
        if network is not None:
            network.close()
        for host in hosts.values():
            host.close()


if __name__ == "__main__":
    main()
