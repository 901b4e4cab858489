"""Blocking calls that may hang for ever, each in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

T = TypeVar("T")


def in_own_thread(call: Callable[[], T]) -> asyncio.Future[T]:
    """The end of `call`, made in a thread of its own that keeps neither other calls nor the process's end waiting.

    Raises what `call` raises, if that is an OSError. Anything else is a defect, and for `threading.excepthook`.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def tell(settle: Callable[[], None]) -> None:
        if not future.cancelled():
            settle()

    def work() -> None:
        try:
            settle = partial(future.set_result, call())
        except OSError as error:
            settle = partial(future.set_exception, error)
        # A loop that has ended in the meantime wants no answer.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, settle)

    try:
        threading.Thread(target=work, name="hamgr-call", daemon=True).start()
    except RuntimeError as error:
        future.set_exception(OSError(errno.EAGAIN, str(error)))
    return future
