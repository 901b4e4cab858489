"""What a configuration will give: durations with tails, rates, and what single faults add up to in a year."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import pytest
import yaml

from hamgr.core.policy import Policy
from hamgr.settings import SettingsError
from hamgr.sim.forecast.causes import ROUND_TRIPS, YEAR_S, majority_lost_per_year, outage, rates
from hamgr.sim.forecast.environment import DEFAULTS, Environment, environment_problems, read_environment
from hamgr.sim.forecast.plan import Strike, WorldPlan, plan_worlds
from hamgr.sim.forecast.renewals import renewals
from hamgr.sim.forecast.spread import Both, parse_spread
from hamgr.sim.forecast.strike import Outcome, Task, WorldResult, run_world
from hamgr.sim.forecast.weigh import weigh
from hamgr.sim.lab.field import Setting
from hamgr.sim.lab.observer import Observer, gaps_of
from hamgr.sim.lab.ours import OurCluster
from hamgr.sim.ranks import at_share, at_weighted_share

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def environment() -> Environment:
    return read_environment(None, ())


def suffer(environment: Environment, policy: Policy, *strikes: Strike, number: int = 0) -> list[Outcome]:
    result = run_world(Task(policy, environment, WorldPlan(number, strikes)))
    assert not result.violation
    assert not result.problem
    return list(result.outcomes)


# -- durations -------------------------------------------------------------------------------------------------


def test_a_spread_draws_what_its_quantiles_say() -> None:
    spread = parse_spread({"p50": "1ms", "p99": "10ms", "max": "1s"})
    dice = random.Random(1)
    drawn = sorted(spread.draw(dice) for _ in range(20_000))
    assert drawn[10_000] == pytest.approx(0.001, rel=0.05)
    assert sum(value > 0.010 for value in drawn) == pytest.approx(200, abs=60)
    assert drawn[-1] <= 1.0
    assert spread.share_above(0.010) == pytest.approx(0.01)
    assert spread.share_above(spread.at(0.7)) == pytest.approx(0.3)
    assert spread.mean == pytest.approx(sum(drawn) / len(drawn), rel=0.1)


def test_two_ways_are_a_round_trip_in_the_mean_and_in_the_tail() -> None:
    spread = parse_spread({"p50": "1ms", "p99": "10ms", "max": "1s"})
    dice, way = random.Random(1), spread.one_way
    trips = [way.draw(dice) + way.draw(dice) for _ in range(20_000)]
    assert sum(trips) / len(trips) == pytest.approx(spread.mean, rel=0.1)
    for seconds in (0.100, 0.500):
        assert sum(trip > seconds for trip in trips) / len(trips) == pytest.approx(spread.share_above(seconds), rel=0.3)


def test_spreads_travel_to_other_processes() -> None:
    spread = parse_spread({"p50": "1ms", "max": "1s"})
    for each in (spread, Both(spread, spread)):
        again = pickle.loads(pickle.dumps(each))
        assert type(again) is type(each)
        assert again.draw(random.Random(4)) == each.draw(random.Random(4))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"p50": "1ms"}, "max"),
        ({"p50": "9ms", "p99": "1ms", "max": "1s"}, "smaller"),
        ({"median": "1ms", "max": "1s"}, "quantiles"),
        ("-5ms", "negative"),
        ("fast", "time"),
        (None, "missing"),
        ([1, 2], "time"),
    ],
)
def test_a_spread_that_makes_no_sense_is_refused(value: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_spread(value)


def test_ranks_are_values_that_were_seen() -> None:
    assert at_share([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert at_share([1.0, 2.0, 3.0, 4.0], 0.95) == 4.0
    assert at_share([7.0], 0.5) == 7.0
    assert at_weighted_share([(1.0, 0.9), (50.0, 0.1)], 0.5) == 1.0
    assert at_weighted_share([(1.0, 0.9), (50.0, 0.1)], 0.95) == 50.0


# -- the environment -------------------------------------------------------------------------------------------


def test_the_sample_environment_is_what_is_assumed_without_one(environment: Environment) -> None:
    path = ROOT / "config" / "environment.yml"
    assert read_environment(path, ()) == environment
    assert yaml.safe_load(path.read_text()).keys() == DEFAULTS.keys()


def test_changes_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "environment.yml"
    path.write_text("members: 5\nround_trip: {p50: 2ms, max: 9ms}\n")
    found = read_environment(path, ("members=4", "round_trip.p99=8ms", "faults.host_lost.per_year=3"))
    assert found.members == 4
    assert found.round_trip.at(0.99) == pytest.approx(0.008)
    assert found.faults.host_lost.per_year == 3
    assert found.faults.switchover.per_year == 12


@pytest.mark.parametrize(
    ("text", "changes", "reason"),
    [
        ("members: 1\n", (), "members"),
        ("members: -3\n", (), "members"),
        ("packet_loss: 2\n", (), "packet_loss"),
        ("round_trip: {p50: 1ms}\n", (), "round_trip"),
        ("faults: {host_lost: {per_year: -1}}\n", (), "faults.host_lost.per_year"),
        ("faults: {host_los: {per_year: 1}}\n", (), "host_lost"),
        ("scope: main\npostgresql: {data_dir: /x}\n", (), "member"),
        ("services: {db: {image: postgres}}\n", (), "services"),
        ("[1, 2]\n", (), "mapping"),
        ("a: b: c\n", (), "YAML"),
        ("members: 3\n", ("members",), "KEY=VALUE"),
        ("members: 3\n", ("nothing.at.all=1",), "nothing.at.all"),
        ("members: 3\n", ("members=many",), "members"),
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(
    tmp_path: Path, text: str, changes: tuple[str, ...], reason: str
) -> None:
    path = tmp_path / "environment.yml"
    path.write_text(text)
    with pytest.raises(SettingsError) as refused:
        read_environment(path, changes)
    assert reason in "\n".join(str(problem) for problem in refused.value.problems)


def test_an_environment_in_which_nothing_can_work_is_named() -> None:
    slow = read_environment(None, ("round_trip={p50: 1500ms, max: 2s}",))
    assert any("retry_timeout" in str(each) for each in environment_problems(slow, Policy()))
    lone = read_environment(None, ("members=2",))
    policy = Policy(synchronous_mode="quorum", synchronous_node_count=2)
    assert any("synchronous_node_count" in str(each) for each in environment_problems(lone, policy))


@pytest.mark.parametrize("ttl_s", [5.0, 2.0])
def test_a_flush_that_takes_longer_than_a_call_or_a_lease_permits_is_named(ttl_s: float) -> None:
    policy = Policy(ttl_s=ttl_s, retry_timeout_s=3.0)
    slow = read_environment(None, ("flush=3s",))
    assert any("retry_timeout" in str(each) for each in environment_problems(slow, policy))
    within_call = read_environment(None, ("flush={p50: 700ms, max: 1s}",))
    named = any("flush" in str(each) and "raise ttl" in str(each) for each in environment_problems(within_call, policy))
    assert named == (ttl_s == 2.0)


def test_an_outage_of_etcd_ends_with_the_first_repair_of_those_that_it_lacks() -> None:
    for lasts in (parse_spread({"p50": "10min", "max": "1d"}), parse_spread("2h")):
        assert outage(1, lasts) == lasts
        assert outage(3, lasts).mean == pytest.approx(lasts.mean / 2, rel=0.02)
        assert outage(5, lasts).mean == pytest.approx(lasts.mean / 3, rel=0.02)
        assert outage(5, lasts).at(1.0) <= lasts.at(1.0)
    given = read_environment(None, ("faults.etcd_member_lost.lasts=2h", "etcd_members=3"))
    (gone,) = (lasts for cause, _, lasts in rates(given) if cause.key == "etcd_gone")
    assert gone.mean == pytest.approx(3600.0, rel=0.02)


def test_etcd_loses_its_majority_as_often_as_members_are_away_together() -> None:
    share = 3600.0 / YEAR_S
    assert majority_lost_per_year(1, 2.0, 3600.0) == 2.0
    assert majority_lost_per_year(3, 2.0, 3600.0) == pytest.approx(3 * 2.0 * 2 * (2.0 * share))
    assert majority_lost_per_year(5, 2.0, 3600.0) < majority_lost_per_year(3, 2.0, 3600.0)


# -- plan and weights ------------------------------------------------------------------------------------------


def test_a_plan_stands_for_every_fault_of_a_year(environment: Environment) -> None:
    strikes = [strike for world in plan_worlds(environment, 400) for strike in world.strikes]
    for cause, per_year, _ in rates(environment):
        planned = sum(strike.per_year for strike in strikes if strike.cause == cause.key)
        assert planned == pytest.approx(per_year * (environment.members if cause.of_member else 1)), cause.key


def test_few_faults_stand_for_all_as_well(environment: Environment) -> None:
    strikes = [strike for world in plan_worlds(environment, 30) for strike in world.strikes]
    paused = [strike for strike in strikes if strike.cause == "host_paused"]
    assert sum(strike.per_year for strike in paused) == pytest.approx(50 * 3)


def test_a_year_is_the_sum_of_what_each_fault_costs_times_its_rate(environment: Environment) -> None:
    def cost(per_year: float, gap_s: float, *, needless: bool, lost_bytes: int) -> Outcome:
        strike = Strike("host_paused", True, 0.5, 3.0, per_year)
        return Outcome(strike, int(gap_s > 0), int(needless), gap_s / 10 or None, gap_s, gap_s, lost_bytes)

    outcomes = (
        cost(8.0, 0.0, needless=False, lost_bytes=0),
        cost(1.5, 2.0, needless=True, lost_bytes=100),
        cost(0.5, 6.0, needless=False, lost_bytes=0),
    )
    forecast = weigh([WorldResult(0, outcomes)], Policy(), environment)
    assert forecast.total.failovers_per_year == pytest.approx(2.0)
    assert forecast.total.needless_per_year == pytest.approx(1.5)
    assert forecast.total.down_s_per_year == pytest.approx(1.5 * 2.0 + 0.5 * 6.0)
    assert forecast.lost_bytes_per_year == pytest.approx(150)
    assert forecast.total.failover is not None
    assert (forecast.total.failover.p50, forecast.total.failover.p95) == (2.0, 6.0)


def test_changes_of_leader_and_interruptions_are_counted_apart(environment: Environment) -> None:
    def cost(changes: int, needless: int, down_s: float) -> Outcome:
        return Outcome(Strike("network_cut", True, 0.5, 3.0, 1.0), changes, needless, None, down_s, down_s, 0)

    outcomes = (cost(0, 0, 0.0), cost(0, 0, 0.6), cost(1, 0, 5.0), cost(3, 2, 9.0))
    total = weigh([WorldResult(0, outcomes)], Policy(), environment).total
    assert (total.failovers_per_year, total.needless_per_year, total.interruptions_per_year) == (4.0, 2.0, 1.0)
    assert total.down_s_per_year == pytest.approx(14.6)


def test_what_slow_round_trips_cost_comes_as_often_as_they_take_the_lead() -> None:
    slow = read_environment(None, ("round_trip={p50: 1ms, p90: 5ms, p91: 700ms, max: 1s}",))
    policy = Policy(ttl_s=3.0, loop_wait_s=0.6, retry_timeout_s=1.2)
    strike = Strike(ROUND_TRIPS, True, 0.5, 0.0, 0.5)
    outcomes = (Outcome(strike, 0, 0, None, 0.5, 0.5, 0), Outcome(strike, 1, 1, 0.1, 4.0, 4.0, 0))
    forecast = weigh([WorldResult(0, outcomes)], policy, slow)
    often = renewals(policy, slow).lost_per_year
    assert often > 1000
    assert forecast.total.down_s_per_year == pytest.approx(often * (0.5 + 4.0) / 2, rel=1e-4)
    assert forecast.total.needless_per_year == pytest.approx(often / 2, rel=1e-4)
    assert forecast.total.interruptions_per_year == pytest.approx(often / 2, rel=1e-4)
    assert forecast.as_json()["per_year"]["needless_by_round_trips"] == forecast.total.needless_per_year


def test_quantiles_of_what_is_rare_are_those_of_its_own() -> None:
    assert at_weighted_share([(1.0, 1e-14), (50.0, 9e-14)], 0.5) == 50.0


# -- single faults, by the real core ---------------------------------------------------------------------------


def test_a_lost_host_costs_the_lease_and_a_killed_server_much_less(environment: Environment) -> None:
    lost, killed = suffer(
        environment,
        Policy(),
        Strike("host_lost", True, 0.5, 600.0, 1.0),
        Strike("server_killed", True, 0.5, 0.0, 1.0),
    )
    assert lost.changes
    assert killed.changes
    assert not lost.needless
    assert 3.0 < lost.gap_s < 7.0
    assert killed.gap_s < lost.gap_s / 3


def test_what_spares_the_server_changes_no_leader(environment: Environment) -> None:
    strikes = (
        Strike("agent_killed", True, 0.5, 0.0, 1.0),
        Strike("etcd_unreachable", True, 0.5, 20.0, 1.0),
        Strike("etcd_elects", True, 0.5, 1.5, 1.0),
        Strike("host_lost", False, 0.5, 20.0, 1.0),
    )
    assert not any(outcome.changes or outcome.gap_s for outcome in suffer(environment, Policy(), *strikes))


def test_a_pause_longer_than_the_lease_is_a_needless_failover_and_a_shorter_one_is_none(
    environment: Environment,
) -> None:
    short, long = (
        suffer(environment, policy, Strike("host_paused", True, 0.5, 8.0, 1.0))[0]
        for policy in (Policy(ttl_s=20.0), Policy(ttl_s=3.0, retry_timeout_s=1.0))
    )
    assert not short.changes
    assert short.gap_s > 7.0
    assert long.changes
    assert long.needless
    assert long.gap_s < short.gap_s


def test_a_lead_lost_to_slow_round_trips_is_an_interruption_more_often_than_a_change(environment: Environment) -> None:
    outcomes = suffer(environment, Policy(), *[Strike(ROUND_TRIPS, True, 0.5, 0.0, 1.0)] * 8, number=3)
    assert all(outcome.down_s > 0 for outcome in outcomes)
    assert sum(outcome.interrupts for outcome in outcomes) > sum(outcome.changes for outcome in outcomes)
    assert [outcome.needless for outcome in outcomes] == [outcome.changes for outcome in outcomes]


@pytest.mark.parametrize("change", ["clone=2h", "recovery=30min", "rewind=1h"])
def test_a_cluster_is_given_the_time_that_its_repairs_take(change: str) -> None:
    slow = read_environment(None, (change,))
    strikes = (Strike("host_lost", True, 0.5, 20.0, 1.0), Strike("server_killed", True, 0.5, 0.0, 1.0))
    assert all(outcome.changes for outcome in suffer(slow, Policy(), *strikes))


def test_a_recovery_that_everybody_waits_for_counts_to_its_end() -> None:
    slow = read_environment(None, ("recovery={min: 5min, max: 6min}", "members=2"))
    outcomes = suffer(slow, Policy(primary_start_timeout_s=3600.0), *[Strike("host_paused", True, 0.5, 4.6, 1.0)] * 8)
    assert any(outcome.interrupts and outcome.gap_s > 300.0 for outcome in outcomes)


def test_in_synchronous_mode_nothing_acknowledged_is_lost(environment: Environment) -> None:
    policy = Policy(synchronous_mode="quorum")
    strikes = [Strike("host_paused", True, 0.5, 9.0, 1.0), Strike("network_cut", True, 0.5, 9.0, 1.0)]
    outcomes = suffer(environment, policy, *strikes)
    assert all(outcome.changes for outcome in outcomes)
    assert not any(outcome.lost_bytes for outcome in outcomes)


def test_a_promotion_that_takes_longer_makes_the_failover_longer() -> None:
    strike = Strike("server_killed", True, 0.5, 0.0, 1.0)
    quick = suffer(read_environment(None, ("promotion=40ms",)), Policy(), strike)[0]
    slow = suffer(read_environment(None, ("promotion=2s",)), Policy(), strike)[0]
    assert slow.gap_s - quick.gap_s == pytest.approx(1.96, abs=0.3)


# -- round trips alone -----------------------------------------------------------------------------------------


def test_a_longer_lease_has_room_for_more_tries() -> None:
    slow = read_environment(None, ("round_trip={p50: 1ms, p99: 10ms, p99.9: 1200ms, max: 3s}",))
    short = renewals(Policy(ttl_s=3.0, loop_wait_s=0.6, retry_timeout_s=1.2), slow)
    long = renewals(Policy(ttl_s=10.0), slow)
    assert short.tries < long.tries
    assert short.missed_per_year > 1000 * long.missed_per_year > 0
    assert short.lost_per_year < short.missed_per_year
    without = Policy(ttl_s=3.0, loop_wait_s=0.6, retry_timeout_s=1.2, failsafe_mode=False)
    assert renewals(without, slow).lost_per_year == short.missed_per_year


def test_what_is_computed_of_round_trips_is_what_the_simulated_core_does() -> None:
    slow = read_environment(None, ("round_trip={p50: 1ms, p80: 5ms, p81: 700ms, max: 1s}", "packet_loss=0"))
    policy = Policy(ttl_s=3.0, loop_wait_s=0.6, retry_timeout_s=1.2, failsafe_mode=False)
    cluster = OurCluster(random.Random(8), Setting(2, pace=slow.pace()), policy)
    observer, schedule = Observer(cluster), cluster.ground.schedule
    cluster.begin()
    for seconds, begins in ((20.0, True), (400.0, False)):
        end = schedule.now + seconds
        while schedule.next_at <= end:
            schedule.step()
            observer.look()
        if begins:
            observer.strike()
    expected = renewals(policy, slow).lost_per_year * 400.0 / YEAR_S
    assert expected > 5
    assert expected / 3 < len(gaps_of(list(observer.spans()))) < expected * 3
