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
    "differs unseen",
)
"""Slowness does not count: the cluster has to be seen doing harm."""

CATCHING = (
    (Mutant.NO_GUARD, None, ("isolate", "freeze_agent"), 50),
    (Mutant.LEASE_FROM_REPLY, None, ("slow_replies",), 100),
    (Mutant.SENTRY_TOO_LATE, None, ("lose_control_in_promotion",), 50),
    (Mutant.POSTMASTER_ONLY, None, ("kill_postmaster", "isolate"), 50),
    (Mutant.BALLOTS_NOT_COMPARED, None, ("slow_etcd_and_lose_host",), 100),
    (Mutant.PROMISE_IGNORED, None, ("cut_etcd",), 50),
    (Mutant.BIRTHS_ALIKE, None, ("isolate_in_promotion",), 50),
    (Mutant.MOVE_NOT_LIMITED, None, ("shorten_ttl_and_lose_control",), 50),
    (Mutant.RECEIVER_NOT_STOPPED, "quorum", ("suspend_until_vote",), 200),
    (Mutant.SYNC_ORDER_REVERSED, "quorum", ("isolate", "lag", "freeze_agent"), 50),
)
"""Mutant, synchronous mode, the faults that bring it to light, and within how many seeds. With all faults
each was noticed within 300 seeds as well.
"""


@pytest.mark.parametrize(("mutant", "sync", "faults", "seeds"), CATCHING, ids=[each[0].value for each in CATCHING])
def test_a_world_built_wrong_is_noticed(mutant: Mutant, sync: str | None, faults: tuple[str, ...], seeds: int) -> None:
    options = Options(members=3, sync=sync, mutant=mutant, faults=faults)
    violations = (run_seed(seed, options).violation for seed in range(seeds))
    assert any(words in violation for violation in violations for words in OF_SAFETY)


def test_every_mutant_is_tried() -> None:
    assert {each[0] for each in CATCHING} == {*Mutant} - {Mutant.NONE}
