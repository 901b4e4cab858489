"""A page of the guard with a heart that beats for ever, and a leading member's world."""

from __future__ import annotations

from pathlib import Path

import pytest

from hamgr.agent.guardlink import GuardLink
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
