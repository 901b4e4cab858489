"""What the REST server may ask of the agent. Implements hamgr.api.port.AgentPort."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from hamgr.agent.clock import now
from hamgr.agent.loop import Pulse
from hamgr.agent.world import World
from hamgr.api.port import Answer, OrderKind, Snapshot, Unavailable
from hamgr.core.cluster import ClusterView, Request
from hamgr.core.facts import Ordered, Promised, Routed
from hamgr.core.peers import Claim, Promise, answer
from hamgr.core.precheck import UNDER_WAY, place_for, why_not
from hamgr.core.result import Result
from hamgr.core.scene import Scene
from hamgr.core.server import DataDir
from hamgr.core.tally import Tally, counted
from hamgr.core.units import Instant, Term
from hamgr.dcs.errors import StoreError
from hamgr.dcs.store import TxnOutcome
from hamgr.settings import parse_dynamic

FOLLOW_POLL_S = 0.01
FOLLOW_LIMIT_S = 60.0
ORDER_LIMIT_S = 600.0
"""How long an order that names no time is waited for."""


class Port:
    """The agent as the REST server sees it."""

    def __init__(self, world: World, scope: str, reload: Callable[[], Awaitable[tuple[str, ...]]]) -> None:
        self._world = world
        self._scope = scope
        self._reload = reload
        self._snapshot: Snapshot | None = None
        self._tally = Tally()
        self._order_ids = itertools.count(1)

    @property
    def scope(self) -> str:
        return self._scope

    def publish(self, pulse: Pulse) -> None:
        """Called by the loop after each decision."""
        decision = pulse.decision
        code = decision.reason.code.value
        self._tally = counted(self._tally, Scene(pulse.state, pulse.at), decision)
        self._snapshot = Snapshot(
            pulse.state,
            pulse.reason,
            code,
            pulse.at,
            pulse.changed,
            rule=decision.rule,
            tally=self._tally,
            guard=self._world.link.standing,
        )

    def snapshot(self) -> Snapshot:
        if self._snapshot is None:
            state = self._world.state()
            return Snapshot(state, "starting", "starting", now(), 0)
        return self._snapshot

    def now(self) -> Instant:
        return now()

    def routed(self, at: Instant, term: Term) -> None:
        self._world.post(Routed(at, term))

    def promise(self, claim: Claim) -> Promise:
        at = now()
        promise = answer(self._world.state(), at, claim)
        if promise.until is not None and promise.until > at:
            self._world.link.note_promise(promise.until)
            self._world.post(Promised(claim.name, promise.until))
        return promise

    async def switchover(self, request: Request) -> Answer:
        view = self._world.state().cluster
        if view is None:
            return Answer(503, "etcd has not been read yet")
        place = place_for(view, request)
        if place is None:
            return Answer(409, UNDER_WAY)
        refusal = why_not(view, request, self._world.state().policy)
        if refusal and request.scheduled_at is None:
            return Answer(412, refusal)
        placed, revision = place
        try:
            written = await self._world.store.put_request(placed, expected_revision=revision)
        except StoreError as error:
            return Answer(503, str(error))
        if not written.is_done:
            return _not_done(written, UNDER_WAY)
        if request.scheduled_at is not None:
            return Answer(202, "scheduled")
        return await self._follow(view, request, written.revision)

    async def _follow(self, before: ClusterView, request: Request, revision: int) -> Answer:
        """Wait for the request's end: another leader that is writable, a refusal, or nothing in time."""
        give_up_at = now() + FOLLOW_LIMIT_S
        while now() < give_up_at:
            view = self._world.state().cluster
            if revision in self._world.refused:
                return Answer(412, self._world.refused.pop(revision))
            if view is not None and view.revision >= revision:
                answer = _end_of_request(before, request, view)
                if answer is not None:
                    return answer
            await asyncio.sleep(FOLLOW_POLL_S)
        return Answer(503, f"the leader did not change within {FOLLOW_LIMIT_S:g} s; see `hamgr list`")

    async def cancel_switchover(self) -> Answer:
        view = self._world.state().cluster
        if view is None or view.request is None:
            return Answer(404, "nothing is scheduled")
        if view.request.offer is not None:
            return Answer(409, "the hand-over has begun")
        try:
            outcome = await self._world.store.clear_request(view.request.mod_revision)
        except StoreError as error:
            raise Unavailable(str(error)) from error
        return Answer(200, "cancelled") if outcome.is_done else _not_done(outcome, "it changed meanwhile")

    async def order(self, kind: OrderKind, options: Mapping[str, Any]) -> Answer:
        refusal = self._why_no_order(kind, options)
        if refusal is not None:
            return refusal
        order_id = next(self._order_ids)
        end: asyncio.Future[tuple[bool, str]] = asyncio.get_running_loop().create_future()

        def ended(well: bool, text: str) -> None:
            if not end.done():
                end.set_result((well, text))

        self._world.order_ends[order_id] = ended
        self._world.post(Ordered(order_id, kind, now(), dict(options)))
        if kind == "reinitialize":
            return Answer(200, "reinitialize started")
        limit_s = float(options.get("timeout") or ORDER_LIMIT_S)
        try:
            well, text = await asyncio.wait_for(end, limit_s)
        except TimeoutError:
            return Answer(503, f"{kind} did not end within {limit_s:g} s: it goes on")
        return Answer(200, f"{kind}ed successfully") if well else Answer(503, f"{kind} failed: {text}")

    def _why_no_order(self, kind: OrderKind, options: Mapping[str, Any]) -> Answer | None:
        state = self._world.state()
        role = "primary" if state.server.is_primary else "replica"
        if any(order.kind == kind for order in state.orders):
            return Answer(409, f"a {kind} is under way")
        if kind == "reinitialize":
            if state.server.data_dir is DataDir.UNUSABLE or Scene(state, now()).is_foreign:
                # It may be anything that somebody still needs.
                text = "hamgr does not touch what is in the data directory: move it away, and it is copied anew"
                return Answer(503, f"{text} ({state.server.problem or 'it is of another cluster'})")
            leads = state.lease.term > 0
            return Answer(503, "this member leads: it cannot be made anew, switch over first") if leads else None
        wanted = options.get("role")
        if wanted and wanted != role:
            return Answer(503, f"not restarted: this member is a {role}, not a {wanted}")
        if options.get("restart_pending") and not state.server.pending_restart:
            return Answer(503, "not restarted: no restart is pending")
        if not (state.server.is_primary or state.server.is_replica):
            return Answer(503, f"not restarted: the server is {state.server.phase.value}")
        return None

    async def reload(self) -> Answer:
        failed = await self._reload()
        return Answer(503, "\n".join(failed)) if failed else Answer(202, "reload scheduled")

    async def read_config(self) -> Mapping[str, Any] | None:
        view = self._world.state().cluster
        return view.config.values if view is not None and view.config is not None else None

    async def patch_config(self, patch: Mapping[str, Any]) -> Answer:
        present = await self.read_config()
        if present is None:
            return Answer(503, "there is no configuration in etcd")
        try:
            merged = merge_patch(present, patch)
        except RecursionError:
            return Answer(400, "the patch is nested too deeply")
        return await self._write_config(merged)

    async def put_config(self, values: Mapping[str, Any]) -> Answer:
        return await self._write_config(values)

    async def _write_config(self, values: Mapping[str, Any]) -> Answer:
        _, problems = parse_dynamic(values)
        errors = [str(problem) for problem in problems if problem.is_error]
        if errors:
            return Answer(400, "\n".join(errors))
        view = self._world.state().cluster
        try:
            outcome = await self._world.store.put_config(values, view.config_revision if view else 0)
        except StoreError as error:
            return Answer(503, str(error))
        if outcome.is_done:
            return Answer(200, body=values)
        return _not_done(outcome, "the configuration changed meanwhile")

    async def failovers(self, limit: int) -> Sequence[Mapping[str, Any]]:
        try:
            return await self._world.store.list_records(limit)
        except StoreError as error:
            raise Unavailable(str(error)) from error


