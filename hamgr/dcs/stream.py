"""Watching a range of keys: resumes where it stopped, on another endpoint, and says so when it cannot."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import grpc.aio

from hamgr.dcs import wire
from hamgr.dcs.connection import Connections
from hamgr.dcs.endpoints import FIRST_TRY_S, PAUSE_MAX_S, PAUSE_MIN_S
from hamgr.dcs.errors import StoreError, StoreRefused, Unanswered, error_of
from hamgr.dcs.messages import event_of
from hamgr.dcs.ops import Changes, Gap, Interrupted, prefix_end


async def watch_prefix(
    connections: Connections, prefix: str, after_revision: int, idle_s: float
) -> AsyncGenerator[Changes | Interrupted | Gap, None]:
    """All changes below `prefix` after that revision, in order, each once; ends only with a Gap.

    A stream that says nothing for `idle_s`, though asked for its progress half-way, is given up: its member is
    frozen, cut off or without a leader. Source: etcd API guide, watch; etcd 3.4 api/v3rpc/watch.go.
    """
    revision = after_revision
    pause_s = 0.0
    while True:
        host = connections.rotation.preferred
        try:
            # From the last revision seen, not the next one: of a watch that begins in the future late etcd tells no
            # progress (3.5.30 does not, 3.5.16 did; etcd's pull request 20245). What was seen already is left out.
            async with contextlib.aclosing(
                _responses(connections, host, prefix, max(1, revision), idle_s)
            ) as responses:
                async for response in responses:
                    if response.created and response.header.revision < revision:
                        yield Gap(f"etcd at {host} is at revision {response.header.revision}, last seen was {revision}")
                        return
                    if not response.created:
                        # The first answer proves nothing: etcd accepts a watch and then cancels it.
                        pause_s = 0.0
                    if response.compact_revision:
                        yield Gap(f"etcd has compacted up to {response.compact_revision}, last seen was {revision}")
                        return
                    changes = _changes(response, host, revision)
                    if changes is not None:
                        revision = changes.revision
                        yield changes
        except StoreError as failure:
            connections.rotation.pass_over(host)
            if not isinstance(failure, Unanswered):
                connections.forget_token()
            pause_s = min(PAUSE_MAX_S, max(PAUSE_MIN_S, pause_s * 2))
            yield Interrupted(str(failure))
        await asyncio.sleep(pause_s)


def _changes(response: Any, host: str, revision: int) -> Changes | None:
    """What came after that revision; None if nothing did."""
    if response.canceled:
        raise StoreRefused(f"etcd at {host}: watch cancelled: {response.cancel_reason or 'no reason given'}")
    found = [event_of(event) for event in response.events]
    events = tuple(event for event in found if event.mod_revision > revision)
    if not events:
        return None
    # The header's revision may run ahead of the events that were sent (etcd 3.4, progress of an unsynced
    # watch); resuming from it could lose some.
    return Changes(max(event.mod_revision for event in events), events)


async def _responses(
    connections: Connections, host: str, prefix: str, start_revision: int, idle_s: float
) -> AsyncGenerator[Any, None]:
    """Answers of one stream. Raises Unanswered when it ends, fails or falls silent."""
    await connections.wait_until_connected(host, min(idle_s, FIRST_TRY_S))
    connections.tries += 1
    call = connections.channel(host).stream_stream(
        wire.WATCH_PATH, request_serializer=wire.serialized, response_deserializer=wire.WatchResponse.FromString
    )(metadata=await connections.metadata(host, idle_s))
    try:
        create = wire.WatchCreateRequest(
            key=prefix.encode(), range_end=prefix_end(prefix).encode(), start_revision=start_revision
        )
        await call.write(wire.WatchRequest(create_request=create))
        while True:
            response = await _next_response(call, idle_s)
            if response is grpc.aio.EOF:
                raise Unanswered(f"etcd at {host}: watch ended", sent=False)
            yield response
    except TimeoutError:
        raise Unanswered(f"etcd at {host}: watch silent for {idle_s} s", sent=False) from None
    except grpc.aio.AioRpcError as failure:
        raise error_of(failure.code(), failure.details(), host) from failure
    finally:
        call.cancel()


async def _next_response(call: Any, idle_s: float) -> Any:
    """The next message; asks for a sign of life half-way. Raises TimeoutError after `idle_s`."""
    # A read that is cancelled cancels the whole call, so it is waited for, not timed out.
    reading = asyncio.ensure_future(call.read())
    try:
        await asyncio.wait({reading}, timeout=idle_s / 2)
        if not reading.done():
            # A call that has ended while this process did not get to run says so here; what is read tells how it ended.
            with contextlib.suppress(asyncio.InvalidStateError):
                await asyncio.wait_for(call.write(wire.PROGRESS_REQUEST), idle_s / 2)
            await asyncio.wait({reading}, timeout=idle_s / 2)
        if not reading.done():
            raise TimeoutError
        return reading.result()
    finally:
        reading.cancel()
