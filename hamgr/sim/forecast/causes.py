"""What breaks in a forecast: how each cause strikes the simulated world, how it ends, and how often it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from math import comb

from hamgr.core.cluster import Request
from hamgr.core.policy import longest_ask_of
from hamgr.sim.forecast.environment import Environment, Often, Rate, fixed
from hamgr.sim.forecast.spread import Spread
from hamgr.sim.network import CLIENT
from hamgr.sim.postgres import Disk
from hamgr.sim.world import World

YEAR_S = 365.25 * 86400.0
ROUND_TRIPS = "round_trips"
STEPS = 32


class Kind(Enum):
    """When a change of leader was for nothing."""

    ENDS = "ends"
    """It is over by itself: needless where it was over before another member led."""
    KILLS = "kills"
    """The server is dead: never."""
    SPARES = "spares"
    """The server was well all the time: always."""
    PLANNED = "planned"
    """By order: never."""


Do = Callable[[World, str], None]


@dataclass(frozen=True, slots=True)
class Cause:
    """`of_member`: rates are per member, and it strikes leader and replicas alike; else the cluster as a whole.
    `by_lease`: what it comes to depends on the lease. `ends_with_lead`: it lasts until the leader has lost the lead.
    """

    key: str
    title: str
    kind: Kind
    strike: Do
    end: Do
    of_member: bool = True
    by_lease: bool = False
    ends_with_lead: bool = False


def _nothing(_world: World, _name: str) -> None:
    return None


def lose_host(world: World, name: str) -> None:
    world.lose_host(name)


def bring_back(world: World, name: str) -> None:
    world.hosts[name].begin()


def pause(world: World, name: str) -> None:
    world.clients.leave_in_flight(world.servers[name])
    world.hosts[name].suspend()


def go_on(world: World, name: str) -> None:
    if world.hosts[name].is_up:
        world.hosts[name].resume()


def kill_server(world: World, name: str) -> None:
    world.crash_server(name)


def hang_server(world: World, name: str) -> None:
    server = world.servers[name]
    if server.is_alive:
        server.freeze("fault")
        world.shared.replication.went_silent(server)


def thaw(world: World, name: str) -> None:
    world.hosts[name].thaw_all()


def fill_disk(world: World, name: str) -> None:
    world.servers[name].disk = Disk.FULL


def hang_disk(world: World, name: str) -> None:
    world.servers[name].disk = Disk.HUNG


def mend_disk(world: World, name: str) -> None:
    world.servers[name].disk = Disk.WELL


def kill_agent(world: World, name: str) -> None:
    world.hosts[name].kill_agent()


def freeze_agent(world: World, name: str) -> None:
    world.hosts[name].freeze_agent()


def cut_network(world: World, name: str) -> None:
    world.isolate(name)
    world.ground.network.cut(name, CLIENT)


def mend_network(world: World, name: str) -> None:
    world.mend(name)
    world.ground.network.mend(name, CLIENT)
    world.shared.replication.look_at_cuts()


def cut_from_etcd(world: World, name: str) -> None:
    world.cut_off(name)


def stop_etcd(world: World, _name: str) -> None:
    world.stop_etcd(refuses=False)


def start_etcd(world: World, _name: str) -> None:
    world.start_etcd()


def delay_answers(world: World, name: str) -> None:
    """Every answer to that member comes after it has been given up."""
    network, policy = world.ground.network, world.policy
    patience_s = max(policy.retry_timeout_s / 2, longest_ask_of(policy.ttl_s))
    network.replies_slower_s[name] = network.talk_slower_s[name] = (patience_s, patience_s)


def hurry_answers(world: World, name: str) -> None:
    network = world.ground.network
    network.replies_slower_s.pop(name, None)
    network.talk_slower_s.pop(name, None)


def order_switchover(world: World, _name: str) -> None:
    leader = world.leader()
    if leader:
        world.ask_for(Request(leader=leader))


CAUSES: tuple[Cause, ...] = (
    Cause("host_lost", "host lost", Kind.KILLS, lose_host, bring_back, by_lease=True),
    Cause("host_paused", "host stands still", Kind.ENDS, pause, go_on, by_lease=True),
    Cause("server_killed", "PostgreSQL killed", Kind.KILLS, kill_server, _nothing),
    Cause("server_hung", "PostgreSQL hung", Kind.ENDS, hang_server, thaw),
    Cause("disk_full", "disk full", Kind.ENDS, fill_disk, mend_disk),
    Cause("disk_hung", "disk hung", Kind.ENDS, hang_disk, mend_disk),
    Cause("agent_killed", "agent killed", Kind.SPARES, kill_agent, _nothing),
    Cause("agent_frozen", "agent frozen", Kind.SPARES, freeze_agent, thaw),
    Cause("network_cut", "cut off from everybody", Kind.ENDS, cut_network, mend_network, by_lease=True),
    Cause("etcd_unreachable", "cut off from etcd", Kind.SPARES, cut_from_etcd, mend_network, by_lease=True),
    Cause("etcd_stalled", "etcd stalls", Kind.SPARES, stop_etcd, start_etcd, of_member=False, by_lease=True),
    Cause("etcd_elects", "etcd loses its leader", Kind.SPARES, stop_etcd, start_etcd, of_member=False),
    Cause("etcd_gone", "etcd without majority", Kind.SPARES, stop_etcd, start_etcd, of_member=False),
    Cause(
        ROUND_TRIPS,
        "slow round trips",
        Kind.SPARES,
        delay_answers,
        hurry_answers,
        of_member=False,
        by_lease=True,
        ends_with_lead=True,
    ),
    Cause("switchover", "planned switchover", Kind.PLANNED, order_switchover, _nothing, of_member=False),
)
BY_KEY = {cause.key: cause for cause in CAUSES}


def rates(environment: Environment) -> Iterator[tuple[Cause, float, Spread]]:
    """Causes that happen at all: per member, or per cluster and year; and how long each lasts. Slow round trips count
    as one a year here: how often they cost the lead depends on the configuration (renewals.py).
    """
    for cause in CAUSES:
        per_year, lasts = _rate(cause, environment)
        if per_year > 0:
            yield cause, per_year, lasts


def _rate(cause: Cause, environment: Environment) -> tuple[float, Spread]:
    lost = environment.faults.etcd_member_lost
    if cause.key == ROUND_TRIPS:
        return 1.0, fixed(0.0)
    if cause.key == "etcd_elects":
        # Each member of etcd leads for its share of the time; a single one elects nobody.
        return lost.per_year if environment.etcd_members > 2 else 0.0, environment.etcd_election
    if cause.key == "etcd_gone":
        often = majority_lost_per_year(environment.etcd_members, lost.per_year, lost.lasts.mean)
        return often, outage(environment.etcd_members, lost.lasts)
    given: Rate | Often = getattr(environment.faults, cause.key)
    return given.per_year, given.lasts if isinstance(given, Rate) else fixed(0.0)


def majority_lost_per_year(members: int, lost_per_year: float, repair_s: float) -> float:
    """How often so many members of etcd are away at once that the rest is no majority.

    Losses are independent (Poisson) and rare compared with their repair: one member's loss ends the majority while
    `spare` of the others are away.
    """
    spare = (members - 1) // 2
    share_away = min(1.0, lost_per_year * repair_s / YEAR_S)
    others_away: float = comb(members - 1, spare) * share_away**spare
    return members * lost_per_year * others_away


def outage(members: int, repair: Spread) -> Spread:
    """How long the majority is away then: until the first of those that it lacks is repaired. One of them has just been
    lost; `spare` others were away already, each for a while that came upon a repair at random: what is left of that
    one is longer than t with probability (integral of S beyond t) / mean, S being the repair's own.
    """
    spare = (members - 1) // 2
    if not spare:
        return repair
    moments = _moments(repair)
    left, beyond_s = [0.0], 0.0
    for earlier, later in reversed(list(pairwise(moments))):
        beyond_s += (later - earlier) * (repair.share_above(earlier) + repair.share_above(later)) / 2
        left.append(beyond_s)
    points = [(0.0, 0.0)]
    for moment, more_s in zip(moments, reversed(left), strict=True):
        share = 1.0 - repair.share_above(moment) * (more_s / beyond_s) ** spare
        if share > points[-1][0]:
            points.append((share, moment))
    return Spread((*points[:-1], (1.0, points[-1][1])))


def _moments(spread: Spread) -> list[float]:
    """From 0 to the longest, close enough for a curve between them."""
    ends = sorted({0.0, *(value for _, value in spread.points)})
    steps = range(STEPS)
    return [low + (high - low) * step / STEPS for low, high in pairwise(ends) for step in steps] + [ends[-1]]
