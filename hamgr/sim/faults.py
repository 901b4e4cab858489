"""What is broken, by name: each fault is a function of the world, chance, and the member that it strikes."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from hamgr.core import actions, facts
from hamgr.core.cluster import Request
from hamgr.sim.network import CLIENT, ETCD
from hamgr.sim.postgres import Disk
from hamgr.sim.world import World

Fault = Callable[[World, random.Random, str], None]

BACK_AFTER_S = 1.0
UNBOUNDED = 1_000_000
PROMOTION_WITHIN_S = 3.0
PROMOTION_LOOK_S = 0.01


def _during(world: World, after_s: float, do: Callable[[], None]) -> None:
    """Do that in so many seconds, unless the faults of this phase are over by then."""
    phase = world.phase
    world.ground.at(world.now + after_s, lambda: do() if world.phase == phase else None)


def crash_server(world: World, _dice: random.Random, name: str) -> None:
    world.crash_server(name)


def kill_postmaster(world: World, _dice: random.Random, name: str) -> None:
    """Busy backends go on. Not where the sentry is the last that holds the deadline: it ends with its postmaster, which
    docs/adr/0009 names as its limit.
    """
    server = world.servers[name]
    if world.hosts[name].is_abandoned:
        server.stop(clean=False)
    elif server.is_alive:
        server.lose_postmaster(world.ground.draw(world.ground.pace.orphan))


def hang_server(world: World, _dice: random.Random, name: str) -> None:
    server = world.servers[name]
    if server.is_alive and not world.hosts[name].is_abandoned:
        world.clients.leave_in_flight(server)
        server.freeze("fault")
        world.shared.replication.went_silent(server)


def kill_agent(world: World, _dice: random.Random, name: str) -> None:
    world.hosts[name].kill_agent()


def freeze_agent(world: World, _dice: random.Random, name: str) -> None:
    world.hosts[name].freeze_agent()


def kill_guard(world: World, _dice: random.Random, name: str) -> None:
    world.hosts[name].kill_guard()


def freeze_guard(world: World, _dice: random.Random, name: str) -> None:
    world.hosts[name].freeze_guard()


def kill_both(world: World, _dice: random.Random, name: str) -> None:
    """Agent and guard together; the service is back after a second. No backends outlive a dead postmaster then: nobody
    would end them at the deadline, which docs/adr/0009 names as its limit.
    """
    host = world.hosts[name]
    if host.server.orphans:
        host.server.stop(clean=False)
    host.kill_control()
    _during(world, BACK_AFTER_S, lambda: host.begin() if host.is_up else None)


def _abandon(world: World, name: str) -> None:
    world.hosts[name].kill_control()
    world.hosts[name].is_abandoned = True


def lose_control(world: World, dice: random.Random, name: str) -> None:
    """Agent and guard are gone for good: whatever ends the server then has to be inside it. Not while a server starts
    as a primary: until it lets sessions in it has no sentry; nor while it is frozen, and its sentry with it
    (docs/adr/0009).
    """
    server, starts = world.servers[name], world.agents[name].state.running(actions.StartPrimary)
    if not server.is_frozen and (server.has_sentry or not (server.may_acknowledge or starts)):
        _abandon(world, name)
    else:
        kill_both(world, dice, name)


def lose_host(world: World, _dice: random.Random, name: str) -> None:
    world.lose_host(name)


def suspend_host(world: World, dice: random.Random, name: str) -> None:
    """The whole host stands still for a while, with a request of a client in it."""
    host = world.hosts[name]
    world.clients.leave_in_flight(host.server)
    host.suspend()
    _during(world, dice.uniform(0.2, 12.0), lambda: host.resume() if host.is_up else None)


def suspend_until_vote(world: World, dice: random.Random, name: str) -> None:
    """It thaws in the very moment in which the others elect, and one of them has no way to it."""
    host = world.hosts[name]
    world.clients.leave_in_flight(host.server)
    host.suspend()
    others = [other for other in world.hosts if other != name]
    late_s = dice.uniform(0.0, 0.005)
    world.ground.network.cut(name, dice.choice(others))
    votes_wanted = dice.choice((1, len(others)))
    votes = [0]

    def look(puts: Mapping[str, tuple[Any, int]], _gone: tuple[str, ...]) -> None:
        votes[0] += any(key.startswith("ballots/") for key in puts)
        if votes[0] >= votes_wanted:
            votes[0] = -UNBOUNDED
            _during(world, late_s, lambda: host.resume() if host.is_up else None)

    world.etcd.before_write.append(look)


def cut_etcd(world: World, _dice: random.Random, name: str) -> None:
    world.cut_off(name)


def cut_peers(world: World, _dice: random.Random, name: str) -> None:
    world.cut_from_peers(name)


def cut_one_peer(world: World, dice: random.Random, name: str) -> None:
    other = dice.choice([each for each in world.hosts if each != name])
    world.ground.network.cut(name, other, both_ways=dice.random() < 0.5)
    world.shared.replication.look_at_cuts()


def isolate(world: World, _dice: random.Random, name: str) -> None:
    """From etcd and peers; clients still reach it."""
    world.isolate(name)


def isolate_two(world: World, dice: random.Random, name: str) -> None:
    """Together with another one, which it still reaches."""
    other = dice.choice([each for each in world.hosts if each != name])
    for each in (name, other):
        world.isolate(each)
    world.ground.network.mend(name, other)


def unplug(world: World, _dice: random.Random, name: str) -> None:
    """No network at all, and the host knows."""
    world.isolate(name)
    world.ground.network.cut(name, CLIENT)
    world.ground.network.unplugged[name] = True


def cut_to_etcd(world: World, _dice: random.Random, name: str) -> None:
    """Requests do not arrive, what etcd sends does."""
    world.ground.network.cut(name, ETCD, both_ways=False)


def cut_from_etcd(world: World, _dice: random.Random, name: str) -> None:
    """Requests arrive, replies do not."""
    world.ground.network.cut(ETCD, name, both_ways=False)


def slow_replies(world: World, dice: random.Random, name: str) -> None:
    """etcd's replies to this member take nearly as long as it waits for them; then it is cut off."""
    longest_s = world.policy.retry_timeout_s / 2
    world.ground.network.replies_slower_s[name] = (0.6 * longest_s, 0.95 * longest_s)
    if dice.random() < 0.7:
        _during(world, dice.uniform(1.5, 4.0), lambda: isolate(world, dice, name))


