"""Fixtures of the tests of hamgr.routing: real PostgreSQL, PgBouncer and HAProxy, as an unprivileged user."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.postgres.pglab import TEMPLATE, Lab, make_template, unprivileged
from tests.routing.frontlab import Haproxy, Pgbouncer, missing_programs


@pytest.fixture(scope="session", autouse=True)
def _programs() -> None:
    missing = missing_programs()
    if missing:
        pytest.skip(f"missing: {', '.join(missing)}")


@pytest.fixture(scope="session")
def _template(_programs: None) -> Iterator[None]:
    with unprivileged():
        root = Path(tempfile.mkdtemp(prefix="hamgr-template-"))
        asyncio.run(make_template(root))
    TEMPLATE.append(root / "template")
    yield
    shutil.rmtree(root)


@pytest.fixture
def front_dir(_programs: None) -> Iterator[Path]:
    """A directory that belongs to the unprivileged user, whom this process is meanwhile."""
    with unprivileged():
        root = Path(tempfile.mkdtemp(prefix="hamgr-front-"))
        yield root
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
async def lab(_template: None, front_dir: Path) -> AsyncIterator[Lab]:
    place = Lab(front_dir)
    try:
        yield place
    finally:
        await place.close()


@pytest.fixture
async def bouncer(lab: Lab) -> AsyncIterator[Pgbouncer]:
    """A PgBouncer in transaction mode before a primary of its own."""
    primary = await lab.primary()
    made = Pgbouncer(lab.root / "bouncer", primary.config)
    await made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
async def haproxy(front_dir: Path) -> AsyncIterator[Haproxy]:
    """An HAProxy before two servers, of which only the first is well."""
    made = Haproxy(front_dir / "haproxy")
    await made.start()
    try:
        yield made
    finally:
        await made.stop()
