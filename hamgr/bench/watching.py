"""A benchmark as people watch it: a line per run and what goes on just now; in a log only what went wrong."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from hamgr.bench.figures import GAP, LOST, TWO_PRIMARIES
from hamgr.bench.results import Run
from hamgr.bench.schedule import UnitPlan


class Watching:
    """The campaign's display. A context: the live lines go when it ends."""

    def __init__(self, console: Console, runs: int) -> None:
        self._console = console
        self._quiet = not console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=self._quiet,
            transient=True,
        )
        self._all = self._progress.add_task("runs", total=runs)
        self._units: dict[UnitPlan, TaskID] = {}

    def __enter__(self) -> Watching:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, unit: UnitPlan, text: str) -> None:
        """What a unit does just now, on a line of its own."""
        if unit not in self._units:
            self._units[unit] = self._progress.add_task(text, total=len(unit.tasks))
        self._progress.update(self._units[unit], description=text)

    def done(self, run: Run) -> None:
        """One line on a terminal; in a log only for a failure."""
        self._progress.advance(self._all)
        for unit, task in self._units.items():
            if (unit.variant, unit.round) == (run.variant, run.round) and run.task in unit.tasks:
                self._progress.advance(task)
        if not self._quiet or run.result is None:
            self._console.print(line_of(run), highlight=False, soft_wrap=True)

    def ended(self, unit: UnitPlan) -> None:
        """Its line goes."""
        if unit in self._units:
            self._progress.remove_task(self._units.pop(unit))


def line_of(run: Run) -> str:
    """A run in one line."""
    title = f"{run.variant} {run.task} {run.round}"
    if run.result is None:
        return f"{title}: FAILED: {run.error}; logs: {run.logs}"
    if GAP.read(run.result) is None:
        return f"{title}: done in {run.took_s:.0f} s"
    figures = []
    for figure in (GAP, TWO_PRIMARIES, LOST):
        value = figure.read(run.result)
        figures.append(f"{figure.name} {'—' if value is None else figure.show(value)}")
    return f"{title}: {', '.join(figures)}"
