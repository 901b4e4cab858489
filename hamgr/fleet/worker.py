"""A process with several light agents, as `python -m hamgr.fleet.worker CONFIG`; told what to do line by line.

One JSON object a line on standard input, one as answer on standard output. It ends when its input does. Members of one
cluster live in different processes, so that none of them sees another's work otherwise than through etcd.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import resource
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hamgr.agent.journal import set_up
from hamgr.dcs.client import EtcdClient
from hamgr.dcs.endpoints import EtcdConfig
from hamgr.fleet.agent import LightAgent, revoke
from hamgr.fleet.samples import Samples

_STAGGER_S = 0.1
"""Between two starts: a fleet's agents do not renew in step."""

Request = dict[str, Any]


class Worker:
    """The agents of this process, by cluster and name. `config`: endpoints, members, spread and room."""

    def __init__(self, config: Request) -> None:
        self._endpoints = tuple(config["endpoints"])
        self._members = int(config["members"])
        self._spreads = bool(config["spread"])
        self._room = Path(config["room"])
        self._samples = Samples()
        self._agents: dict[tuple[str, str], LightAgent] = {}
        self._starts = 0
        self._is_written_to = False
        self._client = EtcdClient(EtcdConfig(self._endpoints))

    async def answer(self, request: Request) -> Request:
        """Do what is asked. Raises KeyError for what is not known."""
        calls: dict[str, Callable[[Request], Awaitable[Request]]] = {
            "add": self._add,
            "standing": self._standing,
            "write": self._write,
            "end": self._end,
            "take": self._take,
        }
        return await calls[request["do"]](request)

    async def close(self) -> None:
        await asyncio.gather(*(agent.end() for agent in self._agents.values()))
        await self._client.close()

    async def _add(self, request: Request) -> Request:
        """`agents`: [cluster, name, number]; the number chooses its first endpoint where they are spread."""
        for cluster, name, number in request["agents"]:
            first = number % len(self._endpoints) if self._spreads else 0
            etcd = EtcdConfig((*self._endpoints[first:], *self._endpoints[:first]))
            self._starts += 1
            room = self._room / f"{cluster}-{name}-{self._starts}"
            agent = LightAgent(cluster, name, self._members, etcd, room, self._samples)
            agent.write(self._is_written_to)
            self._agents[cluster, name] = agent
            agent.start()
            await asyncio.sleep(random.uniform(0.0, _STAGGER_S))
        return {}

    async def _standing(self, _request: Request) -> Request:
        rows = [[*key, *asdict(agent.standing()).values()] for key, agent in self._agents.items()]
        return {"standing": rows}

    async def _write(self, request: Request) -> Request:
        self._is_written_to = bool(request["on"])
        for agent in self._agents.values():
            agent.write(self._is_written_to)
        return {}

    async def _end(self, request: Request) -> Request:
        """The agent is gone; with `revoke` its lease too, else that runs out. `confirmed_at`: CLOCK_BOOTTIME, s."""
        agent = self._agents.pop((request["cluster"], request["name"]))
        lease_id = agent.lease_id
        confirmed_at = await agent.end()
        if request["revoke"]:
            await revoke(self._client, lease_id)
        return {"confirmed_at": confirmed_at}

    async def _take(self, _request: Request) -> Request:
        return asdict(self._samples.take())


async def serve(config: Request) -> None:
    """Answer until standard input ends."""
    worker = Worker(config)
    try:
        while line := await asyncio.to_thread(sys.stdin.buffer.readline):
            answer = await worker.answer(json.loads(line))
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
    finally:
        await worker.close()


def main() -> None:
    """The process."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    set_up("WARNING", as_json=False)
    asyncio.run(serve(json.loads(sys.argv[1])))
    logging.shutdown()
    # Renewal threads may still wait for an answer; nothing of theirs is needed any more.
    os._exit(0)


if __name__ == "__main__":
    main()
