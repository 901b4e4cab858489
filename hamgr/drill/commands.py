"""Command line of the drills: `hamgr demo` and `hamgr drill`."""

from __future__ import annotations

import random
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console

from hamgr.drill.accounts import server_account
from hamgr.drill.archive import BadReport, Report, read_json, why_not_writable, write_json
from hamgr.drill.compose_project import build_images
from hamgr.drill.conditions import Conditions, conditions_of
from hamgr.drill.demo import progress, show_demo
from hamgr.drill.errors import DrillError
from hamgr.drill.evidence import keep_evidence
from hamgr.drill.fault import Fault
from hamgr.drill.faults import FAULTS, UnknownFault, fault_named
from hamgr.drill.page import write_page
from hamgr.drill.plan import Place, Plan, Via
from hamgr.drill.report import print_line, print_outcome, print_summary
from hamgr.drill.run import Outcome, Say, run_drill
from hamgr.drill.session import Session, open_session
from hamgr.drill.soak import random_faults

EXIT_BAD_VERDICT = 1
EXIT_NOT_CARRIED_OUT = 3

_LOG_WIDTH = 140

_DIRECTORY = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Work here and leave the files; otherwise a temporary directory, which stays only after a failure.",
)
_FILE = click.Path(path_type=Path, dir_okay=False)
_TTL = click.option("--ttl", "ttl_s", type=click.IntRange(min=2), default=5, show_default=True, help="Lease, in s.")


@click.command()
@click.option("--keep", is_flag=True, help="Leave the cluster up and say how to look at it.")
@_TTL
@_DIRECTORY
def demo(keep: bool, ttl_s: int, directory: Path | None) -> None:
    """Form a cluster on this machine, switch over, kill, and show what a client notices.

    Exit 0 only if no acknowledged write was lost and no two members were primary.
    """
    console = _console()
    try:
        with open_session(directory) as session:
            try:
                good = show_demo(console, session, ttl_s, keep)
            except DrillError:
                session.keep_files = True
                raise
    except DrillError as error:
        _fail(console, error)
    raise SystemExit(0 if good else EXIT_BAD_VERDICT)


