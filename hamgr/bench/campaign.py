"""All units, several at a time where that is allowed, each in a program of its own; their runs go to the results."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from hamgr.bench.results import Results, Run
from hamgr.bench.schedule import UnitPlan
from hamgr.bench.unit import Order

_UNIT = (sys.executable, "-m", "hamgr.bench.unit")
_END_TIMEOUT_S = 60.0


class Display(Protocol):
    """Whoever watches."""

    def say(self, unit: UnitPlan, text: str) -> None:
        """What a unit does just now."""

    def done(self, run: Run) -> None:
        """A run has ended, well or not."""

    def ended(self, unit: UnitPlan) -> None:
        """A unit has ended."""


@dataclass(slots=True)
class Campaign:
    """`directory`: where clusters live and logs of failures stay. `patroni`: that program."""

    directory: Path
    patroni: Path
    results: Results
    display: Display
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _running: set[subprocess.Popen[str]] = field(default_factory=set)
    _ending: bool = False

    @property
    def failed(self) -> Path:
        """Logs of runs that went wrong, a folder each."""
        return self.directory / "failed"

    def run(self, planned: Sequence[UnitPlan], jobs: int) -> None:
        """Carry out all units, those that must be alone first. What fails is recorded and ends nothing."""
        try:
            self._run_group([unit for unit in planned if unit.alone], 1)
            self._run_group([unit for unit in planned if not unit.alone], jobs)
        except BaseException:
            self._end_all()
            raise

    def _run_group(self, group: Sequence[UnitPlan], jobs: int) -> None:
        with ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(self._run_unit, unit) for unit in group]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                for future in futures:
                    future.cancel()
                self._end_all()
                raise

    def _run_unit(self, unit: UnitPlan) -> None:
        title = f"{unit.variant}-{unit.round}-{'a' if unit.alone else 'd' if unit.disks else 't'}"
        order = Order(
            variant=unit.variant,
            tasks=unit.tasks,
            round=unit.round,
            directory=str(self.directory / title),
            failed=str(self.failed),
            patroni=str(self.patroni),
            disks=unit.disks,
        )
        errors = self.directory / f"{title}.stderr"
        with errors.open("w") as stderr:
            process = self._start(stderr.fileno())
            if process is None:
                return
            told = self._follow(unit, process, order)
        if process.returncode == 0:
            errors.unlink()
        elif not self._ending:
            last_words = errors.read_text(errors="replace").strip().rpartition("\n")[2]
            error = f"the unit ended with status {process.returncode}: {last_words}"
            for task in unit.tasks[told:]:
                self._keep(_unfinished(unit, task, error, errors.name))
        self.display.ended(unit)

    def _start(self, stderr: int) -> subprocess.Popen[str] | None:
        """A unit that waits for its order; None where all is ending."""
        with self._lock:
            if self._ending:
                return None
            process = subprocess.Popen(
                _UNIT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,  # Ctrl-C is for the campaign, which ends its units in order
            )
            self._running.add(process)
        return process

    def _follow(self, unit: UnitPlan, process: subprocess.Popen[str], order: Order) -> int:
        """Give a unit its order and hear it to its end. Returns how many runs it told of."""
        told = 0
        assert process.stdin is not None
        assert process.stdout is not None
        with process:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(asdict(order)) + "\n")
                process.stdin.flush()
            for line in process.stdout:
                message: dict[str, Any] = json.loads(line)
                if "run" in message:
                    told += 1
                    self._keep(Run(**message["run"]))
                else:
                    self.display.say(unit, message["say"])
        with self._lock:
            self._running.discard(process)
        return told

    def _keep(self, run: Run) -> None:
        with self._lock:
            self.results.add(run)
        self.display.done(run)

    def _end_all(self) -> None:
        """No unit runs on, and no other begins."""
        with self._lock:
            self._ending = True
            running = list(self._running)
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(_END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _unfinished(unit: UnitPlan, task: str, error: str, logs: str) -> Run:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Run(unit.variant, task, unit.round, now, 0.0, error=error, logs=logs)
