"""What the REST server asks of the agent, and how each answer comes about."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import reduce
from typing import Any

import pytest

from hamgr.agent import port as module
from hamgr.agent.clock import now
from hamgr.agent.loop import Pulse
from hamgr.agent.port import Port, merge_patch
from hamgr.api.port import Answer, Unavailable
from hamgr.core.cluster import ClusterView, Config, Offer, Request
from hamgr.core.decide import Decision
from hamgr.core.facts import Ordered, Promised, Routed
from hamgr.core.peers import Claim
from hamgr.core.reasons import Code, because
from hamgr.core.result import Result
from hamgr.core.server import DataDir, Phase, ServerView
from hamgr.core.state import Lease, Order
from hamgr.core.units import Lsn, Term, Timeline, WallTime
from hamgr.dcs.errors import StoreUnavailable
from hamgr.dcs.store import TxnOutcome
from tests.agent.workbench import STANDING, TERM, Bench, Calls, leading, member, replica, until, view

TO_B = Request(leader="a", candidate="b")
REVISION = 20
DONE = TxnOutcome(Result.DONE, REVISION)
NOT_MINE = TxnOutcome(Result.REFUSED, REVISION, "changed")
UNKNOWN = TxnOutcome(Result.UNKNOWN, REVISION, "not answered")
AWAY = StoreUnavailable("etcd does not answer")
REQUEST = replace(TO_B, mod_revision=REVISION)


@pytest.fixture
def port(bench: Bench) -> Port:
    async def reload() -> tuple[str, ...]:
        bench.log.append("reload")
        return tuple(bench.log[1:])

    return Port(bench.world, "main", reload)


def store(bench: Bench, **answers: Any) -> None:
    bench.use_store(Calls(bench.log, **answers))


def see(bench: Bench, seen: ClusterView) -> None:
    bench.state = bench.state._replace(cluster=seen)


async def with_end(bench: Bench, port: Port, end: Callable[[], None], request: Request = TO_B) -> Answer:
    """The answer to a switchover whose request was written, after `end` happened."""
    store(bench, put_request=DONE)
    asking = asyncio.create_task(port.switchover(request))
    await until(lambda: "put_request" in bench.log, "the request is written")
    end()
    async with asyncio.timeout(20):
        return await asking


# -- switchover ------------------------------------------------------------------------------------------------


async def test_a_switchover_that_ended_well_names_the_new_leader(bench: Bench, port: Port) -> None:
    led_by_b = view("b", lease_id=8, term=TERM + 1, revision=REVISION + 1)
    answer = await with_end(bench, port, lambda: see(bench, led_by_b))
    assert answer == Answer(200, 'Successfully switched over to "b"')


async def test_a_new_leader_counts_only_once_its_server_is_primary(bench: Bench, port: Port) -> None:
    store(bench, put_request=DONE)
    led_by_b = view("b", lease_id=8, term=TERM + 1, revision=REVISION + 1)
    asking = asyncio.create_task(port.switchover(TO_B))
    await until(lambda: "put_request" in bench.log, "the request is written")
    see(bench, led_by_b._replace(members=(member("a"), member("b"))))
    done, _ = await asyncio.wait({asking}, timeout=5 * module.FOLLOW_POLL_S)
    assert not done
    see(bench, led_by_b)
    assert (await asking).code == 200


async def test_another_leader_than_the_one_asked_for_is_said(bench: Bench, port: Port) -> None:
    led_by_c = view("c", lease_id=9, term=TERM + 1, revision=REVISION + 1)
    answer = await with_end(bench, port, lambda: see(bench, led_by_c))
    assert answer == Answer(200, 'Switched over to "c" instead of "b"')


async def test_a_leader_that_was_elected_again_is_no_success(bench: Bench, port: Port) -> None:
    answer = await with_end(bench, port, lambda: see(bench, view("a", term=TERM + 1, revision=REVISION + 1)))
    assert answer.code == 503


async def test_a_refusal_of_the_leader_is_handed_on(bench: Bench, port: Port) -> None:
    answer = await with_end(bench, port, lambda: bench.world.refused.update({REVISION: "b is tagged nofailover"}))
    assert answer == Answer(412, "b is tagged nofailover")
    assert bench.world.refused == {}


async def test_a_request_that_is_gone_while_the_leader_still_leads_was_aborted(bench: Bench, port: Port) -> None:
    answer = await with_end(bench, port, lambda: see(bench, view("a", revision=REVISION + 1)))
    assert answer.code == 503
    assert "aborted" in answer.text


async def test_a_view_from_before_the_request_ends_nothing(
    bench: Bench, port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FOLLOW_LIMIT_S", 0.05)
    answer = await with_end(bench, port, lambda: see(bench, view("a", revision=REVISION - 1)))
    assert answer.code == 503
    assert "did not change within" in answer.text


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (Request(leader="b", candidate="c"), "b does not lead, a does"),
        (Request(leader="a", candidate="a"), "a leads already"),
        (Request(leader="a", candidate="nobody"), "no member nobody is up"),
    ],
    ids=["other leader", "leads already", "no such member"],
)
async def test_what_may_not_begin_is_refused_and_not_written(
    bench: Bench, port: Port, request_: Request, text: str
) -> None:
    answer = await port.switchover(request_)
    assert answer.code == 412
    assert text in answer.text
    assert bench.log == []


async def test_a_second_switchover_is_a_conflict(bench: Bench, port: Port) -> None:
    see(bench, view(request=REQUEST))
    assert (await port.switchover(TO_B)).code == 409
    see(bench, view())
    store(bench, put_request=NOT_MINE)
    assert (await port.switchover(TO_B)).code == 409


@pytest.mark.parametrize("offer", [None, Offer("c", TERM, Timeline(4), Lsn(0x4000), "server_crashed")], ids=str)
async def test_a_failover_overrules_what_stands_where_nobody_leads(
    bench: Bench, port: Port, monkeypatch: pytest.MonkeyPatch, offer: Offer | None
) -> None:
    """Nothing but a next leader would end it. What was offered stays known."""
    monkeypatch.setattr(module, "FOLLOW_LIMIT_S", 0.0)
    written: list[tuple[Request, int]] = []

    def put(request: Request, *, expected_revision: int) -> TxnOutcome:
        written.append((request, expected_revision))
        return DONE

    store(bench, put_request=put)
    see(bench, view(request=replace(REQUEST, offer=offer))._replace(leader=None))
    wanted = Request(candidate="b", allow_data_loss=True)
    assert (await port.switchover(wanted)).code == 503
    assert written == [(replace(wanted, offer=offer), REVISION)]
    see(bench, view(request=REQUEST))
    assert (await port.switchover(wanted)).code == 409


async def test_a_switchover_without_etcd_is_unavailable(bench: Bench, port: Port) -> None:
    store(bench, put_request=AWAY)
    assert await port.switchover(TO_B) == Answer(503, "etcd does not answer")
    store(bench, put_request=UNKNOWN)
    answer = await port.switchover(TO_B)
    assert answer.code == 503
    assert "unknown" in answer.text
    bench.state = bench.state._replace(cluster=None)
    assert (await port.switchover(TO_B)).code == 503


async def test_a_scheduled_switchover_is_checked_when_its_time_comes(bench: Bench, port: Port) -> None:
    store(bench, put_request=DONE)
    scheduled = Request(leader="a", candidate="nobody", scheduled_at=WallTime(4e9))
    assert await port.switchover(scheduled) == Answer(202, "scheduled")


OFFER = Offer("a", TERM, Timeline(4), Lsn(0x4000), "switchover")


@pytest.mark.parametrize(
    ("request_", "end", "code"),
    [
        (None, DONE, 404),
        (REQUEST, DONE, 200),
        (REQUEST, NOT_MINE, 409),
        (REQUEST, UNKNOWN, 503),
        (replace(REQUEST, offer=OFFER), DONE, 409),
    ],
    ids=["nothing there", "cancelled", "changed meanwhile", "unknown", "hand-over has begun"],
)
async def test_a_scheduled_switchover_is_cancelled_until_it_begins(
    bench: Bench, port: Port, request_: Request | None, end: TxnOutcome, code: int
) -> None:
    see(bench, view(request=request_))
    store(bench, clear_request=end)
    assert (await port.cancel_switchover()).code == code


async def test_without_etcd_what_has_no_answer_of_its_own_is_unavailable(bench: Bench, port: Port) -> None:
    see(bench, view(request=REQUEST))
    store(bench, clear_request=AWAY, list_records=AWAY)
    with pytest.raises(Unavailable, match="does not answer"):
        await port.cancel_switchover()
    with pytest.raises(Unavailable, match="does not answer"):
        await port.failovers(10)


# -- orders ----------------------------------------------------------------------------------------------------


def stopped(bench: Bench) -> None:
    bench.state = bench.state._replace(server=ServerView(Phase.STOPPED))


def asked_already(bench: Bench) -> None:
    bench.state = bench.state._replace(orders=(Order(1, "restart", now()),))


@pytest.mark.parametrize(
    ("make", "options", "code"),
    [
        (lambda bench: None, {"role": "primary"}, 503),
        (lambda bench: None, {"restart_pending": True}, 503),
        (stopped, {}, 503),
        (asked_already, {}, 409),
    ],
    ids=["other role", "none pending", "not running", "one is under way"],
)
async def test_a_restart_is_refused_at_once_where_it_does_not_apply(
    bench: Bench, port: Port, make: Callable[[Bench], None], options: Mapping[str, Any], code: int
) -> None:
    make(bench)
    assert (await port.order("restart", options)).code == code
    assert bench.facts == []


async def test_a_leader_is_not_made_anew(bench: Bench, port: Port) -> None:
    assert (await port.order("reinitialize", {})).code == 503
    bench.state = leading(lease=Lease(), cluster=view("b", lease_id=8))
    assert (await port.order("reinitialize", {})).code == 200
    assert [type(fact) for fact in bench.facts] == [Ordered]


@pytest.mark.parametrize("server", [{"data_dir": DataDir.UNUSABLE, "problem": "damaged"}, {"system_identifier": "9"}])
async def test_data_that_hamgr_does_not_touch_are_not_thrown_away_by_an_order(
    bench: Bench, port: Port, server: dict[str, Any]
) -> None:
    seen = replace(leading().server, phase=Phase.STOPPED, **server)
    bench.state = leading(lease=Lease(), cluster=view("b", lease_id=8, system_identifier="7"), server=seen)
    answer = await port.order("reinitialize", {})
    assert (answer.code, "move it away" in answer.text) == (503, True)
    assert bench.facts == []


@pytest.mark.parametrize(
    ("well", "answer"),
    [(True, Answer(200, "restarted successfully")), (False, Answer(503, "restart failed: its words"))],
)
async def test_a_restart_is_answered_when_it_has_ended(bench: Bench, port: Port, well: bool, answer: Answer) -> None:
    asking = asyncio.create_task(port.order("restart", {"role": "replica"}))
    await until(lambda: bench.facts, "the order is posted")
    ordered = bench.facts[0]
    assert isinstance(ordered, Ordered)
    bench.world.order_ends[ordered.order_id](well, "its words")
    assert await asking == answer


async def test_a_restart_that_takes_longer_than_asked_for_says_that_it_goes_on(bench: Bench, port: Port) -> None:
    answer = await port.order("restart", {"timeout": 0.01})
    assert answer == Answer(503, "restart did not end within 0.01 s: it goes on")
    ordered = bench.facts[0]
    assert isinstance(ordered, Ordered)
    bench.world.order_ends[ordered.order_id](True, "nobody listens any more")


# -- configuration ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_patch_is_merged_as_rfc_7396_appendix_a_says(
    target: dict[str, Any], patch: dict[str, Any], result: dict[str, Any]
) -> None:
    before = repr(target)
    assert merge_patch(target, patch) == result
    assert repr(target) == before


def configured(bench: Bench, values: Mapping[str, Any]) -> None:
    see(bench, view(config=Config(values, 6)))


async def test_a_patched_configuration_is_written_over_the_revision_that_was_read(bench: Bench, port: Port) -> None:
    written: list[Any] = []
    configured(bench, {"ttl": 5, "loop_wait": 1})
    store(bench, put_config=lambda *given: written.append(given) or DONE)
    answer = await port.patch_config({"ttl": 6, "loop_wait": None})
    assert answer == Answer(200, body={"ttl": 6})
    assert written == [({"ttl": 6}, 6)]


async def test_a_configuration_with_errors_is_answered_with_all_of_them_and_not_written(
    bench: Bench, port: Port
) -> None:
    configured(bench, {"ttl": 5})
    answer = await port.patch_config({"ttl": "soon", "loop_wait": []})
    assert answer.code == 400
    assert "ttl" in answer.text
    assert "loop_wait" in answer.text
    assert (await port.put_config({"ttl": -1})).code == 400
    assert bench.log == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"postgresql": {"parameters": {"work_mem": 1e400}}}', "parameters.work_mem: is not a finite number"),
        ('{"ignore_slots": [{"name": -1e400}]}', "ignore_slots.0.name: is not a finite number"),
        ('{"ttl": 1e400}', "ttl: is not a finite number"),
        ('{"standby_cluster": "\\ud800"}', "standby_cluster: is no text in UTF-8"),
        ('{"a":' * 50 + "1" + "}" * 50, "is nested more than 32 deep"),
    ],
)
async def test_a_value_that_cannot_be_read_back_is_refused_and_not_written(
    bench: Bench, port: Port, body: str, said: str
) -> None:
    configured(bench, {"ttl": 5})
    for answer in (await port.patch_config(json.loads(body)), await port.put_config(json.loads(body))):
        assert answer.code == 400
        assert said in answer.text
    assert bench.log == []


async def test_a_patch_that_is_nested_without_end_is_refused(bench: Bench, port: Port) -> None:
    configured(bench, {"ttl": 5})
    deep = reduce(lambda inner, _: {"a": inner}, range(5000), {})
    assert (await port.patch_config(deep)).code == 400


@pytest.mark.parametrize(("end", "code"), [(NOT_MINE, 409), (UNKNOWN, 503), (AWAY, 503)], ids=repr)
async def test_a_configuration_that_was_not_written_says_why(bench: Bench, port: Port, end: object, code: int) -> None:
    configured(bench, {"ttl": 5})
    store(bench, put_config=end)
    assert (await port.put_config({"ttl": 6})).code == code


async def test_there_is_nothing_to_patch_without_a_configuration(bench: Bench, port: Port) -> None:
    assert await port.read_config() is None
    assert (await port.patch_config({"ttl": 6})).code == 503
    configured(bench, {"ttl": 5})
    assert await port.read_config() == {"ttl": 5}


# -- the rest --------------------------------------------------------------------------------------------------


async def test_before_the_first_decision_the_snapshot_says_that_it_starts(bench: Bench, port: Port) -> None:
    bench.state = bench.state._replace(server=replica())
    snapshot = port.snapshot()
    assert (snapshot.reason_code, snapshot.state) == ("starting", bench.state)


async def test_the_snapshot_names_the_rule_and_counts_the_permits_that_it_refused(bench: Bench, port: Port) -> None:
    for at, may_renew in enumerate((True, False, True, False)):
        decision = Decision((), because(Code.NO_LEASE), "lease.need_lease", None, may_renew)
        port.publish(Pulse(bench.state, decision, now(), at))
    assert (port.snapshot().rule, port.snapshot().tally.refusals) == ("lease.need_lease", {("no_lease", ""): 2})


async def test_the_snapshot_shows_the_guard_as_it_stands_at_the_decision(bench: Bench, port: Port) -> None:
    for watchdog in ("active", "failed"):
        bench.link.standing = replace(STANDING, watchdog=watchdog)
        port.publish(Pulse(bench.state, Decision((), because(Code.LEADING), "lead.steady", None, True), now(), 1))
        assert port.snapshot().guard == bench.link.standing


async def test_what_the_rest_server_tells_is_passed_on(bench: Bench, port: Port) -> None:
    port.routed(now(), Term(3))
    assert [type(fact) for fact in bench.facts] == [Routed]
    assert (await port.reload()).code == 202
    assert bench.log == ["reload"]
    assert await port.reload() == Answer(503, "reload"), "what was not taken over is said"


# -- peer leases -----------------------------------------------------------------------------------------------


def follow(bench: Bench) -> None:
    """This member streams from `b`, which leads."""
    lease = replace(bench.state.lease, term=Term(0))
    bench.state = bench.state._replace(cluster=view("b", lease_id=8), lease=lease, server=replica())


def test_a_promise_is_on_the_page_before_it_is_known_and_known_before_it_is_answered(bench: Bench, port: Port) -> None:
    follow(bench)
    bench.world.post = lambda fact: bench.log.append(type(fact).__name__) or bench.facts.append(fact)
    given = port.promise(Claim("b", TERM, 5.0))
    assert given.until is not None
    assert given.until >= now() + 4.0
    assert bench.log == ["note promise", "Promised"]
    assert bench.facts == [Promised("b", given.until)]
    assert bench.link.promised_until == given.until


def test_a_claim_that_is_refused_leaves_no_mark(bench: Bench, port: Port) -> None:
    given = port.promise(Claim("b", TERM, 5.0))
    assert (given.until, given.why) == (None, "Running as a leader")
    assert (bench.log, bench.facts) == ([], [])


def test_saying_that_it_would_promise_binds_nobody(bench: Bench, port: Port) -> None:
    follow(bench)
    assert port.promise(Claim("b", TERM, 0.0)).until is not None
    assert (bench.log, bench.facts) == ([], [])
