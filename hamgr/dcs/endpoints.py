"""Which etcd endpoint to ask, for how long, and when to pause: shared by the asyncio and the blocking side."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from hamgr.dcs.errors import StoreRefused

FIRST_TRY_S = 0.35
"""Patience with one endpoint in the first round: a frozen etcd member costs this much, once."""

PATIENCE_GROWTH = 1.5
"""Per round. Not more: a request that a follower has forwarded to a frozen leader is never answered, even after
the next election (etcd 3.4), so the try that is under way when a new leader is found is lost time."""

PAUSE_MIN_S = 0.05
PAUSE_MAX_S = 0.5
"""The return of etcd is to be noticed at once: a leader key may have expired meanwhile."""

CHANNEL_OPTIONS = (
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Also the patience with one attempt to connect, TLS over a long line included.
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 500),
    # Connections of the renewal thread and of the loop must not share their fate.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
)

REQUIRE_LEADER = ("hasleader", "true")
"""Metadata by which an etcd member that sees no leader turns us away at once instead of letting us wait."""


@dataclass(frozen=True, slots=True)
class EtcdConfig:
    """How etcd is reached. `hosts` are `host:port`; `timeout_s` bounds one call over all endpoints."""

    hosts: tuple[str, ...]
    protocol: str = "http"
    username: str = ""
    password: str = field(default="", repr=False)
    cacert: str = ""
    cert: str = ""
    key: str = ""
    timeout_s: float = 2.0

    def __post_init__(self) -> None:
        if not self.hosts:
            raise ValueError("etcd: no hosts are given")
        if self.protocol not in ("http", "https"):
            raise ValueError(f"etcd: protocol must be http or https, not {self.protocol!r}")

    def secrets(self) -> tuple[object, ...]:
        """What connections are made with, certificate files as they are now. Raises StoreRefused as `credentials`."""
        return (self, *(_contents(path) for path in (self.cacert, self.cert, self.key)))

    def credentials(self) -> Any:
        """gRPC credentials for https, None for http. Raises StoreRefused if a certificate file cannot be read."""
        if self.protocol == "http":
            return None
        return grpc.ssl_channel_credentials(_contents(self.cacert), _contents(self.key), _contents(self.cert))


def _contents(path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise StoreRefused(f"etcd: cannot read {path}: {error.strerror}") from error


class Rotation:
    """The endpoint that worked last comes first; one that failed goes behind the others."""

    def __init__(self, hosts: tuple[str, ...]) -> None:
        self.hosts = hosts
        self._at = 0

    @property
    def preferred(self) -> str:
        """The endpoint to ask now."""
        return self.hosts[self._at]

    def pass_over(self, host: str) -> None:
        """Prefer the one after `host`, unless another call has moved on already."""
        if self.preferred == host:
            self._at = (self._at + 1) % len(self.hosts)


class Attempts:
    """The tries of one call: how long each may take, and the pause once all endpoints have failed."""

    def __init__(self, budget_s: float, endpoints: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends = clock() + budget_s
        self._endpoints = endpoints
        self._failed = 0

    @property
    def left_s(self) -> float:
        """Seconds of the budget that are left, 0 at least."""
        return max(0.0, self._ends - self._clock())

    def try_s(self) -> float:
        """Longest time for the next try. Grows with each round, so that slowness everywhere is waited out."""
        return min(self.left_s, FIRST_TRY_S * PATIENCE_GROWTH ** min(self._failed // self._endpoints, 10))

    def once_s(self) -> float:
        """The same for a change that must not be sent twice: all that is left."""
        return self.left_s

    def pause_after_failure_s(self) -> float | None:
        """Seconds to wait before the next try: 0 while another endpoint is untried; None: the budget is spent."""
        self._failed += 1
        left_s = self.left_s
        if left_s <= 0.001:
            return None
        if self._failed % self._endpoints:
            return 0.0
        rounds = min(self._failed // self._endpoints, 10)
        return min(left_s, PAUSE_MAX_S, PAUSE_MIN_S * 2.0 ** (rounds - 1))
