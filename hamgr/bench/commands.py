"""Command line of the benchmark."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click
from rich.console import Console

from hamgr.bench.campaign import Campaign
from hamgr.bench.environment import environment
from hamgr.bench.report import report
from hamgr.bench.results import Results, Session, load_results
from hamgr.bench.schedule import TASKS, UnitPlan, units
from hamgr.bench.variants import PRODUCTS, VARIANTS
from hamgr.bench.watching import Watching
from hamgr.drill.accounts import server_account
from hamgr.drill.errors import DrillError
from hamgr.drill.plan import Place
from hamgr.drill.programs import missing_programs

EXIT_FAILED_RUNS = 1
EXIT_REFUSED = 2
EXIT_NOT_CARRIED_OUT = 3

_LOG_WIDTH = 140


def _names(known: Sequence[str], what: str) -> Callable[[click.Context, click.Parameter, str], tuple[str, ...]]:
    """A click callback: comma-separated names, all that are known for `all`."""

    def parse(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
        if value == "all":
            return tuple(known)
        names = tuple(name.strip() for name in value.split(",") if name.strip())
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise click.BadParameter(f"no {what} {', '.join(unknown) or 'named'}; there are: {', '.join(known)}")
        return names

    return parse


_MANAGERS = (*PRODUCTS, *VARIANTS)


@click.command()
@click.option(
    "--managers",
    default="all",
    callback=_names(_MANAGERS, "manager"),
    help=f"Products with all their variants, or variants, comma-separated: {', '.join(_MANAGERS)}.",
)
@click.option(
    "--faults",
    "tasks",
    default="all",
    callback=_names(TASKS, "fault"),
    help=f"Faults and costs, comma-separated: {', '.join(TASKS)}.",
)
@click.option("--runs", type=click.IntRange(min=1), default=5, show_default=True, help="Runs of each.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Clusters at a time where figures are seconds long. What takes milliseconds runs alone.",
)
@click.option("--resume", is_flag=True, help="Go on: only what the file of results does not hold yet.")
@click.option("--report-only", is_flag=True, help="Measure nothing, write the report anew.")
@click.option(
    "--results",
    "results_path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("docs/benchmark.json"),
    show_default=True,
    help="All runs.",
)
@click.option(
    "--report",
    "report_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The page made of them; next to the results, ending in .md, if not given.",
)
@click.option(
    "--patroni",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("patroni"),
    help="Patroni's program, which the servers' account can run.",
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where clusters live and logs of failures stay; a temporary directory if not given.",
)
def bench(
    managers: tuple[str, ...],
    tasks: tuple[str, ...],
    runs: int,
    jobs: int,
    resume: bool,
    report_only: bool,
    results_path: Path,
    report_path: Path | None,
    patroni: Path,
    directory: Path | None,
) -> None:
    """Measure hamgr, Patroni and pg_auto_failover side by side, and write a page of it.

    Exit 0: all was measured; 1: runs failed, which the page names; 3: nothing could be measured.
    """
    console = _console()
    page = report_path or results_path.with_suffix(".md")
    try:
        results = load_results(results_path)
        if not report_only:
            _refuse_to_mix(results, resume)
            done = {(run.variant, run.task, run.round) for run in results.runs}
            planned = units(variants_of(managers), tasks, runs, done)
            _measure(console, results, planned, jobs, patroni.absolute(), directory)
        if not results.runs:
            raise DrillError(f"{results_path} holds no runs")
        page.write_text(report(results))
    except DrillError as error:
        _fail(console, error)
    failed = sum(run.result is None for run in results.runs)
    console.print(f"{len(results.runs)} runs, {failed} failed: {page}", highlight=False, soft_wrap=True)
    raise SystemExit(EXIT_FAILED_RUNS if failed else 0)


def variants_of(managers: Sequence[str]) -> list[str]:
    """Variants by their own names and by their products', in the order of the tables."""
    return [name for name, variant in VARIANTS.items() if name in managers or variant.product in managers]


def _refuse_to_mix(results: Results, resume: bool) -> None:
    if results.runs and not resume:
        raise click.UsageError(
            f"{results.path} holds {len(results.runs)} runs: --resume goes on with them, --results FILE begins another"
        )


def _measure(
    console: Console,
    results: Results,
    planned: Sequence[UnitPlan],
    jobs: int,
    patroni: Path,
    directory: Path | None,
) -> None:
    """Carry out all units. Raises DrillError where something that is needed is missing."""
    if os.geteuid() != 0:
        raise DrillError("network namespaces need root")
    missing = missing_programs(Place.NETNS, disks=any(unit.disks for unit in planned))
    if missing:
        raise DrillError(f"missing: {', '.join(missing)}; on Debian and Ubuntu: apt install {' '.join(missing)}")
    products = {VARIANTS[unit.variant].product for unit in planned}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    sizes = environment(products, patroni, server_account())
    if planned:
        results.sessions.append(Session(now, _command(), sizes))
    room = _room(directory)
    runs = sum(len(unit.tasks) for unit in planned)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with Watching(console, runs) as watching:
            campaign = Campaign(room.resolve(), patroni, results, watching)
            campaign.run(planned, jobs)
    finally:
        signal.signal(signal.SIGTERM, before)
        _tidy(console, room)


def _tidy(console: Console, room: Path) -> None:
    """What explains a failure stays."""
    if any(room.glob("failed/*")) or any(room.glob("*.stderr")):
        console.print(f"logs of failed runs: {room}", highlight=False, soft_wrap=True)
    else:
        shutil.rmtree(room, ignore_errors=True)


def _room(wanted: Path | None) -> Path:
    """A directory that the servers' account may pass through."""
    room = Path(tempfile.mkdtemp(prefix="hamgr-bench-")) if wanted is None else wanted
    room.mkdir(parents=True, exist_ok=True)
    room.chmod(0o755)
    return room


def _command() -> str:
    """As it was called: scripts/bench hands its arguments on."""
    return f"scripts/bench {os.environ.get('HAMGR_BENCH_ARGUMENTS') or ''}".strip()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=_LOG_WIDTH)


def _fail(console: Console, error: DrillError) -> NoReturn:
    console.print(f"[red]not carried out:[/red] {error}", highlight=False)
    raise SystemExit(EXIT_NOT_CARRIED_OUT)
