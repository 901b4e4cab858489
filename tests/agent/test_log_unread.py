"""A log that nobody reads holds up nothing: not what is logged, not the end of the agent."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hamgr.agent import journal
from hamgr.agent.journal import LOGGER

PATIENCE_S = 20.0
LINES = 100

pytestmark = pytest.mark.usefixtures("_log_as_before")


def full_pipe() -> tuple[int, int]:
    """Both ends of a pipe that takes no byte more."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"." * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    return reader, writer


@contextmanager
def standard_error(writer: int) -> Iterator[None]:
    """That is standard error, for as long as this lasts. Not by a fixture: pytest sets its own right before a test."""
    before = os.dup(2)
    os.dup2(writer, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def log_lines() -> None:
    for number in range(LINES):
        LOGGER.info("line %s", number)


def read_until(reader: int, end: bytes) -> str:
    read = b""
    while end not in read and select.select([reader], [], [], PATIENCE_S)[0]:
        read += os.read(reader, 65536)
    return read.decode()


def test_who_logs_does_not_wait_for_a_reader_and_what_is_lost_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "QUEUE_LINES", 10)
    reader, writer = full_pipe()
    with standard_error(writer):
        journal.set_up("INFO", as_json=False)
        logging_thread = threading.Thread(target=log_lines, daemon=True)
        logging_thread.start()
        logging_thread.join(PATIENCE_S)
        was_held_up = logging_thread.is_alive()
        text = read_until(reader, f"line {LINES - 1}\n".encode() if was_held_up else b"line 9\n")
        LOGGER.info("the last one")
        text += read_until(reader, b"the last one\n")
    os.close(reader)
    os.close(writer)
    assert not was_held_up
    kept = [int(number) for number in re.findall(r"line (\d+)\n", text)]
    (lost,) = re.findall(r"WARNING (\d+) lines of the log were lost", text)
    assert kept == list(range(LINES - int(lost)))
    assert text.index("were lost") < text.index("the last one")


def logging_program(body: str, stderr: int, last_lines_s: float) -> subprocess.Popen[bytes]:
    setting_up = f"journal.LAST_LINES_S = {last_lines_s}; journal.set_up('INFO', as_json=False)"
    imports = "import logging; from hamgr.agent import __main__, journal"
    script = f"{imports}; {setting_up}; __main__.tell_by_the_log(); {body}"
    return subprocess.Popen([sys.executable, "-c", script], stderr=stderr)


def test_the_last_lines_are_written() -> None:
    """Also those of libraries, which have loggers of their own."""
    body = "[journal.LOGGER.info('line') for _ in range(1000)]; logging.getLogger('asyncio').error('of a library')"
    running = logging_program(body, subprocess.PIPE, PATIENCE_S)
    _, written = running.communicate(timeout=2 * PATIENCE_S)
    assert len(written.splitlines()) == 1001
    assert re.search(rb"Z ERROR of a library\n", written)


@pytest.mark.parametrize(
    "complaint",
    [
        "journal.LOGGER.error('of ours')",
        "logging.getLogger('asyncio').error('of a library')",
        "import warnings; warnings.warn('of Python')",
        "broken = type('Broken', (), {'__del__': lambda self: 1 / 0})(); del broken",
    ],
)
def test_an_agent_whose_log_nobody_reads_ends_all_the_same(complaint: str) -> None:
    reader, writer = full_pipe()
    running = logging_program(complaint, writer, 0.1)
    try:
        assert running.wait(PATIENCE_S) == 0
    finally:
        running.kill()
        running.wait()
        os.close(reader)
        os.close(writer)


def test_what_a_reader_that_is_gone_did_not_get_is_counted_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "LAST_LINES_S", PATIENCE_S)
    gone, nobody = os.pipe()
    os.close(gone)
    reader, writer = os.pipe()
    with standard_error(nobody):
        journal.set_up("INFO", as_json=False)
        LOGGER.info("to nobody")
        LOGGER.info("to nobody")
        LOGGER.handlers[0].flush()
        os.dup2(writer, 2)
        LOGGER.info("to somebody")
        LOGGER.handlers[0].flush()
    for each in (nobody, writer):
        os.close(each)
    lost, told = os.read(reader, 4096).decode().splitlines()
    os.close(reader)
    assert "2 lines of the log were lost" in lost
    assert told.endswith("INFO to somebody")


def log_from_within(*_: object) -> None:
    """A profiler's hook, which Python calls at every call and return, wherever a destructor may run as well."""
    LOGGER.error("Task exception was never retrieved")


def log_and_flush_interrupted() -> None:
    sys.setprofile(log_from_within)
    LOGGER.info("a line")
    LOGGER.handlers[0].flush()
    sys.setprofile(None)


def test_a_destructor_that_logs_may_run_at_any_moment_of_logging_and_flushing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "LAST_LINES_S", PATIENCE_S)
    written = os.memfd_create("log")
    with standard_error(written):
        journal.set_up("INFO", as_json=False)
        logging_thread = threading.Thread(target=log_and_flush_interrupted, daemon=True)
        logging_thread.start()
        logging_thread.join(PATIENCE_S)
        assert not logging_thread.is_alive()
        LOGGER.handlers[0].flush()
    text = os.pread(written, 1 << 20, 0).decode()
    os.close(written)
    assert "INFO a line" in text


class HalfMade:
    def __repr__(self) -> str:
        raise AttributeError("half made")


@pytest.mark.parametrize("as_json", [False, True])
def test_a_line_that_cannot_be_formatted_is_told_and_is_no_error_of_who_logs(
    as_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "LAST_LINES_S", PATIENCE_S)
    written = os.memfd_create("log")
    with standard_error(written):
        journal.set_up("INFO", as_json=as_json)
        LOGGER.warning("%d pages", "no number")
        LOGGER.warning(HalfMade())
        LOGGER.warning("fine", extra={"fields": {"value": HalfMade()}})
        LOGGER.handlers[0].flush()
    lines = os.pread(written, 1 << 20, 0).decode().splitlines()
    os.close(written)
    assert ["cannot be formatted" in line for line in lines] == [True, True, as_json]
    assert "hamgr" in lines[0]
    assert "%d pages" in lines[0]