def merge_patch(values: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with `patch` merged in: mappings are merged, null deletes. Source: RFC 7396, as Patroni's PATCH."""
    merged = dict(values)
    for key, wanted in patch.items():
        present = merged.get(key)
        if wanted is None:
            merged.pop(key, None)
        elif isinstance(wanted, Mapping):
            merged[key] = merge_patch(present if isinstance(present, Mapping) else {}, wanted)
        else:
            merged[key] = wanted
    return merged


def _not_done(outcome: TxnOutcome, conflict: str) -> Answer:
    """The answer to a change that did not happen because of a `conflict`, or of which nobody knows."""
    if outcome.result is Result.UNKNOWN:
        return Answer(503, f"whether it took effect is unknown: {outcome.text}")
    return Answer(409, conflict)


def _end_of_request(before: ClusterView, request: Request, view: ClusterView) -> Answer | None:
    """The answer, if the view shows how the request ended. The texts of success are Patroni's."""
    former = before.leader.name if before.leader else ""
    if view.leader is not None and view.term > before.term:
        name = view.leader.name
        member = view.member(name)
        if member is None or member.role != "primary":
            return None
        if name == former:
            return Answer(503, f"the leader did not change: {name} was elected again")
        if request.candidate and name != request.candidate:
            return Answer(200, f'Switched over to "{name}" instead of "{request.candidate}"')
        return Answer(200, f'Successfully switched over to "{name}"')
    if view.request is None and view.is_led_by(former):
        member = view.member(former)
        if member is not None and member.role == "primary" and member.state == "running":
            return Answer(503, "the hand-over was aborted: see the log of the leader")
    return None
