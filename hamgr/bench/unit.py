"""Tasks for one variant, one after the other, in a program of its own: a crash of it ends no other.

Started by the campaign with a JSON order on standard input; standard output is JSON lines: {"say": ...} as it goes,
{"run": ...} for each task that is done with, well or not. One cluster serves all tasks as long as all goes well; after
a failure the next task gets a new one, and the logs are kept.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import psycopg

from hamgr.bench.faults import FAULTS
from hamgr.bench.idle import measure_idle
from hamgr.bench.rest import measure_rest
from hamgr.bench.run import run_fault
from hamgr.bench.stage import Stage, StagePlan
from hamgr.bench.variants import VARIANTS
from hamgr.drill.accounts import server_account
from hamgr.drill.errors import DrillError

IDLE, REST = "idle", "rest"
"""Tasks that are no faults."""

_FORM_TIMEOUT_S = 180.0


@dataclass(frozen=True, slots=True)
class Order:
    """What a unit is told. `directory`: of its own, not there yet. `failed`: where logs of failures are kept."""

    variant: str
    tasks: Sequence[str]
    round: int
    directory: str
    failed: str
    patroni: str
    disks: bool = False


class Unit:
    """Carries out an order."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._stage: Stage | None = None
        self._built = 0

    def run(self) -> None:
        """All tasks of the order. What went wrong is told, not raised."""
        try:
            for task in self._order.tasks:
                record = self._record(task)
                self._tell({"run": record})
        finally:
            self._drop()

    def _record(self, task: str) -> dict[str, Any]:
        order = self._order
        record: dict[str, Any] = {
            "variant": order.variant,
            "task": task,
            "round": order.round,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        began = time.monotonic()
        try:
            record["result"] = self._measure(self._need_stage(), task)
        except DrillError as error:
            record["error"] = self._plain(str(error))
        except psycopg.Error as error:
            record["error"] = f"SQL: {self._plain(str(error))}"
        record["took_s"] = time.monotonic() - began
        if "error" in record or record["result"].get("unsettled"):
            record["logs"] = self._keep_logs(task).name
            self._drop()
        return record

    def _measure(self, stage: Stage, task: str) -> dict[str, Any]:
        if task == IDLE:
            return measure_idle(stage)
        if task == REST:
            return measure_rest(stage)
        return run_fault(stage, FAULTS[task], lambda text: self._say(task, text))

    def _need_stage(self) -> Stage:
        if self._stage is None:
            self._say("", "the cluster forms")
            self._built += 1
            order = self._order
            self._stage = Stage(
                StagePlan(
                    Path(order.directory) / str(self._built),
                    VARIANTS[order.variant],
                    server_account(),
                    Path(order.patroni),
                    order.disks,
                )
            )
            self._stage.form(_FORM_TIMEOUT_S)
        return self._stage

    def _keep_logs(self, task: str) -> Path:
        """A folder with the logs of the cluster as it is now; empty where there is none."""
        order = self._order
        folder = Path(order.failed) / f"{order.variant}-{task}-{order.round}-{time.time_ns()}"
        folder.mkdir(parents=True)
        if self._stage is not None:
            self._stage.keep_logs(folder / "logs")
        return folder

    def _plain(self, text: str) -> str:
        """Without the directory that was only made for this run, on one line."""
        return " ".join(text.replace(f"{self._order.directory}/", "").split())

    def _drop(self) -> None:
        if self._stage is not None:
            ended, self._stage = self._stage, None
            ended.close()
            shutil.rmtree(ended.plan.directory, ignore_errors=True)

    def _say(self, task: str, text: str) -> None:
        self._tell({"say": f"{self._order.variant} {self._order.round} {task}: {text}"})

    def _tell(self, message: dict[str, Any]) -> None:
        print(json.dumps(message), flush=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Carry out the order that stands on standard input. SIGTERM ends it, and leaves nothing."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        Unit(Order(**json.loads(sys.stdin.readline()))).run()
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
