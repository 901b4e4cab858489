"""Command line of the simulator: `hamgr simulate`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import click

from hamgr.sim.forecast import command as forecast
from hamgr.sim.jobs import WorkerLost
from hamgr.sim.lab import command as lab
from hamgr.sim.outputs import Outputs

MOST_RUNS = 1_000_000
MOST_JOBS = 1024
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("file", required=False, type=_FILE)
@click.option("--environment", type=_FILE, help="Network, disks, what breaks how often; else assumptions. YAML.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change one value of the environment.")
@click.option("--members", type=int, help="As --set members=N.")
@click.option("--runs", type=click.IntRange(1, MOST_RUNS), help="How many faults to simulate. [default: 1000]")
@click.option("--sweep", metavar="KEY=FROM..TO", help="Gap against needless failovers over a range: ttl=2..30.")
@click.option("--seed", type=int, metavar="N", help="Replay simulated world N, of a sweep too, as a story.")
@click.option("--compare", "compares", is_flag=True, help="Election protocols side by side instead.")
@click.option("--protocol", "protocols", multiple=True, type=click.Choice(lab.PROTOCOL_KEYS), help="Only these.")
@click.option("--fault", "faults", multiple=True, type=click.Choice(lab.FAULT_KEYS), help="Only these.")
@click.option("--sizes", default="", metavar="N,N", help="Numbers of members to compare. [default: 3,5,7,51]")
@click.option("--seeds", type=click.IntRange(1, 10_000), help="Trials of each, fewer of large clusters. [default: 10]")
@click.option("--page", type=_FILE, help="Put the figures of a comparison into this page, between its markers.")
@click.option(
    "--jobs", type=click.IntRange(1, MOST_JOBS), default=os.cpu_count() or 1, help="Processes. [default: one a CPU]"
)
@click.option("--json", "json_path", metavar="PATH", help="Write the findings here; - for standard output.")
@click.option("--picture", "picture_path", type=_FILE, help="Draw a sweep or comparison here: .svg or .png.")
def simulate(
    file: Path | None,
    environment: Path | None,
    changes: tuple[str, ...],
    members: int | None,
    runs: int | None,
    sweep: str | None,
    seed: int | None,
    compares: bool,
    protocols: tuple[str, ...],
    faults: tuple[str, ...],
    sizes: str,
    seeds: int | None,
    page: Path | None,
    jobs: int,
    json_path: str | None,
    picture_path: Path | None,
) -> None:
    """Run this program's decisions in a simulated cluster.

    FILE is a member's configuration (default: that of -c): how long failovers will take with it, how many will be for
    nothing, what a year costs. With --compare: election protocols under the same faults. The same input gives the same
    output on every machine. Exit 1: a promise was seen broken; 4: the input cannot be simulated, or the cluster
    does not get well in time in such an environment.
    """
    outputs = Outputs(json_path, picture_path)
    asked = lab.Asked(protocols, faults, sizes, seeds, page)
    if compares:
        if file or environment or changes or members is not None or runs or sweep or seed is not None:
            raise click.UsageError("--compare has a world of its own: leave out FILE and the options of a forecast")
        raise SystemExit(_unless_lost(lambda: lab.run_comparison(asked, outputs, jobs)))
    if asked.is_any:
        raise click.UsageError("--protocol, --fault, --sizes, --seeds and --page are for --compare")
    if seed is not None and (picture_path or json_path):
        raise click.UsageError("--seed tells the story of one world: leave out --picture and --json")
    if picture_path is not None and sweep is None:
        raise click.UsageError("--picture draws a --sweep or a --compare")
    if members is not None:
        changes = (*changes, f"members={members}")
    if file is None:
        file = click.get_current_context().find_root().params.get("config_file")
    request = forecast.Asked(file, environment, changes, runs, sweep, seed)
    raise SystemExit(_unless_lost(lambda: forecast.run_forecast(request, outputs, jobs)))


def _unless_lost(run: Callable[[], int]) -> int:
    try:
        return run()
    except WorkerLost as error:
        raise click.ClickException(str(error)) from None
