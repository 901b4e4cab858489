"""Actions as generators: each yields what it waits for, and returns its outcome.

What may be yielded: a number of seconds, or a function that is given `resume` and calls it once, later, with an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from hamgr.core.result import Outcome

Resume = Callable[[Any], None]
Wait = float | Callable[[Resume], None]
Steps = Generator[Wait, Any, Outcome]


class Drive:
    """One generator on its way, on the clockwork of a process: it stops for good when that ends."""

    __slots__ = ("_at", "_now", "_on_end", "_steps", "is_over")

    def __init__(
        self,
        steps: Steps,
        now: Callable[[], float],
        at: Callable[[float, Callable[[], None]], None],
        on_end: Callable[[Outcome], None],
    ) -> None:
        self._steps = steps
        self._now = now
        self._at = at
        self._on_end = on_end
        self.is_over = False

    def advance(self, answer: Any = None) -> None:
        """Go on with that answer until the next wait."""
        if self.is_over:
            return
        try:
            wait = self._steps.send(answer)
        except StopIteration as end:
            self.is_over = True
            self._on_end(end.value)
            return
        if callable(wait):
            wait(self.advance)
        else:
            self._at(self._now() + wait, self.advance)

    def cancel(self) -> None:
        """It does not go on, and nobody is told of its end."""
        self.is_over = True
        self._steps.close()
