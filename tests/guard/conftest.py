"""Guards on the bench, in directories short enough for a socket's name."""

import ctypes
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guard.bench import Bench

_PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture(scope="session", autouse=True)
def _orphans_come_to_us() -> None:
    """PID 1 of some machines reaps seconds late."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@pytest.fixture
def bench() -> Iterator[Bench]:
    root = Path(tempfile.mkdtemp(prefix="hamgr-guard-", dir="/tmp"))
    os.chmod(root, 0o755)
    made = Bench(root)
    yield made
    made.end()
    shutil.rmtree(root, ignore_errors=True)
