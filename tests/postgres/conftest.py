"""Fixtures of the tests of hamgr.postgres; what they are made of is in pglab."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pglab import TEMPLATE, Lab, make_template, unprivileged


@pytest.fixture(scope="session", autouse=True)
def _cluster_template() -> Iterator[None]:
    with unprivileged():
        root = Path(tempfile.mkdtemp(prefix="hamgr-template-"))
        asyncio.run(make_template(root))
    TEMPLATE.append(root / "template")
    yield
    shutil.rmtree(root)


@pytest.fixture(autouse=True)
def _unprivileged(_cluster_template: None) -> Iterator[None]:
    with unprivileged():
        yield


@pytest.fixture
async def lab(_unprivileged: None) -> AsyncIterator[Lab]:
    root = Path(tempfile.mkdtemp(prefix="hamgr-pg-"))
    place = Lab(root)
    try:
        yield place
    finally:
        await place.close()
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def pg_tmp(_unprivileged: None) -> Iterator[Path]:
    """A directory that belongs to the unprivileged user."""
    root = Path(tempfile.mkdtemp(prefix="hamgr-pg-"))
    yield root
    shutil.rmtree(root)
