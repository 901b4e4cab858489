"""Dynamic configuration: parsed from anything, in force only where it is possible."""

from __future__ import annotations

from datetime import date
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hamgr.core.policy import Policy
from hamgr.settings import DynamicSettings, parse_dynamic
from hamgr.settings.relations import MIN_RENEWALS, adjust_timings, timing_problems, usable_s

HUGE = (10**400, -(10**400), "9" * 400, "9" * 400 + "MB", "9" * 400 + "d")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(HUGE) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from([*DynamicSettings.model_fields, "standby_cluster", "nonsense"])


def test_nothing_given_is_the_default_policy():
    settings, problems = parse_dynamic({})
    assert problems == ()
    assert settings.policy() == Policy()


@given(st.dictionaries(KEYS, JSON, max_size=6) | JSON)
def test_garbage_from_etcd_gives_problems_and_usable_settings(raw):
    settings, problems = parse_dynamic(raw)
    policy = settings.policy()
    assert policy.ttl_s >= 2
    assert usable_s(policy) >= MIN_RENEWALS * policy.renew_interval_s > 0
    assert isinstance(problems, tuple)


@given(
    st.integers(2, 300),
    st.floats(0.1, 300, allow_nan=False),
    st.floats(0.1, 300, allow_nan=False),
)
def test_adjusted_timings_keep_patronis_rule(ttl, loop_wait, retry_timeout):
    policy = Policy(ttl_s=ttl, loop_wait_s=loop_wait, retry_timeout_s=retry_timeout)
    adjusted, notes = adjust_timings(policy, {"loop_wait", "retry_timeout"})
    assert adjusted.loop_wait_s + 2 * adjusted.retry_timeout_s <= ttl + 1e-5
    assert adjusted.loop_wait_s >= 0.1 - 1e-9
    assert adjusted.retry_timeout_s > 0
    assert (adjusted == policy) == (notes == ())


@pytest.mark.parametrize("ttl", range(2, 61))
def test_every_ttl_from_etcds_floor_leaves_two_renewals(ttl):
    assert timing_problems(Policy(ttl_s=ttl, election_window_s=0.5)) == ()


def test_patronis_defaults_and_its_least_timings_pass():
    for timings in ((30, 10, 10), (20, 1, 3)):
        raw = dict(zip(("ttl", "loop_wait", "retry_timeout"), timings, strict=True))
        settings, problems = parse_dynamic(raw)
        assert problems == ()
        assert (settings.ttl, settings.loop_wait, settings.retry_timeout) == timings


def test_loop_wait_shrinks_before_retry_timeout_and_both_are_told():
    settings, problems = parse_dynamic({"ttl": 10, "loop_wait": 8, "retry_timeout": 4})
    assert (settings.loop_wait, settings.retry_timeout) == (2, 4)
    assert [each.path for each in problems] == ["loop_wait"]
    settings, problems = parse_dynamic({"ttl": 10, "loop_wait": 8, "retry_timeout": 10})
    assert (settings.loop_wait, settings.retry_timeout) == (2, 4)
    assert [each.path for each in problems] == ["loop_wait", "retry_timeout"]
    assert not any(each.is_error for each in problems)


def test_defaults_follow_a_short_ttl_without_a_word():
    settings, problems = parse_dynamic({"ttl": 2})
    assert problems == ()
    assert settings.loop_wait + 2 * settings.retry_timeout <= 2


@pytest.mark.parametrize("ttl", [1, 0, -5, 2.5, "1500ms", "soon", None, True, [5], float("inf"), float("nan"), 10**30])
def test_impossible_ttl_is_an_error_and_the_default_stands(ttl):
    settings, problems = parse_dynamic({"ttl": ttl})
    assert settings.ttl == 5
    assert ttl is None or [each.path for each in problems if each.is_error] == ["ttl"]


@pytest.mark.parametrize("key", DynamicSettings.model_fields)
@pytest.mark.parametrize("value", [*HUGE, 16**4000], ids=range(len(HUGE) + 1))
def test_a_number_beyond_all_measure_is_an_error_of_its_key(key, value):
    settings, problems = parse_dynamic({key: value})
    assert [each.path for each in problems if each.is_error] == [key]
    assert settings == parse_dynamic({})[0]


