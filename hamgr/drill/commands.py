"""Command line of the drills: `hamgr demo` and `hamgr drill`."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console

from hamgr.drill.cluster import Plan
from hamgr.drill.demo import progress, show_demo
from hamgr.drill.errors import DrillError
from hamgr.drill.faults import FAULTS, Fault
from hamgr.drill.report import print_outcome, print_summary
from hamgr.drill.run import Outcome, Say, run_drill
from hamgr.drill.session import Session, open_session, plan_for

EXIT_BAD_VERDICT = 1
EXIT_NOT_CARRIED_OUT = 3

_LOG_WIDTH = 140

_DIRECTORY = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Work here and leave the files; otherwise a temporary directory, which stays only after a failure.",
)
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


@dataclass(frozen=True, slots=True)
class Request:
    """What `hamgr drill` was asked for."""

    faults: tuple[Fault, ...]
    on_netns: bool
    ttl_s: int
    json_path: Path | None


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--runs", type=click.IntRange(min=1), default=1, show_default=True, help="Runs of each fault.")
@_TTL
@click.option(
    "--on",
    "place",
    type=click.Choice(["loopback", "netns"]),
    default="loopback",
    show_default=True,
    help="Hosts as ports of this machine, or as network namespaces (root).",
)
@click.option("--random", "at_random", is_flag=True, help="Faults by random choice among the names.")
@click.option("--rounds", type=click.IntRange(min=1), default=10, show_default=True, help="How many, with --random.")
@click.option("--seed", type=int, help="Of the random choice; printed if not given.")
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write outcomes here.")
@_DIRECTORY
def drill(
    names: tuple[str, ...],
    runs: int,
    ttl_s: int,
    place: str,
    at_random: bool,
    rounds: int,
    seed: int | None,
    json_path: Path | None,
    directory: Path | None,
) -> None:
    """Break a cluster on purpose and judge it by an independent client.

    NAME is a fault (all that the place allows, if none is named). Exit 0: every verdict is good; 1: writes
    lost, two primaries or a needless change of leader; 3: a drill could not be carried out.
    """
    console = _console()
    faults = chosen_faults(names, on_netns=place == "netns")
    if at_random:
        seed = random.randrange(2**32) if seed is None else seed
        console.print(f"seed {seed}")
        faults = random_faults(faults, rounds, seed)
    else:
        faults = [fault for fault in faults for _ in range(runs)]
    request = Request(tuple(faults), place == "netns", ttl_s, json_path)
    try:
        with open_session(directory) as session:
            outcomes = _run_all(console, session, request)
    except DrillError as error:
        _fail(console, error)
    print_summary(console, outcomes)
    raise SystemExit(exit_code(outcomes))


def chosen_faults(names: Sequence[str], *, on_netns: bool) -> list[Fault]:
    """Faults by name, or all that the place allows. Raises click.BadParameter, which lists the names."""
    for name in names:
        if name not in FAULTS:
            raise click.BadParameter(f"no fault named {name!r}; there are: {', '.join(FAULTS)}")
        if FAULTS[name].needs_netns and not on_netns:
            raise click.BadParameter(f"{name} needs hosts of their own: --on netns")
    if names:
        return [FAULTS[name] for name in names]
    return [fault for fault in FAULTS.values() if on_netns or not fault.needs_netns]


def random_faults(faults: Sequence[Fault], rounds: int, seed: int) -> list[Fault]:
    """A reproducible sequence of `rounds` faults."""
    choice = random.Random(seed)
    return [choice.choice(faults) for _ in range(rounds)]


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """0 if all are good; a bad verdict weighs more than a drill that was not finished."""
    if any(outcome.verdict is not None and not outcome.is_good for outcome in outcomes):
        return EXIT_BAD_VERDICT
    return 0 if all(outcome.is_good for outcome in outcomes) else EXIT_NOT_CARRIED_OUT


def _run_all(console: Console, session: Session, request: Request) -> list[Outcome]:
    """All faults one after the other, on one cluster as long as it recovers, else on a new one."""
    plan = plan_for(session, on_netns=request.on_netns, ttl_s=request.ttl_s, store_members=3)
    outcomes: list[Outcome] = []
    for number, fault in enumerate(request.faults, start=1):
        with progress(console) as say:
            outcomes.append(_run_one(session, plan, fault, _prefixed(say, f"{number} {fault.name}")))
        print_outcome(console, f"{number}/{len(request.faults)} {fault.title}", outcomes[-1])
        if request.json_path is not None:
            request.json_path.write_text(json.dumps([each.as_json() for each in outcomes], indent=1) + "\n")
        if not outcomes[-1].is_good:
            session.keep_files = True
            console.print(f"  files: {session.directory}", highlight=False)
    return outcomes


def _run_one(session: Session, plan: Plan, fault: Fault, say: Say) -> Outcome:
    try:
        say("the cluster forms")
        outcome = run_drill(session.need_cluster(plan), fault, say)
    except DrillError as error:
        outcome = Outcome(fault.name, plan.ttl_s, None, error=str(error))
    if outcome.verdict is None:
        session.drop_cluster()
    return outcome


def _console() -> Console:
    """Rich's own idea of a log's width, 80, would break the table."""
    console = Console()
    return console if console.is_terminal else Console(width=_LOG_WIDTH)


def _prefixed(say: Say, prefix: str) -> Say:
    return lambda text: say(f"{prefix}: {text}")


def _fail(console: Console, error: DrillError) -> NoReturn:
    console.print(f"[red]not carried out:[/red] {error}", highlight=False)
    raise SystemExit(EXIT_NOT_CARRIED_OUT)
