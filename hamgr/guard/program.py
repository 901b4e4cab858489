"""The guard's start: orders, the lock that makes it the only one, then the loop."""

from __future__ import annotations

import fcntl
import os
import sys
import time

from hamgr.guard.commands import ask_to_retire
from hamgr.guard.host import lock_memory, raise_priority, take_name
from hamgr.guard.layout import PAGE_NAME, SharedPage
from hamgr.guard.loop import Guard
from hamgr.guard.orders import Orders
from hamgr.guard.processes import read_process
from hamgr.guard.words import ERROR, SCRIBE, WARNING, say

EXIT_DEFECT = 1
EXIT_USAGE = 2
EXIT_SECOND_GUARD = 3
_ROOM_S = 2.0
_LOOK_S = 0.02


def _lock(runtime_dir: str) -> bool:
    """Lock the page for as long as this process lives; False when another guard has it.

    On a descriptor of its own: a mapping would carry the lock into a child that hangs before its exec.
    """
    file_no = os.open(os.path.join(runtime_dir, PAGE_NAME), os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(file_no, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file_no)
        return False
    return True


def _lock_with_patience(page: SharedPage, runtime_dir: str) -> bool:
    """As `_lock`, after a stand-in that has it was asked to make room.

    Waits for a guard that is no stand-in, too: a service manager that restarts at once must not spin.
    """
    end = time.monotonic() + _ROOM_S
    while not _lock(runtime_dir):
        if time.monotonic() > end:
            return False
        if page.stand_in:
            ask_to_retire(runtime_dir)
        time.sleep(_LOOK_S)
    return True


def _become_the_guard(page: SharedPage, orders: Orders) -> None:
    """What this host allows, and who the guard is, is on the page; the pid last, since others wait for it."""
    SCRIBE.keep(may_wait=False)
    own = read_process(os.getpid())
    page.priority, no_priority = raise_priority()
    no_lock = lock_memory()
    page.memory_locked = int(no_lock is None)
    for complaint in (no_priority, no_lock):
        if complaint:
            say(complaint, WARNING)
    page.stand_in = int(orders.is_stand_in)
    page.guard_start_ticks = own.start_ticks if own else 0
    page.guard_pid = os.getpid()


def _end_by_defect(_kind: type[BaseException], error: BaseException, _trace: object) -> None:
    """As a guard must: Python's own traceback would wait for the reader of stderr, with the lock in hand."""
    try:
        say(f"ending because of a defect in hamgr: {type(error).__name__}: {error}", ERROR)
        trace = error.__traceback__
        while trace is not None:
            code = trace.tb_frame.f_code
            say(f"  {code.co_filename}:{trace.tb_lineno} in {code.co_name}", ERROR)
            trace = trace.tb_next
        SCRIBE.end(may_wait=False)
    finally:
        os._exit(EXIT_DEFECT)


def main(arguments: list[str]) -> int:
    """Run the guard to its end; the exit status."""
    try:
        orders = Orders(arguments)
    except ValueError as error:
        say(str(error), ERROR)
        return EXIT_USAGE
    sys.excepthook = _end_by_defect
    take_name()
    try:
        page = SharedPage.open(orders.runtime_dir)
    except OSError as error:
        say(f"cannot open the page in {orders.runtime_dir}: {error.strerror}", ERROR)
        return EXIT_USAGE
    if orders.is_stand_in:
        if not _lock(orders.runtime_dir):
            return 0
        # The agent that started it goes on; its other end, in a session of its own, is nobody's child. Keeps the lock.
        if os.fork():
            return 0
        os.setsid()
    elif not _lock_with_patience(page, orders.runtime_dir):
        say(f"another guard, pid {page.guard_pid}, holds {orders.runtime_dir}", ERROR)
        return EXIT_SECOND_GUARD
    _become_the_guard(page, orders)
    status = _guard(page, orders)
    if not orders.is_stand_in:
        # A stand-in may be awaited by the guard that takes its place, while the server is bound by a deadline.
        SCRIBE.end(may_wait=True)
    return status


def _guard(page: SharedPage, orders: Orders) -> int:
    try:
        guard = Guard(page, orders)
    except OSError as error:
        say(f"cannot listen in {orders.runtime_dir}: {error}", ERROR)
        return EXIT_USAGE
    return guard.run()
