"""All processes with light agents, as the survey sees them."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hamgr.drill.errors import DrillError
from hamgr.fleet.samples import Samples

_ANSWER_LIMIT_BYTES = 256 << 20
_PATIENCE_S = 120.0
MEMBER_NAMES = "abcde"


def cluster_name(number: int) -> str:
    return f"c{number:04}"


@dataclass(frozen=True, slots=True)
class Place:
    """Which process an agent lives in: members of one cluster live apart."""

    member: int
    chunk: int


class Process:
    """One worker process; one question at a time."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log
        self._turn = asyncio.Lock()
        self.pid = process.pid

    @classmethod
    async def start(cls, config: dict[str, Any], log: Path) -> Process:
        """Running, with no agent yet."""
        with log.open("ab") as stream:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "hamgr.fleet.worker",
                json.dumps(config),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stream,
                limit=_ANSWER_LIMIT_BYTES,
            )
        return cls(process, log)

    async def ask(self, do: str, **values: Any) -> dict[str, Any]:
        """The answer. Raises DrillError when the process is gone or silent."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        async with self._turn:
            try:
                stdin.write(json.dumps({"do": do, **values}).encode() + b"\n")
                await stdin.drain()
                line = await asyncio.wait_for(stdout.readline(), _PATIENCE_S)
            except (OSError, TimeoutError) as error:
                raise DrillError(f"a process with light agents does not answer ({error!r}); see {self._log}") from error
        if not line:
            raise DrillError(f"a process with light agents ended; see {self._log}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def close(self) -> None:
        """Ended, and its agents with it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 20.0)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


class Crew:
    """Grows by clusters; never shrinks. `per_process`: agents, each of another cluster, in one process."""

    def __init__(self, endpoints: Sequence[str], room: Path, *, members: int, per_process: int, spread: bool) -> None:
        self._config = {"endpoints": list(endpoints), "members": members, "spread": spread}
        self._room = room
        self._members = members
        self._per_process = per_process
        self._processes: dict[Place, Process] = {}
        self.clusters = 0

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes.values()]

    async def grow(self, clusters: int) -> None:
        """So many clusters' agents run on return; they may not have found each other yet."""
        wanted: dict[Place, list[list[Any]]] = {}
        for number in range(self.clusters, clusters):
            for member in range(self._members):
                place = Place(member, number // self._per_process)
                wanted.setdefault(place, []).append(self._agent(number, member))
        for place in wanted:
            if place not in self._processes:
                self._processes[place] = await self._start(place)
        await asyncio.gather(*(self._processes[place].ask("add", agents=agents) for place, agents in wanted.items()))
        self.clusters = clusters

    async def revive(self, number: int, name: str) -> None:
        """An agent that was ended runs again, as a new one under its name."""
        member = MEMBER_NAMES.index(name)
        await self._process_of(number, name).ask("add", agents=[self._agent(number, member)])

    async def end(self, number: int, name: str, *, revoke: bool) -> float | None:
        """As `hamgr.fleet.worker` does it; from when its lease counts, CLOCK_BOOTTIME in seconds."""
        answer = await self._process_of(number, name).ask("end", cluster=cluster_name(number), name=name, revoke=revoke)
        confirmed_at: float | None = answer["confirmed_at"]
        return confirmed_at

    async def write(self, on: bool) -> None:
        """Whether the primaries are written to."""
        await self._ask_all("write", on=on)

    async def take(self) -> Samples:
        """All that was measured since it was asked last."""
        everything = Samples()
        for answer in await self._ask_all("take"):
            everything.add(Samples(**answer))
        return everything

    async def leaders(self) -> dict[str, str]:
        """Cluster -> the member that says that it leads; more than one would be the last one's name."""
        return {cluster: name for cluster, name, leads, _ in await self._standings() if leads}

    async def wait_until_settled(self, timeout_s: float) -> float:
        """Every agent sees its cluster whole and led, and is well. Seconds that it took. Raises DrillError."""
        began = time.monotonic()
        while True:
            unsettled = [f"{row[0]}/{row[1]}" for row in await self._standings() if not row[3]]
            took_s = time.monotonic() - began
            if not unsettled:
                return took_s
            if took_s > timeout_s:
                raise DrillError(
                    f"{len(unsettled)} agents are not settled after {timeout_s:g} s, {unsettled[0]} among them; "
                    f"logs: {self._room}"
                )
            await asyncio.sleep(0.2)

    async def close(self) -> None:
        await asyncio.gather(*(process.close() for process in self._processes.values()))

    async def _standings(self) -> list[list[Any]]:
        return [row for answer in await self._ask_all("standing") for row in answer["standing"]]

    async def _ask_all(self, do: str, **values: Any) -> list[dict[str, Any]]:
        return await asyncio.gather(*(process.ask(do, **values) for process in self._processes.values()))

    async def _start(self, place: Place) -> Process:
        name = f"{MEMBER_NAMES[place.member]}{place.chunk}"
        room = self._room / name
        room.mkdir(parents=True)
        return await Process.start({**self._config, "room": str(room)}, self._room / f"{name}.log")

    def _process_of(self, number: int, name: str) -> Process:
        return self._processes[Place(MEMBER_NAMES.index(name), number // self._per_process)]

    @staticmethod
    def _agent(number: int, member: int) -> list[Any]:
        return [cluster_name(number), MEMBER_NAMES[member], number + member]
