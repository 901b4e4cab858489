"""Renewing the lease from a thread of its own, by blocking calls on connections of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from hamgr.core.cluster import ClusterView
from hamgr.core.units import Instant
from hamgr.dcs import wire
from hamgr.dcs.endpoints import CHANNEL_OPTIONS, REQUIRE_LEADER, Attempts, EtcdConfig, Rotation
from hamgr.dcs.errors import LeaseExpired, StoreUnavailable, TokenRejected, Unanswered, error_of
from hamgr.dcs.etcd import boot_time
from hamgr.dcs.keys import ScopeKeys
from hamgr.dcs.messages import answer_of, txn_request
from hamgr.dcs.ops import Txn
from hamgr.dcs.view import decode_view

TERM_UNKNOWN = 0
"""What a member answers that has applied nothing since it was started. It may go on so: asking applies nothing."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """A renewal that a later linearizable read confirmed: `view` is that read's, and the caller judges it.

    The lease lives until `sent_at + granted_ttl_s` at least; `sent_at` is the instant before it was sent.
    """

    sent_at: Instant
    granted_ttl_s: float
    view: ClusterView


class RenewalConnection:
    """Blocking calls; one thread renews, any thread may close."""

    def __init__(self, config: EtcdConfig, keys: ScopeKeys, clock: Callable[[], Instant] = boot_time) -> None:
        self._config = config
        self._keys = keys
        self._clock = clock
        self._rotation = Rotation(config.hosts)
        self._channels: dict[str, Any] = {}
        self._methods: dict[tuple[str, str], Any] = {}
        self._token: str | None = None
        self._read_request = txn_request(Txn(then=keys.view_ranges))
        self._closed = threading.Event()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Ends the connections; a call under way fails soon."""
        self._closed.set()
        self._hang_up()

    def use(self, config: EtcdConfig) -> None:
        """From now on by this configuration, certificate files read afresh; a call under way fails soon."""
        self._config, self._rotation, self._token = config, Rotation(config.hosts), None
        self._hang_up()

    def _hang_up(self) -> None:
        with self._lock:
            channels, self._channels, self._methods = self._channels, {}, {}
        for channel in channels.values():
            channel.close()

    def renew(self, lease_id: int, budget_s: float) -> Renewal:
        """Renew, then read all keys, linearizable, in one and the same term of etcd's; else both are done again.

        A leader of etcd that was deposed, and does not know it yet, answers renewals that count for nothing: its
        successor lets each lease live for one ttl from its own election, which may be over sooner than the answer says,
        though the read still shows the key. An answer bears the term of what the member that was asked has applied: a
        renewal's no later one than that of the leader which renewed, a read's no earlier one than that of the leader
        which confirmed it. Where both are the same, that is one leader, in office at the renewal and after it.

        Fails over between endpoints within `budget_s`. Raises LeaseExpired when etcd says that the lease does
        not exist, StoreUnavailable when there was no proper answer in time (it may be renewed nevertheless),
        StoreRefused. Source: DESIGN 5.1; etcd lease API guide.
        """
        attempts = Attempts(budget_s, len(self._config.hosts))
        request = wire.LeaseKeepAliveRequest(ID=lease_id)
        while True:
            answer, sent_at = self._call(wire.LEASE_KEEP_ALIVE, request, attempts)
            if answer.TTL <= 0:
                raise LeaseExpired(f"etcd: lease {lease_id:x} does not exist")
            view, term = self._read(attempts)
            if term == answer.header.raft_term and term != TERM_UNKNOWN:
                return Renewal(sent_at, float(answer.TTL), view)
            self._rotation.pass_over(self._rotation.preferred)
            pause_s = attempts.pause_after_failure_s()
            if pause_s is None:
                raise StoreUnavailable("etcd has just changed its leader, or its members do not know who it is")
            self._closed.wait(pause_s)

    def read(self, budget_s: float) -> ClusterView:
        """All keys of the scope but the records, linearizable. Raises StoreUnavailable, StoreRefused."""
        return self._read(Attempts(budget_s, len(self._config.hosts)))[0]

    def _read(self, attempts: Attempts) -> tuple[ClusterView, int]:
        """What there is, and the term of etcd's in which it was read."""
        response, sent_at = self._call(wire.TXN, self._read_request, attempts)
        answer = answer_of(response)
        view = decode_view(self._keys, answer.entries, answer.revision, sent_at)
        return view, response.header.raft_term

    def _call(self, method: wire.Method, request: Any, attempts: Attempts) -> tuple[Any, Instant]:
        """The answer, and the instant before the try that was answered was sent."""
        fresh_token = False
        while not self._closed.is_set():
            host = self._rotation.preferred
            try:
                metadata = self._metadata(host, attempts.try_s())
                sent_at = self._clock()
                return self._once(host, method, request, attempts.try_s(), metadata), sent_at
            except TokenRejected:
                self._token = None
                if fresh_token or not self._config.username:
                    raise
                fresh_token = True
            except Unanswered as failure:
                self._rotation.pass_over(host)
                pause_s = attempts.pause_after_failure_s()
                if pause_s is None:
                    raise StoreUnavailable(str(failure)) from failure
                self._closed.wait(pause_s)
        raise StoreUnavailable("the connection is closed")

    def _once(self, host: str, method: wire.Method, request: Any, try_s: float, metadata: Any) -> Any:
        try:
            return self._method(host, method)(request, timeout=try_s, metadata=metadata)
        except grpc.RpcError as failure:
            # A failed unary call's exception is its call as well, which knows status and details.
            call: Any = failure
            raise error_of(call.code(), call.details(), host) from failure
        except ValueError as failure:
            # gRPC's way to say that the channel was closed meanwhile.
            raise StoreUnavailable(f"etcd at {host}: {failure}") from failure

    def _metadata(self, host: str, try_s: float) -> tuple[tuple[str, str], ...]:
        if not self._config.username:
            return (REQUIRE_LEADER,)
        if self._token is None:
            self._token = self._authenticate(host, try_s)
        return (REQUIRE_LEADER, ("token", self._token)) if self._token else (REQUIRE_LEADER,)

    def _authenticate(self, host: str, try_s: float) -> str:
        request = wire.AuthenticateRequest(name=self._config.username, password=self._config.password)
        try:
            token: str = self._method(host, wire.AUTHENTICATE)(request, timeout=try_s).token
        except grpc.RpcError as failure:
            call: Any = failure
            if "authentication is not enabled" in (call.details() or ""):
                return ""
            raise error_of(call.code(), call.details(), host) from failure
        except ValueError as failure:
            raise StoreUnavailable(f"etcd at {host}: {failure}") from failure
        return token

    def _method(self, host: str, method: wire.Method) -> Any:
        with self._lock:
            if self._closed.is_set():
                raise StoreUnavailable("the connection is closed")
            bound = self._methods.get((host, method.path))
            if bound is None:
                bound = self._methods[host, method.path] = method.bind(self._channel(host))
            return bound

    def _channel(self, host: str) -> Any:
        channel = self._channels.get(host)
        if channel is None:
            credentials = self._config.credentials()
            if credentials is None:
                channel = grpc.insecure_channel(host, options=CHANNEL_OPTIONS)
            else:
                channel = grpc.secure_channel(host, credentials, options=CHANNEL_OPTIONS)
            self._channels[host] = channel
        return channel
