"""A page of the guard with a heart that beats for ever, and a leading member's world."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hamgr.agent.guardlink import GuardLink
from hamgr.agent.journal import LOGGER, REST_LOGGER
from hamgr.guard.layout import SharedPage, boottime_ns
from tests.agent.workbench import Bench, leading

HOUR_NS = 3600 * 10**9


@pytest.fixture
def link(tmp_path: Path) -> GuardLink:
    """A guard that is alive as far as its page tells. Nobody listens."""
    page = SharedPage.open(str(tmp_path))
    page.guard_heartbeat_ns = boottime_ns() + HOUR_NS
    return GuardLink(str(tmp_path), page)


@pytest.fixture
def bench() -> Bench:
    return Bench(leading())


@pytest.fixture
def _log_as_before() -> Iterator[None]:
    """Whatever a test makes of the loggers."""
    loggers = LOGGER, REST_LOGGER
    before = [(each.handlers[:], each.filters[:], each.propagate, each.level) for each in loggers]
    yield
    for logger, (handlers, filters, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.filters[:], logger.propagate = handlers, filters, propagate
        logger.setLevel(level)