def _writable(context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    """A path at which a file can be made: to be known before the drills, not after them."""
    refusal = why_not_writable(path) if path is not None else ""
    if refusal:
        raise click.BadParameter(refusal)
    return path


@dataclass(frozen=True, slots=True)
class Request:
    """What `hamgr drill` was asked for. `plan`: what to build, but for its directory."""

    faults: tuple[Fault, ...]
    plan: Plan
    conditions: Conditions
    json_path: Path | None
    html_path: Path | None
    is_soak: bool


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--runs", type=click.IntRange(min=1), default=1, show_default=True, help="Runs of each fault.")
@_TTL
@click.option(
    "--on",
    "place",
    type=click.Choice([each.value for each in Place]),
    default=Place.LOOPBACK.value,
    show_default=True,
    help="Hosts as ports of this machine, as network namespaces (root), or as containers (root, Docker).",
)
@click.option(
    "--via",
    type=click.Choice([each.value for each in Via]),
    default=Via.DIRECT.value,
    show_default=True,
    help="How the application reaches the primary; other than direct with --on compose only.",
)
@click.option(
    "--sync", type=click.Choice(["off", "on", "quorum"]), default="off", show_default=True, help="synchronous_mode."
)
@click.option("--hold", "hold_s", type=click.FloatRange(min=0), help="Keep each fault up for so long, in s.")
@click.option("--random", "at_random", is_flag=True, help="Faults by random choice among the names.")
@click.option("--rounds", type=click.IntRange(min=1), default=10, show_default=True, help="How many, with --random.")
@click.option("--seed", type=int, help="Of the random choice; printed if not given.")
@click.option("--json", "json_path", type=_FILE, callback=_writable, help="Write outcomes here.")
@click.option("--html", "html_path", type=_FILE, callback=_writable, help="Write a page with pictures here.")
@click.option(
    "--report", "report_path", type=_FILE, help="Break nothing: make the page of --html from a file of --json."
)
@_DIRECTORY
def drill(
    names: tuple[str, ...],
    runs: int,
    ttl_s: int,
    place: str,
    via: str,
    sync: str,
    hold_s: float | None,
    at_random: bool,
    rounds: int,
    seed: int | None,
    json_path: Path | None,
    html_path: Path | None,
    report_path: Path | None,
    directory: Path | None,
) -> None:
    """Break a cluster on purpose and judge it by an independent client.

    NAME is a fault (all that the place allows, if none is named), `A+B` two at once, `again:A` the same again on
    the next primary as soon as it is writable. Exit 0: every verdict is good; 1: writes lost, two primaries, no
    writes while a fault lasted, or a change of leader without need; 3: a drill could not be carried out.
    """
    if report_path is not None:
        _show_again(report_path, html_path, names)
        return
    console = _console()
    if via != Via.DIRECT.value and place != Place.COMPOSE.value:
        raise click.BadParameter(f"--via {via} needs --on compose: there is no {via} elsewhere")
    faults = chosen_faults(names, Place(place), at_random=at_random)
    if at_random:
        seed = random.randrange(2**32) if seed is None else seed
        console.print(f"seed {seed}")
        faults = random_faults(faults, rounds, seed, synchronous=sync != "off")
    else:
        faults = [fault for fault in faults for _ in range(runs)]
    if hold_s is not None:
        faults = [replace(fault, hold_s=hold_s, hold_ttls=0.0) for fault in faults]
    plan = replace(plan_for(faults, Place(place), ttl_s=ttl_s, synchronous_mode=sync), via=Via(via))
    try:
        with open_session(directory, plan.place, disks=plan.disks, clocks=plan.clocks) as session:
            if plan.place is Place.COMPOSE:
                console.print("- images are built as far as they are not those of the sources")
                build_images()
            conditions = conditions_of(plan, shlex.join(["hamgr", *sys.argv[1:]]), seed if at_random else None)
            request = Request(tuple(faults), plan, conditions, json_path, html_path, at_random)
            outcomes = _run_all(console, session, request)
    except DrillError as error:
        _fail(console, error)
    raise SystemExit(exit_code(outcomes))


def _show_again(report_path: Path, html_path: Path | None, names: Sequence[str]) -> None:
    """The page of drills that were carried out before. Raises click.UsageError."""
    if html_path is None or names:
        raise click.UsageError("--report FILE takes no fault: it makes the page of --html FILE from a file of --json")
    try:
        write_page(html_path, read_json(report_path))
    except BadReport as error:
        raise click.UsageError(str(error)) from error


def chosen_faults(names: Sequence[str], place: Place, *, at_random: bool = False) -> list[Fault]:
    """Faults by name, or all that the place allows. Raises click.BadParameter, which lists the names.

    A random choice without names leaves out clocks: all its rounds would run on preloaded ones.
    """
    faults = [_by_name(name) for name in names]
    for fault in faults:
        if place not in fault.places:
            raise click.BadParameter(f"{fault.name} {_where_instead(fault)}")
    if faults:
        return faults
    return [fault for fault in FAULTS.values() if place in fault.places and not (at_random and fault.needs_clocks)]


def _where_instead(fault: Fault) -> str:
    if not fault.places:
        return "cannot happen at once: its parts belong to different places"
    return (
        f"can be drilled elsewhere only: {' or '.join(f'--on {each.value}' for each in Place if each in fault.places)}"
    )


def _by_name(name: str) -> Fault:
    try:
        return fault_named(name)
    except UnknownFault as error:
        raise click.BadParameter(str(error)) from error


def plan_for(faults: Sequence[Fault], place: Place, *, ttl_s: int, synchronous_mode: str) -> Plan:
    """A cluster on which each of the faults can strike; disks and clocks only where one needs them: they cost time."""
    return Plan(
        directory=Path(),
        account=None if place is Place.COMPOSE else server_account(),
        place=place,
        ttl_s=ttl_s,
        synchronous_mode=synchronous_mode,
        disks=any(fault.needs_disks for fault in faults),
        clocks=any(fault.needs_clocks for fault in faults),
    )


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """0 if all are good; a bad verdict weighs more than a drill that was not finished."""
    if any(outcome.verdict is not None and not outcome.is_good for outcome in outcomes):
        return EXIT_BAD_VERDICT
    return 0 if all(outcome.is_good for outcome in outcomes) else EXIT_NOT_CARRIED_OUT


def _run_all(console: Console, session: Session, request: Request) -> list[Outcome]:
    """All faults one after the other, on one cluster as long as all goes well, after a bad run on a new one."""
    outcomes: list[Outcome] = []
    try:
        for number, fault in enumerate(request.faults, start=1):
            with progress(console, quiet=request.is_soak) as say:
                outcomes.append(_run_one(session, request.plan, fault, _prefixed(say, f"{number} {fault.name}")))
            _tell(console, request, number, outcomes)
            if not outcomes[-1].is_good:
                _keep_evidence(console, session, f"{number:03}-{fault.name}", outcomes[-1])
                session.drop_cluster()
    finally:
        # Of a soak that was interrupted, too.
        print_summary(console, outcomes)
        if request.html_path is not None:
            write_page(request.html_path, Report(request.conditions, tuple(outcomes)))
        for folder in session.evidence:
            console.print(f"failed: {folder}", highlight=False, soft_wrap=True)
    return outcomes


def _tell(console: Console, request: Request, number: int, outcomes: Sequence[Outcome]) -> None:
    """The last outcome to whoever watches, all of them to the file."""
    fault, place = request.faults[number - 1], f"{number}/{len(request.faults)}"
    if request.is_soak:
        print_line(console, f"{place} {fault.name}", outcomes[-1])
    else:
        print_outcome(console, f"{place} {fault.title}", outcomes[-1])
    if request.json_path is not None:
        write_json(request.json_path, Report(request.conditions, tuple(outcomes)))


def _keep_evidence(console: Console, session: Session, name: str, outcome: Outcome) -> None:
    folder = session.new_evidence(name)
    keep_evidence(folder, session.cluster, outcome)
    console.print(f"  all of it: {folder}", highlight=False, soft_wrap=True)


def _run_one(session: Session, plan: Plan, fault: Fault, say: Say) -> Outcome:
    try:
        say("the cluster forms")
        return run_drill(session.need_cluster(plan), fault, say)
    except DrillError as error:
        return Outcome(fault.name, plan.ttl_s, None, error=str(error), title=fault.title)


def _console() -> Console:
    """Rich's own idea of a log's width, 80, would break the table."""
    console = Console()
    return console if console.is_terminal else Console(width=_LOG_WIDTH)


def _prefixed(say: Say, prefix: str) -> Say:
    return lambda text: say(f"{prefix}: {text}")


def _fail(console: Console, error: DrillError) -> NoReturn:
    console.print(f"[red]not carried out:[/red] {error}", highlight=False)
    raise SystemExit(EXIT_NOT_CARRIED_OUT)
