"""Many simulations at once: in processes of their own, in order, with a bar for whoever watches."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Task = TypeVar("Task")
Done = TypeVar("Done")


class WorkerLost(Exception):
    """One of the processes was killed; the text says what may help."""


CHUNKS_PER_JOB = 40
LARGEST_CHUNK = 20


def run_all(run: Callable[[Task], Done], tasks: Sequence[Task], jobs: int, what: str) -> Iterator[Done]:
    """What each task comes to, in the tasks' order, whatever the number of processes. `run` must be importable."""
    results = _results(partial(_without_collector, run), tasks, jobs)
    if not sys.stderr.isatty():
        yield from results
        return
    yield from track(results, total=len(tasks), description=what, console=Console(stderr=True))


def _results(run: Callable[[Task], Done], tasks: Sequence[Task], jobs: int) -> Iterator[Done]:
    if jobs <= 1:
        yield from map(run, tasks)
        return
    chunk = max(1, min(LARGEST_CHUNK, len(tasks) // (jobs * CHUNKS_PER_JOB)))
    try:
        with ProcessPoolExecutor(jobs) as pool:
            yield from pool.map(run, tasks, chunksize=chunk)
    except BrokenProcessPool:
        raise WorkerLost("a worker process was killed, perhaps for want of memory: try fewer --jobs") from None


def _without_collector(run: Callable[[Task], Done], task: Task) -> Done:
    """With the collection of cycles put off to its end: that takes a fifth of the time off."""
    gc.disable()
    try:
        return run(task)
    finally:
        gc.enable()
        gc.collect()
