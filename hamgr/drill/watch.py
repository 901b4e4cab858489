"""Since when each member is in its place, as its own REST says: the time that it took to rejoin."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from hamgr.drill.base_member import BaseMember

_INTERVAL_S = 0.1
"""Short enough for people; each look costs the machine some 3 ms of CPU."""


@dataclass(slots=True)
class _Seen:
    was_out: bool = False
    in_place_since_ns: int = 0


class Watch:
    """Polls every member on a thread of its own from `with` on, so that a silent one delays no other."""

    def __init__(self, members: Sequence[BaseMember]) -> None:
        self._seen = {member.name: _Seen() for member in members}
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._look_at, args=(member,), name=f"watch-{member.name}", daemon=True)
            for member in members
        ]

    def __enter__(self) -> Watch:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(10)

    def rejoin_s(self, since_ns: int) -> dict[str, float]:
        """Member -> seconds from `since_ns` until it was in its place for good; 0: by then it was, or never left."""
        return {
            name: max(0, seen.in_place_since_ns - since_ns) / 1e9 if seen.was_out else 0.0
            for name, seen in self._seen.items()
        }

    def _look_at(self, member: BaseMember) -> None:
        seen = self._seen[member.name]
        is_in_place = True
        while not self._ending.wait(_INTERVAL_S):
            was_in_place, is_in_place = is_in_place, member.is_in_place()
            seen.was_out = seen.was_out or not is_in_place
            if is_in_place and not was_in_place:
                seen.in_place_since_ns = time.monotonic_ns()