def slow_etcd(world: World, dice: random.Random, _name: str) -> None:
    """Requests to etcd take long, each as long as it likes."""
    world.ground.network.etcd_slower_s = (0.0, dice.choice((0.1, 0.5, 1.5)))


def slow_etcd_and_lose_host(world: World, dice: random.Random, name: str) -> None:
    """Ballots come in one after the other, and not all are equal."""
    world.ground.network.etcd_slower_s = (0.0, 1.2)
    lag(world, dice, name)
    _during(world, dice.uniform(0.2, 1.0), lambda: world.lose_host(world.leader() or name))


def lossy_etcd(world: World, dice: random.Random, _name: str) -> None:
    world.ground.network.loss = dice.choice((0.05, 0.3))


def etcd_elects(world: World, dice: random.Random, _name: str) -> None:
    """The leader of etcd is lost, another is elected."""
    world.stop_etcd(refuses=False)
    _during(world, dice.uniform(0.5, 2.0), world.start_etcd)


def etcd_gone(world: World, dice: random.Random, _name: str) -> None:
    """Its majority is lost, or all of it frozen."""
    world.stop_etcd(refuses=dice.random() < 0.5)


def full_disk(world: World, _dice: random.Random, name: str) -> None:
    world.servers[name].disk = Disk.FULL


def hung_disk(world: World, _dice: random.Random, name: str) -> None:
    world.servers[name].disk = Disk.HUNG


def lag(world: World, dice: random.Random, name: str) -> None:
    """A replica takes nothing any more."""
    others = [other for other in world.hosts if other != world.leader()] or [name]
    world.servers[dice.choice(others)].receives = False


def lag_and_lose_leader(world: World, dice: random.Random, name: str) -> None:
    lag(world, dice, name)
    _during(world, dice.uniform(0.1, 1.0), lambda: world.lose_host(name))


def switchover(world: World, dice: random.Random, _name: str) -> None:
    leader = world.leader()
    others = [other for other in world.hosts if other != leader]
    if leader:
        world.ask_for(Request(leader=leader, candidate=dice.choice(["", *others])))


def failover(world: World, dice: random.Random, _name: str) -> None:
    """By order, to a member that is named."""
    world.ask_for(Request(candidate=dice.choice([other for other in world.hosts if other != world.leader()])))


def restart(world: World, dice: random.Random, name: str) -> None:
    agent = world.agents[name]
    agent.post(facts.Ordered(dice.randrange(UNBOUNDED), "restart", agent.clock_now()))


def reinitialize(world: World, dice: random.Random, name: str) -> None:
    """A member that leads refuses it."""
    agent = world.agents[name]
    if agent.state.lease.term:
        return
    agent.post(facts.Ordered(dice.randrange(UNBOUNDED), "reinitialize", agent.clock_now()))


def terminate(world: World, _dice: random.Random, name: str) -> None:
    agent = world.agents[name]
    agent.post(facts.StopOrdered(agent.clock_now()))


def replace_agent(world: World, _dice: random.Random, name: str) -> None:
    agent = world.agents[name]
    agent.post(facts.ReplaceOrdered(agent.clock_now()))


def pool_gone(world: World, _dice: random.Random, _name: str) -> None:
    world.shared.front.answers = False


def pool_busy(world: World, _dice: random.Random, _name: str) -> None:
    world.shared.front.is_busy = True