def test_timings_that_contradict_each_other_cost_no_more_than_themselves():
    settings, problems = parse_dynamic({"ttl": 2, "loop_wait": 1, "synchronous_mode": True, "margin": 1.9})
    assert any(problem.is_error for problem in problems)
    assert settings.policy().synchronous_mode == "on"


def test_wrong_key_costs_itself_and_not_its_section():
    raw = {"postgresql": {"use_slots": "maybe", "parameters": {"work_mem": "4MB", "fsync": False}}, "ttl": 9}
    settings, problems = parse_dynamic(raw, "bootstrap.dcs")
    assert [each.path for each in problems] == ["bootstrap.dcs.postgresql.use_slots"]
    assert settings.ttl == 9
    assert settings.postgresql.use_slots
    assert settings.postgresql.parameters == {"work_mem": "4MB", "fsync": "off"}


@pytest.mark.parametrize(
    ("written", "mode"),
    [(True, "on"), (False, "off"), ("on", "on"), ("Off", "off"), ("quorum", "quorum"), ("true", "on")],
)
def test_synchronous_mode_is_a_boolean_or_a_word(written, mode):
    assert parse_dynamic({"synchronous_mode": written})[0].policy().synchronous_mode == mode


@pytest.mark.parametrize(
    ("key", "written", "value"),
    [
        ("ttl", "1min", 60),
        ("member_slots_ttl", "30min", 1800),
        ("election_window", "500ms", 0.5),
        ("primary_start_timeout", "2h", 7200),
        ("maximum_lag_on_failover", "1MB", 1 << 20),
        ("maximum_lag_on_failover", "512kB", 1 << 19),
        ("maximum_lag_on_failover", 1048576, 1 << 20),
    ],
)
def test_times_and_sizes_are_written_as_postgresql_does(key, written, value):
    settings, problems = parse_dynamic({key: written})
    assert problems == ()
    assert getattr(settings, key) == value


def test_keys_that_only_patroni_knows_are_warnings():
    _, problems = parse_dynamic({"standby_cluster": {"host": "a"}, "master_start_timeout": 10})
    assert not any(each.is_error for each in problems)
    assert {each.path: each.hint for each in problems}["master_start_timeout"] == "write primary_start_timeout"


@pytest.mark.parametrize("key", ["probe_connection_timeout", "probe_commit_timeout", "probe_disk_timeout"])
def test_deadlines_of_the_vital_checks_are_bounded_and_slow_ones_are_told(key):
    settings, problems = parse_dynamic({key: "500ms"})
    assert problems == ()
    assert getattr(settings.policy(), f"{key}_s") == 0.5
    assert [each.path for each in parse_dynamic({key: 0.05})[1] if each.is_error] == [key]
    assert parse_dynamic({key: 20, "ttl": 5})[1] == ()
    slow = parse_dynamic({key: 20.5, "ttl": 5})[1]
    assert [(each.path, each.is_error) for each in slow] == [(key, False)]


@pytest.mark.parametrize(
    "raw",
    [
        {"synchronous_mode": "quorum", "synchronous_mode_strict": True, "synchronous_node_count": 2},
        {"failsafe_mode": True},
        {"failsafe_mode": False},
        {"maximum_lag_on_syncnode": "1MB"},
    ],
)
def test_synchronous_mode_and_peer_leases_have_their_effect_without_a_warning(raw):
    assert parse_dynamic(raw)[1] == ()


def test_a_rule_of_ones_own_has_no_effect_beside_synchronous_mode():
    parameters = {"synchronous_standby_names": "*"}
    assert parse_dynamic({"postgresql": {"parameters": parameters}})[1] == ()
    _, problems = parse_dynamic({"synchronous_mode": True, "postgresql": {"parameters": parameters}})
    assert [(each.path, each.is_error) for each in problems] == [
        ("postgresql.parameters.synchronous_standby_names", False)
    ]


CDC = {"type": "logical", "database": "app", "plugin": "pgoutput"}


