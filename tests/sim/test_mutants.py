"""The checkers bite: each mistake in what surrounds the core is noticed, and by a check of safety."""

from __future__ import annotations

import pytest

from hamgr.sim.mutants import Mutant
from hamgr.sim.run import Options, run_seed

OF_SAFETY = (
    "two servers may",
    "acknowledges a write",
    "leads without write",
    "takes the lead over",
    "that nothing was",
)
"""Slowness does not count: the cluster has to be seen doing harm."""

CATCHING = ((Mutant.NO_GUARD, None, range(0, 5)),)
"""Mutant, synchronous mode, seeds of which one at least notices it. Renewed when the world's chances change."""


@pytest.mark.parametrize(("mutant", "sync", "seeds"), CATCHING, ids=lambda value: getattr(value, "value", None))
def test_a_world_built_wrong_is_noticed(mutant: Mutant, sync: str | None, seeds: range) -> None:
    assert any(
        words in run_seed(seed, Options(members=3, sync=sync, mutant=mutant)).violation
        for seed in seeds
        for words in OF_SAFETY
    )


def test_every_mutant_is_tried() -> None:
    assert {mutant for mutant, _, _ in CATCHING} == {*Mutant} - {Mutant.NONE}
