"""The random choice of a soak: faults and pairs of faults that one cluster survives one after the other."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from hamgr.drill.fault import Fault, again, at_once

_TWO_AT_ONCE = 0.2
_AGAIN = 0.05
LONGEST_HOLD_S = 12.0
"""In a soak; what takes longer alone is drilled by name."""


def random_faults(faults: Sequence[Fault], rounds: int, seed: int, *, synchronous: bool = False) -> list[Fault]:
    """A reproducible sequence of `rounds` faults, drawn by weight, now and then two at once or one twice.

    Only what leaves somebody who can take writes is combined.
    """
    choice = random.Random(seed)
    chosen = [_one(choice, faults, synchronous) for _ in range(rounds)]
    return [_shortened(fault) for fault in chosen]


def _one(choice: random.Random, faults: Sequence[Fault], synchronous: bool) -> Fault:
    first = _drawn(choice, faults)
    dice = choice.random()
    if dice < _TWO_AT_ONCE:
        pairs = [pair for second in faults if (pair := _pair(first, second)) and not _is_hopeless(pair, synchronous)]
        return _drawn(choice, pairs) if pairs else first
    if dice < _TWO_AT_ONCE + _AGAIN and first.moves_leader is not False and first.strikes_again:
        twice = again(first)
        return first if _is_hopeless(twice, synchronous) else twice
    return first


def _drawn(choice: random.Random, faults: Sequence[Fault]) -> Fault:
    return choice.choices(faults, [fault.weight for fault in faults])[0]


def _pair(first: Fault, second: Fault) -> Fault | None:
    """Both at once, the one that leaves the leader alone first: a moved leader is no target any more."""
    if first.harms & second.harms:
        return None
    return at_once(sorted((first, second), key=lambda fault: fault.changes_allowed))


def _is_hopeless(fault: Fault, synchronous: bool) -> bool:
    return fault.may_stop_writes(synchronous=synchronous)


def _shortened(fault: Fault) -> Fault:
    return replace(fault, hold_s=min(fault.hold_s, LONGEST_HOLD_S))
