"""Health requests per second at the primary of an idle cluster, asked from the client's host."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

from hamgr.bench.stage import Stage
from hamgr.drill.errors import DrillError

REST_S = 5.0


@dataclass(frozen=True, slots=True)
class Load:
    """How it is asked: so many connections that ask one after the other, so many that are open and say nothing."""

    pool: int
    idle: int

    @property
    def name(self) -> str:
        return f"pool{self.pool}-idle{self.idle}"

    @property
    def title(self) -> str:
        return f"{self.pool} connections" + (f", {self.idle} idle ones open" if self.idle else "")


LOADS = (Load(10, 0), Load(50, 0), Load(10, 200))


def measure_rest(stage: Stage, seconds: float = REST_S) -> dict[str, Any]:
    """Per load, what came of it. Raises DrillError where there is nothing to ask."""
    url = stage.primary().rest_url
    if url is None:
        raise DrillError(f"{stage.plan.variant.product} has no REST server")
    found = {}
    for load in LOADS:
        program = [sys.executable, "-m", "hamgr.bench.rest_load", f"{url}/primary"]
        how = [str(seconds), str(load.pool), str(load.idle)]
        output = stage.client_host.run([*program, *how], timeout_s=seconds + 60.0, as_account=False)
        found[load.name] = json.loads(output)
    return found
