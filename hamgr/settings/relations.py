"""Relations between timings: which are impossible, which are unwise, which are adjusted and said so."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import replace

from hamgr.core.policy import KILL_BUDGET_S, STOP_BEFORE_KILL_S, Policy
from hamgr.settings.problem import Problem, join, warning

MIN_RENEWALS = 2
"""So many renewals must fit between two deadlines, or one lost reply costs the leadership."""

SLOWEST_PROBE_TTLS = 4

SHARE_OF_LOOP = 0.2
"""loop_wait is not shrunk below this share of ttl: more decisions cost CPU and bring nothing."""


def usable_s(policy: Policy) -> float:
    """Seconds of a lease in which it can be renewed before the agent must begin to stop the server."""
    return policy.ttl_s - policy.margin_s - KILL_BUDGET_S - STOP_BEFORE_KILL_S


def timing_problems(policy: Policy, at: str = "") -> tuple[Problem, ...]:
    """Timings that contradict each other. Paths are those of dynamic configuration below `at`."""
    problems = []
    needed = MIN_RENEWALS * policy.renew_interval_s
    if policy.renew_interval_s <= 0 or usable_s(policy) < needed:
        text = (
            f"{policy.ttl_s:g} s leave {usable_s(policy):.2f} s for renewals (margin {policy.margin_s:.2f} s, stop "
            f"{STOP_BEFORE_KILL_S:g} s, kill {KILL_BUDGET_S:g} s); {MIN_RENEWALS} renewals need {needed:.2f} s"
        )
        problems.append(Problem(join(at, "ttl"), text, "raise ttl"))
    if policy.election_window_s >= policy.ttl_s:
        text = f"{policy.election_window_s:g} s is not shorter than ttl ({policy.ttl_s:g} s)"
        problems.append(warning(join(at, "election_window"), text, "an election should end within one lease"))
    return (*problems, *_slow_probes(policy, at))


def _slow_probes(policy: Policy, at: str) -> Iterator[Problem]:
    timeouts_s = {
        "probe_connection_timeout": policy.probe_connection_timeout_s,
        "probe_commit_timeout": policy.probe_commit_timeout_s,
        "probe_disk_timeout": policy.probe_disk_timeout_s,
    }
    for key, timeout_s in timeouts_s.items():
        if timeout_s > SLOWEST_PROBE_TTLS * policy.ttl_s:
            text = f"{timeout_s:g} s is more than {SLOWEST_PROBE_TTLS} ttl ({policy.ttl_s:g} s)"
            yield warning(join(at, key), text, "a server that hangs stays the primary for so long")


def overridden_rule(mode: str, parameters: Container[str], at: str) -> Iterator[Problem]:
    """A synchronous_standby_names of one's own beside synchronous_mode."""
    if mode != "off" and "synchronous_standby_names" in parameters:
        path = join(at, "parameters.synchronous_standby_names")
        yield warning(path, "has no effect while synchronous_mode is on: hamgr names the standbys", "leave it out")


def adjust_timings(policy: Policy, given: Container[str], at: str = "") -> tuple[Policy, tuple[Problem, ...]]:
    """Timings with loop_wait + 2 * retry_timeout <= ttl, as Patroni's rule has it, and a warning per given
    key that had to change: loop_wait shrinks first, then retry_timeout. Defaults change without a word.
    """
    least = min(policy.loop_wait_s, max(0.1, SHARE_OF_LOOP * policy.ttl_s))
    room = policy.ttl_s - 2 * policy.retry_timeout_s
    if policy.loop_wait_s <= room + 1e-9:
        return policy, ()
    adjusted = replace(policy, loop_wait_s=max(least, round(room, 6)))
    if room < least:
        adjusted = replace(adjusted, retry_timeout_s=round((policy.ttl_s - least) / 2, 6))
    changes = (
        ("loop_wait", policy.loop_wait_s, adjusted.loop_wait_s),
        ("retry_timeout", policy.retry_timeout_s, adjusted.retry_timeout_s),
    )
    rule = f"loop_wait + 2 * retry_timeout must not exceed ttl ({policy.ttl_s:g} s)"
    return adjusted, tuple(
        warning(join(at, key), f"{old:g} s is taken as {new:g} s", rule)
        for key, old, new in changes
        if old != new and key in given
    )
