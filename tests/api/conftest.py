"""A REST server over a hand-written agent, and a client for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from authority import Authority
from fake_agent import FakeAgent, Serve, primary_state

from hamgr.api.config import ApiConfig
from hamgr.api.server import RunningApi, start


@pytest.fixture
def agent() -> FakeAgent:
    return FakeAgent(primary_state())


@pytest.fixture
async def serve(agent: FakeAgent) -> AsyncIterator[Serve]:
    """Start servers for the agent; all are closed in the end."""
    async with AsyncExitStack() as stack:

        async def started(config: ApiConfig) -> RunningApi:
            running = await start(config, agent)
            stack.push_async_callback(running.close)
            return running

        yield started


@pytest.fixture
async def client(serve: Serve) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of a plain server without access control."""
    running = await serve(ApiConfig(port=0))
    async with aiohttp.ClientSession(f"http://127.0.0.1:{running.address[1]}") as session:
        yield session


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")
