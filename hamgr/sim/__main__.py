"""`python -m hamgr.sim`: seeds of the simulated world, one after the other or many at once."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from functools import partial

from hamgr.sim.faults import FAULTS
from hamgr.sim.jobs import run_all
from hamgr.sim.mutants import NAMES, Mutant
from hamgr.sim.run import Options, run_seed

STORY_LINES = 400


def main(arguments: Sequence[str] | None = None) -> int:
    """0: every seed ended well. 1: one did not, and its story was told."""
    chosen = _parser().parse_args(arguments)
    mutant = Mutant(chosen.mutant) if chosen.mutant else Mutant.NONE
    faults = tuple(dict.fromkeys(chosen.fault or ()))
    options = Options(members=chosen.members, sync=chosen.sync, mutant=mutant, faults=faults)
    if chosen.seed is not None:
        return _replay(chosen.seed, options)
    return _run_many(range(chosen.first, chosen.first + chosen.seeds), options, chosen.jobs)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hamgr.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this seed, and tell its whole story")
    parser.add_argument("--seeds", type=int, default=int(os.environ.get("HAMGR_SIM_SEEDS", "500")), help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--members", type=int, choices=(2, 3, 4, 5), help="default: drawn from the seed")
    parser.add_argument("--sync", choices=("off", "on", "quorum"), help="default: drawn from the seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--mutant", choices=NAMES, help="build the world wrong in this way")
    names = sorted({fault.__name__ for fault in FAULTS})
    parser.add_argument(
        "--fault", action="append", choices=names, metavar="NAME", help=f"only these: {', '.join(names)}"
    )
    return parser


def _replay(seed: int, options: Options) -> int:
    result = run_seed(seed, options, tells_story=True)
    sys.stdout.write(f"{result.story}\n")
    sys.stdout.write(f"seed {seed}: {result.violation or 'well'}\n")
    return 1 if result.violation else 0


def _run_many(seeds: range, options: Options, jobs: int) -> int:
    began = time.perf_counter()
    failovers = 0
    simulated_s = 0.0
    for result in run_all(partial(run_seed, options=options), seeds, jobs, "seeds"):
        failovers += result.failovers
        simulated_s += result.simulated_s
        if result.violation:
            story = "\n".join(result.story.splitlines()[-STORY_LINES:])
            sys.stdout.write(f"{story}\n\nseed {result.seed}: {result.violation}\n")
            sys.stdout.write(f"replay: python -m hamgr.sim --seed {result.seed}{_flags(options)}\n")
            return 1
    took_s = max(time.perf_counter() - began, 1e-9)
    sys.stdout.write(
        f"{len(seeds)} seeds well: {failovers} failovers, {simulated_s:.0f} simulated s, "
        f"{failovers / took_s:.0f} failovers/s in {jobs} process{'es' if jobs > 1 else ''}\n"
    )
    return 0


def _flags(options: Options) -> str:
    words = []
    if options.members is not None:
        words.append(f" --members {options.members}")
    if options.sync is not None:
        words.append(f" --sync {options.sync}")
    words += [f" --fault {name}" for name in options.faults]
    if options.mutant is not Mutant.NONE:
        words.append(f" --mutant {options.mutant.value}")
    return "".join(words)


if __name__ == "__main__":
    sys.exit(main())
