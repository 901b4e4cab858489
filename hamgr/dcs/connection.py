"""Connections to the etcd endpoints for asyncio: one call fails over between them within its budget."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Any

import grpc
import grpc.aio

from hamgr.dcs import wire
from hamgr.dcs.endpoints import CHANNEL_OPTIONS, REQUIRE_LEADER, Attempts, EtcdConfig, Rotation
from hamgr.dcs.errors import (
    LeaseExpired,
    OutcomeUnknown,
    StoreRefused,
    StoreUnavailable,
    TokenRejected,
    Unanswered,
    error_of,
)
from hamgr.dcs.vintage import Vintage

_State = grpc.ChannelConnectivity


class Kind(Enum):
    """What may be done about a try that was not answered."""

    READ = "read"
    """Changes nothing that matters: try again; in the end it is unavailable."""
    REPEATABLE = "repeatable"
    """Sending it twice does no harm: try again; in the end its outcome is unknown."""
    ONCE = "once"
    """Must not be sent twice: its outcome is unknown at once."""


class Connections:
    """Must be made and used in one event loop; `close` ends them."""

    def __init__(self, config: EtcdConfig) -> None:
        self.config = config
        self.rotation = Rotation(config.hosts)
        self.tries = 0
        """Requests that were tried so far, over all endpoints."""
        self._channels: dict[str, Any] = {}
        self._former: list[Any] = []
        self._methods: dict[tuple[str, str], Any] = {}
        self._token: str | None = None
        self._authenticating = asyncio.Lock()
        self._vintage = Vintage()

    async def close(self) -> None:
        """Ends all connections; calls under way fail."""
        self._vintage.close()
        channels, self._channels, self._methods = (*self._channels.values(), *self._former), {}, {}
        for channel in channels:
            await channel.close()

    def use(self, config: EtcdConfig) -> None:
        """New calls go by this configuration, with certificate files read afresh; those under way end as they would."""
        self.config, self.rotation = config, Rotation(config.hosts)
        self.forget_token()
        # Not closed: that would look to whoever waits for an answer as if he were told to end himself.
        self._former += self._channels.values()
        self._channels, self._methods = {}, {}

    def channel(self, host: str) -> Any:
        """The asyncio channel to that endpoint, made when first asked for."""
        channel = self._channels.get(host)
        if channel is None:
            credentials = self.config.credentials()
            if credentials is None:
                channel = grpc.aio.insecure_channel(host, options=CHANNEL_OPTIONS)
            else:
                channel = grpc.aio.secure_channel(host, credentials, options=CHANNEL_OPTIONS)
            self._channels[host] = channel
        return channel

    async def metadata(self, host: str, timeout_s: float) -> tuple[tuple[str, str], ...]:
        """What goes with each call: ask for a leader, and the token where there is a user."""
        if not self.config.username:
            return (REQUIRE_LEADER,)
        async with self._authenticating:
            if self._token is None:
                self._token = await self._authenticate(host, timeout_s)
        return (REQUIRE_LEADER, ("token", self._token)) if self._token else (REQUIRE_LEADER,)

    def forget_token(self) -> None:
        """The next call authenticates afresh."""
        self._token = None

    async def _authenticate(self, host: str, timeout_s: float) -> str:
        request = wire.AuthenticateRequest(name=self.config.username, password=self.config.password)
        try:
            answer = await self._method(host, wire.AUTHENTICATE)(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as failure:
            if "authentication is not enabled" in (failure.details() or ""):
                return ""
            error = error_of(failure.code(), failure.details(), host)
            # Nothing was asked for yet, so nothing can have been changed.
            raise Unanswered(str(error), sent=False) if isinstance(error, Unanswered) else error from failure
        token: str = answer.token
        return token

    def _method(self, host: str, method: wire.Method) -> Any:
        bound = self._methods.get((host, method.path))
        if bound is None:
            bound = self._methods[host, method.path] = method.bind(self.channel(host))
        return bound

    async def call(self, method: wire.Method, request: Any, kind: Kind, budget_s: float | None) -> Any:
        """The answer. Raises StoreUnavailable, OutcomeUnknown (not for reads), LeaseExpired, StoreRefused."""
        attempts = Attempts(budget_s or self.config.timeout_s, len(self.config.hosts))
        fresh_token = sent = False
        while True:
            host = self.rotation.preferred
            try_s = attempts.once_s() if kind is Kind.ONCE else attempts.try_s()
            try:
                return await self._once(host, method, request, attempts.try_s(), try_s)
            except StoreRefused as failure:
                if isinstance(failure, TokenRejected):
                    self.forget_token()
                    if self.config.username and not fresh_token:
                        fresh_token = True
                        continue
                # The no is to this try: one before it, which was not answered, may have taken effect.
                if sent and not isinstance(failure, LeaseExpired):
                    raise OutcomeUnknown(str(failure)) from failure
                raise
            except Unanswered as failure:
                self.rotation.pass_over(host)
                sent = sent or (failure.sent and kind is not Kind.READ)
                pause_s = attempts.pause_after_failure_s()
                if pause_s is None or (sent and kind is Kind.ONCE):
                    raise (OutcomeUnknown if sent else StoreUnavailable)(str(failure)) from failure
                await asyncio.sleep(pause_s)

    async def _once(self, host: str, method: wire.Method, request: Any, connect_s: float, try_s: float) -> Any:
        self.tries += 1
        await self.wait_until_connected(host, connect_s)
        self._vintage.check(host, self.channel(host))
        metadata = await self.metadata(host, try_s)
        try:
            return await self._method(host, method)(request, timeout=try_s, metadata=metadata)
        except grpc.aio.AioRpcError as failure:
            raise error_of(failure.code(), failure.details(), host) from failure

    async def wait_until_connected(self, host: str, timeout_s: float) -> None:
        """The channel is ready on return; raises Unanswered at once when the connection is refused.

        A call that fails before this was certainly not sent, one that fails after it may have been.
        """
        channel = self.channel(host)
        state = channel.get_state(try_to_connect=True)
        if state is _State.READY:
            return
        try:
            async with asyncio.timeout(timeout_s):
                while state in (_State.IDLE, _State.CONNECTING):
                    await channel.wait_for_state_change(state)
                    state = channel.get_state(try_to_connect=True)
        except TimeoutError:
            raise Unanswered(f"etcd at {host}: no connection within {timeout_s:.2f} s", sent=False) from None
        if state is not _State.READY:
            raise Unanswered(f"etcd at {host}: cannot connect", sent=False)