def test_logical_slots_are_kept_and_copied_without_a_warning():
    settings, problems = parse_dynamic({"slots": {"cdc": CDC, "gone": None}})
    assert problems == ()
    policy = settings.policy()
    assert (policy.logical_slots, policy.syncs_slots, policy.names_awaited_slots) == (("cdc",), True, True)


@pytest.mark.parametrize(
    ("parameters", "copied"),
    [({}, False), ({"sync_replication_slots": True}, True), ({"sync_replication_slots": "0"}, False)],
)
def test_slots_that_somebody_else_makes_are_copied_on_demand(parameters, copied):
    assert parse_dynamic({"postgresql": {"parameters": parameters}})[0].policy().syncs_slots is copied


def test_copying_can_be_left_out_and_awaited_standbys_be_named_by_hand():
    parameters = {"sync_replication_slots": "off", "synchronized_standby_slots": "b"}
    policy = parse_dynamic({"slots": {"cdc": CDC}, "postgresql": {"parameters": parameters}})[0].policy()
    assert (policy.logical_slots, policy.syncs_slots, policy.names_awaited_slots) == (("cdc",), False, False)


@pytest.mark.parametrize(
    ("slots", "where"),
    [
        ({"mine": {"type": "physical"}}, "slots.mine"),
        ({"mine": {}}, "slots.mine"),
        ({"cdc": {**CDC, "failover": False}}, "slots.cdc"),
    ],
)
def test_slots_without_effect_are_told(slots, where):
    settings, problems = parse_dynamic({"slots": slots})
    assert [(each.path, each.is_error) for each in problems] == [(where, False)]
    assert settings.policy().logical_slots == ()


@pytest.mark.parametrize(
    "postgresql",
    [{"use_slots": False}, {"parameters": {"wal_level": "replica"}}, {"parameters": {"hot_standby_feedback": False}}],
)
def test_whatever_keeps_slots_from_being_copied_is_told(postgresql):
    problems = parse_dynamic({"slots": {"cdc": CDC}, "postgresql": postgresql})[1]
    assert [each.is_error for each in problems] == [False]


@pytest.mark.parametrize(
    ("slots", "words"),
    [
        ({"cdc": {"type": "logical", "database": "app"}}, "cdc needs `plugin`"),
        ({"cdc": {"type": "logical", "plugin": "pgoutput"}}, "cdc needs `database`"),
        ({"cdc": {"type": "other"}}, "neither logical nor physical"),
        ({"cdc": {**CDC, "failover": "perhaps"}}, "neither true nor false"),
        ({"CDC": CDC}, "name that no slot can have"),
        ({"cdc": "logical"}, "cdc is not a mapping"),
        (["cdc"], "not a mapping"),
    ],
)
def test_wrong_slots_are_errors_that_say_what_is_missing(slots, words):
    settings, problems = parse_dynamic({"slots": slots, "ttl": 9})
    assert [(each.path, each.is_error) for each in problems] == [("slots", True)]
    assert words in problems[0].text
    assert (settings.ttl, settings.policy().logical_slots) == (9, ())


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (float("inf"), "is not a finite number"),
        (float("nan"), "is not a finite number"),
        (date(2026, 1, 1), "is a date, which JSON does not know: write it in quotes"),
        (b"x", "is a bytes"),
        ({1}, "is a set"),
        (1 << 64, "is a number of more than 64 bits"),
        ("\ud800", "is no text in UTF-8"),
        ({date(2026, 1, 1): 1}, "holds a key that YAML reads as a date (write it in quotes)"),
        (reduce(lambda inner, _: [inner], range(5000), 0), "is nested more than 32 deep"),
    ],
    ids=range(9),
)
def test_what_json_cannot_hold_is_an_error_wherever_it_stands(value, said):
    places = {
        "postgresql.parameters.work_mem": {"postgresql": {"parameters": {"work_mem": value}}},
        "standby_cluster": {"standby_cluster": value},
        "ignore_slots.0.name": {"ignore_slots": [{"name": value}]},
        "ttl": {"ttl": value},
    }
    for path, raw in places.items():
        settings, problems = parse_dynamic(raw)
        assert settings == DynamicSettings()
        errors = [str(each) for each in problems if each.is_error]
        assert len(errors) == 1
        assert errors[0].startswith(f"error: {path}")
        assert said in errors[0]
