"""Leads lost by round trips alone: how often every try to renew fails until the server has to be stopped.

Computed, not simulated: a year has tens of millions of renewals, and what is sought is rarer than one of them. Round
trips are independent here; what is slow for a while is a fault that lasts (faults.etcd_stalled, faults.network_cut).
What each loss costs, and who leads then, is simulated like every other fault.
"""

from __future__ import annotations

from dataclasses import dataclass

from hamgr.core.policy import Policy, longest_ask_of
from hamgr.core.rules.lease import OVERDUE_S, PEERS_RETRY_S
from hamgr.settings.relations import usable_s
from hamgr.sim.forecast.causes import YEAR_S
from hamgr.sim.forecast.environment import ROUNDS, Environment
from hamgr.sim.forecast.spread import Spread
from hamgr.sim.lab.network import RETRANSMIT_S, RETRANSMITS
from hamgr.sim.renewal import RETRY_S


@dataclass(frozen=True, slots=True)
class Renewals:
    """`tries` of etcd and `asks` of peers fit between a renewal and the end of the lead; each fails with that share."""

    per_year: float
    tries: int
    try_fails: float
    asks: int
    ask_fails: float

    @property
    def missed_per_year(self) -> float:
        """How often in a year etcd alone would not have kept the lead."""
        return self.per_year * self.try_fails**self.tries

    @property
    def lost_per_year(self) -> float:
        """How often the server is stopped for it, whoever leads then."""
        return self.missed_per_year * (self.ask_fails**self.asks if self.asks else 1.0)


def renewals(policy: Policy, environment: Environment) -> Renewals:
    """What the timings leave of tries, and what the environment makes of each."""
    limit_s = policy.retry_timeout_s / ROUNDS
    request = share_late(environment, limit_s, environment.flush)
    ask_s = longest_ask_of(policy.ttl_s)
    answer = share_late(environment, ask_s / ROUNDS, None)
    first_ask_s = policy.renew_interval_s + min(OVERDUE_S, policy.ttl_s / 10)
    has_peers = policy.failsafe_mode
    return Renewals(
        per_year=YEAR_S / policy.renew_interval_s,
        tries=_fitting(policy.renew_interval_s, limit_s + RETRY_S, usable_s(policy)),
        try_fails=1.0 - (1.0 - request) ** ROUNDS,
        asks=_fitting(first_ask_s, ask_s + PEERS_RETRY_S, usable_s(policy)) if has_peers else 0,
        ask_fails=1.0 - (1.0 - answer) ** (ROUNDS * (environment.members - 1)),
    )


def share_late(environment: Environment, limit_s: float, flush: Spread | None) -> float:
    """Share of messages whose answer comes later than that, by any one of what may make it late. At most 1."""
    share = environment.round_trip.share_above(limit_s)
    if flush is not None:
        share += flush.share_above(limit_s)
    late_s, lost = 0.0, 1.0
    for number in range(RETRANSMITS):
        late_s += RETRANSMIT_S * 2**number
        lost *= environment.packet_loss
        if late_s > limit_s:
            break
    return min(1.0, share + 2 * lost)


def _fitting(first_s: float, every_s: float, until_s: float) -> int:
    count, at_s = 0, first_s
    while at_s < until_s:
        count, at_s = count + 1, at_s + every_s
    return count
