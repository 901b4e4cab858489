"""Which etcd answers: an endpoint is asked once, beside the first call, and refused from then on if it is too old."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import grpc.aio

from hamgr.dcs import wire
from hamgr.dcs.errors import StoreTooOld

OLDEST = (3, 4)
"""Watches without a word from etcd would be taken for dead: it answers a request for progress from 3.4 on."""

ASK_S = 5.0


class Vintage:
    """Of one agent's endpoints. What cannot be learned is no reason to refuse: no call waits for it or fails by it.

    Asked without a user: an etcd that wants one for this is new enough (3.5.16 tells anybody, 3.5.30 does not).
    """

    def __init__(self) -> None:
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._too_old: dict[str, str] = {}

    def check(self, host: str, channel: Any) -> None:
        """Raises StoreTooOld for an endpoint that is known to be."""
        if host in self._too_old:
            oldest = ".".join(str(part) for part in OLDEST)
            raise StoreTooOld(f"etcd at {host} is version {self._too_old[host]}: hamgr needs {oldest} or newer")
        if host not in self._asking:
            self._asking[host] = asyncio.create_task(self._ask(host, channel))

    async def _ask(self, host: str, channel: Any) -> None:
        try:
            answer = await wire.STATUS.bind(channel)(wire.StatusRequest(), timeout=ASK_S)
        except grpc.aio.AioRpcError:
            return
        if is_too_old(answer.version):
            self._too_old[host] = answer.version

    def close(self) -> None:
        """Nothing is asked any more."""
        for task in self._asking.values():
            task.cancel()


def is_too_old(version: str) -> bool:
    """By major and minor number; False where there are none to read."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) < OLDEST
