"""GET, HEAD and OPTIONS: answers from the agent's snapshot; only /config and /failovers ask the agent to read."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import parse_qsl

from hamgr.api.metrics import exposition
from hamgr.api.port import AgentPort, Snapshot
from hamgr.api.reply import Reply, as_json, json_reply, text_reply
from hamgr.core.health import (
    ANY,
    CHECK_OF_PATH,
    GOOD,
    Check,
    Query,
    code_of,
    is_alive,
    parse_query,
    why_not_ready,
)
from hamgr.core.portrait import cluster_body, guard_body, status_body
from hamgr.core.standing import GuardStanding
from hamgr.core.units import Instant, Lsn, Term, WallTime

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Status = tuple[tuple[int, GuardStanding | None], bytes, Mapping[str, str]]
"""What a status body was made of, that body, its headers."""

DEFAULT_RECORDS = 20
MOST_RECORDS = 1000


class Desk:
    """Answers everything that changes nothing.

    The status body is made once per snapshot, not per request: health checks come by the hundred. The code is
    made at each request, because a deadline passes without any snapshot.
    """

    def __init__(self, port: AgentPort) -> None:
        self._port = port
        self._status: Status = ((-1, None), b"", {})
        self._routed_term = Term(0)
        self.at_once: Mapping[str, Callable[[str], Reply]] = {
            "/liveness": self._liveness,
            "/readiness": self._readiness,
            "/patroni": self._patroni,
            "/cluster": self._cluster,
            "/history": self._history,
            "/failsafe": self._failsafe,
            "/metrics": self._metrics,
        }
        self.reading: Mapping[str, Callable[[str], Awaitable[Reply]]] = {
            "/config": self._config,
            "/failovers": self._failovers,
        }

    def answer_at_once(self, path: str, query: str) -> Reply | None:
        """The answer that needs no waiting; None if the path is none of those."""
        check = CHECK_OF_PATH.get(path)
        if check is not None:
            return self._health(check, query)
        handler = self.at_once.get(path)
        return handler(query) if handler else None

    def _health(self, check: Check, query: str) -> Reply:
        try:
            filters = _filters(query)
        except ValueError as problem:
            return text_reply(400, f"lag: {problem}")
        snapshot, now = self._port.snapshot(), self._port.now()
        code = code_of(check, snapshot.state, now, filters)
        if code == GOOD and check is Check.PRIMARY:
            self._note_routed(now, snapshot.state.lease.term)
        _, body, headers = self._status_of(snapshot, now)
        return Reply(code, body, headers=headers)

    def _note_routed(self, now: Instant, term: Term) -> None:
        if term != self._routed_term:
            self._routed_term = term
            self._port.routed(now, term)

    def _status_of(self, snapshot: Snapshot, now: Instant) -> Status:
        made_of = (snapshot.changed, snapshot.guard)
        if made_of != self._status[0]:
            wall = WallTime(time.time())
            body = status_body(snapshot.state, now, wall, self._port.scope, snapshot.reason)
            body |= {"rule": snapshot.rule, "reason": snapshot.reason_code}
            body |= guard_body(snapshot.state, snapshot.guard) if snapshot.guard is not None else {}
            headers = {"X-Hamgr-Term": str(body["term"])}
            self._status = (made_of, as_json(body), headers)
        return self._status

    def _liveness(self, query: str) -> Reply:
        snapshot, now = self._port.snapshot(), self._port.now()
        alive = is_alive(snapshot.state, snapshot.loop_ran_at, now)
        age_s = round(now - snapshot.loop_ran_at, 3)
        return json_reply(200 if alive else 503, {"alive": alive, "loop_age_s": age_s})

    def _readiness(self, query: str) -> Reply:
        try:
            filters = _filters(query)
        except ValueError as problem:
            return text_reply(400, f"lag: {problem}")
        reason = why_not_ready(self._port.snapshot().state, self._port.now(), filters)
        return json_reply(503 if reason else 200, {"ready": not reason, "reason": reason})

    def _patroni(self, query: str) -> Reply:
        _, body, headers = self._status_of(self._port.snapshot(), self._port.now())
        return Reply(200, body, headers=headers)

    def _cluster(self, query: str) -> Reply:
        return json_reply(200, cluster_body(self._port.snapshot().state, self._port.now(), self._port.scope))

    def _history(self, query: str) -> Reply:
        cluster = self._port.snapshot().state.cluster
        lines = cluster.history if cluster else ()
        rows = [[line.timeline, int(Lsn(line.lsn)), line.reason, line.timestamp, line.new_leader] for line in lines]
        return json_reply(200, rows)

    def _failsafe(self, query: str) -> Reply:
        state = self._port.snapshot().state
        if not state.policy.failsafe_mode:
            return text_reply(502, "failsafe_mode is off")
        if state.cluster is None:
            return text_reply(503, "etcd has not been read yet")
        return json_reply(200, dict(state.cluster.roster))

    def _metrics(self, query: str) -> Reply:
        return Reply(200, exposition(self._port, WallTime(time.time())), METRICS_TYPE)

    async def _config(self, query: str) -> Reply:
        values = await self._port.read_config()
        if values is None:
            return text_reply(502, "there is no dynamic configuration yet")
        return json_reply(200, dict(values))

    async def _failovers(self, query: str) -> Reply:
        text = dict(parse_qsl(query)).get("limit", str(DEFAULT_RECORDS))
        if not text.isascii() or not text.isdigit() or not 1 <= len(text) <= 4 or not 1 <= int(text) <= MOST_RECORDS:
            return text_reply(400, f"limit must be a number from 1 to {MOST_RECORDS}")
        records = await self._port.failovers(int(text))
        return json_reply(200, list(records))


def _filters(query: str) -> Query:
    return parse_query(parse_qsl(query, keep_blank_values=True)) if query else ANY