def change_sync(world: World, dice: random.Random, _name: str) -> None:
    """Another synchronous mode, or another number of standbys to wait for."""
    if not world.etcd.answers:
        return
    if world.policy.synchronous_mode == "off":
        world.change_policy(pause=False)
    else:
        mode = dice.choice(("on", "quorum"))
        world.change_policy(synchronous_mode=mode, synchronous_node_count=dice.choice((1, 2)))


def toggle_failsafe(world: World, _dice: random.Random, _name: str) -> None:
    if world.etcd.answers:
        world.change_policy(failsafe_mode=not world.policy.failsafe_mode)


def change_ttl(world: World, dice: random.Random, _name: str) -> None:
    if world.etcd.answers:
        world.change_policy(ttl_s=dice.choice((3.0, 5.0, 10.0, 20.0)))


def shorten_ttl_and_lose_control(world: World, dice: random.Random, name: str) -> None:
    """The leader key moves to a lease that is much shorter, and then nobody is left on the host to renew any."""
    if not world.etcd.answers:
        return
    leader, ttl_s = world.leader() or name, min(world.policy.ttl_s, 5.0)
    world.change_policy(ttl_s=4 * ttl_s)
    world.ground.at(world.now + 1.0, lambda: world.change_policy(ttl_s=ttl_s))
    _during(world, 1.0 + dice.uniform(0.0, 0.2), lambda: lose_control(world, dice, leader))


def _in_promotion(world: World, late_s: float, do: Callable[[str], None]) -> None:
    """Do that to whoever is promoted next, so many seconds after the promotion began."""
    end = world.now + PROMOTION_WITHIN_S

    def look() -> None:
        promoted = [each for each, agent in world.agents.items() if agent.state.running(actions.Promote)]
        if promoted:
            _during(world, late_s, lambda: do(promoted[0]))
        elif world.now < end:
            _during(world, PROMOTION_LOOK_S, look)

    look()


def lose_control_in_promotion(world: World, dice: random.Random, name: str) -> None:
    """The lead is handed over, and whoever is promoted loses guard and agent meanwhile. Not where its server, and the
    sentry with it, stands still by then (docs/adr/0009).
    """
    switchover(world, dice, world.leader() or name)

    def lose(promoted: str) -> None:
        if not world.servers[promoted].is_frozen:
            _abandon(world, promoted)

    _in_promotion(world, dice.uniform(0.0, 0.2), lose)


def isolate_in_promotion(world: World, dice: random.Random, name: str) -> None:
    """The leader's server ends, and its successor is cut off before all have heard of its timeline. It may end as well,
    and its agent, so that nobody knows any more what it was.
    """
    world.crash_server(world.leader() or name)
    isolates = dice.choice((isolate, isolate_two))
    ends_after_s = dice.choice((0.0, dice.uniform(0.0, 5.0)))

    def strike(promoted: str) -> None:
        isolates(world, dice, promoted)
        if ends_after_s:
            _during(world, ends_after_s, lambda: _start_anew(world, dice, promoted))

    _in_promotion(world, dice.uniform(0.0, 0.2), strike)


def _start_anew(world: World, dice: random.Random, name: str) -> None:
    world.crash_server(name)
    kill_both(world, dice, name)


FAULTS: tuple[Fault, ...] = (
    crash_server, crash_server, kill_postmaster, kill_postmaster, hang_server, kill_agent, freeze_agent, kill_guard,
    freeze_guard, kill_both, lose_control, lose_host, lose_host, suspend_host, suspend_host,
    suspend_until_vote, suspend_until_vote, suspend_until_vote,
    cut_etcd, cut_etcd, cut_peers, cut_one_peer, isolate, isolate, isolate_two, unplug, cut_to_etcd, cut_from_etcd,
    slow_replies, slow_replies, slow_etcd, slow_etcd_and_lose_host, slow_etcd_and_lose_host, lossy_etcd, etcd_elects,
    etcd_gone, full_disk, hung_disk, lag, lag_and_lose_leader, switchover, switchover, switchover, failover, restart,
    reinitialize, terminate, replace_agent, pool_gone, pool_busy, change_sync, toggle_failsafe, change_ttl, change_ttl,
    shorten_ttl_and_lose_control, lose_control_in_promotion, isolate_in_promotion, isolate_in_promotion,
)  # fmt: skip

TAKERS: tuple[Fault, ...] = (
    crash_server, kill_postmaster, switchover, failover, terminate, lose_host, isolate, isolate_two,
    slow_etcd_and_lose_host, lag_and_lose_leader, suspend_host, isolate_in_promotion,
)  # fmt: skip
"""Those after which another one mostly leads, if they strike the leader."""


def recover(world: World) -> None:
    """Every fault is over: all is up, reachable and well."""
    world.phase += 1
    world.ground.network.heal()
    world.start_etcd()
    world.shared.front.answers, world.shared.front.is_busy = True, False
    for host in world.hosts.values():
        host.thaw_all()
        host.server.disk = Disk.WELL
        world.shared.replication.receives_again(host.server)
        host.begin()
