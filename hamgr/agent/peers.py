"""Peer leases, the asking side: with every other member's promise not to campaign, a leader needs no etcd for one ttl.

Connections are kept open, so that an ask costs one round trip and no look-up of names. DESIGN.md 5.8.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from hamgr.api.unsafe import ACCEPTED, MEMBER_HEADER, member_mark
from hamgr.core.units import Instant, after

WARM_EVERY_S = 20.0
GREETING_S = 2.0
IDLE_S = 50.0
"""Less than the REST server's own bound on idle connections: no ask is sent into one that is being closed."""

LOOK_UP_S = 0.2
SHOWN_CHARACTERS = 200

OF_THIS_HOST = frozenset({errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL})
"""Errors that tell of the network here, and nothing of the member."""


@dataclass(frozen=True, slots=True)
class PeerAccess:
    """What this member shows to the others' REST: basic authentication where `username`, and its certificate."""

    username: str = ""
    password: str = field(default="", repr=False)
    tls: ssl.SSLContext | bool = True
    """True: certificates are checked against the system's authorities."""

    @property
    def authorization(self) -> str:
        """The header of basic authentication. Source: RFC 7617."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class NoPromise:
    """A member did not promise. `is_local`: the call did not leave this host."""

    why: str
    is_local: bool = False


class Peers:
    """The other members' REST. Used in one event loop; `close` ends its connections."""

    def __init__(self, access: PeerAccess, scope: str) -> None:
        self._access = access
        self._scope = scope
        self._session: aiohttp.ClientSession | None = None
        self._warm: frozenset[str] = frozenset()
        self._warmed_at = Instant(0.0)
        self._warming: asyncio.Task[None] | None = None

    async def use(self, access: PeerAccess) -> None:
        """From now on with these credentials; connections under the former ones are ended."""
        self._access = access
        self._warm = frozenset()
        await self.close()

    async def close(self) -> None:
        """No connection is open; the next call makes new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def ask(
        self, peers: Iterable[tuple[str, str]], body: Mapping[str, Any], budget_s: float
    ) -> dict[str, NoPromise]:
        """Who of (name, REST address) did not promise, and why; empty: all did. All are asked at once."""
        asked = list(peers)
        answers = await asyncio.gather(*(self._ask_in_time(name, url, body, budget_s) for name, url in asked))
        return {name: answer for (name, _), answer in zip(asked, answers, strict=True) if answer is not None}

    def keep_warm(self, urls: frozenset[str], at: Instant) -> None:
        """Connections to these addresses are open or being opened. Called after each decision; costs little."""
        is_due = urls != self._warm or at >= after(self._warmed_at, WARM_EVERY_S)
        if not urls or not is_due or (self._warming is not None and not self._warming.done()):
            return
        self._warm, self._warmed_at = urls, at
        self._warming = asyncio.create_task(self._connect(urls))

    async def _connect(self, urls: frozenset[str]) -> None:
        await asyncio.gather(*(self._greet(url) for url in urls))

    async def _greet(self, url: str) -> None:
        # Who does not answer now is asked again, and named, when it matters.
        with contextlib.suppress(aiohttp.ClientError, OSError, ValueError):
            async with asyncio.timeout(GREETING_S), self._open().get(_at(url, "/liveness")) as answer:
                await answer.read()

    async def _ask_in_time(self, name: str, url: str, body: Mapping[str, Any], budget_s: float) -> NoPromise | None:
        if not _names_a_host(url):
            return NoPromise(f"its REST address {url!r} is none")
        try:
            async with asyncio.timeout(budget_s):
                return await _twice(lambda: self._ask_one(name, url, body))
        except TimeoutError:
            return NoPromise(f"no answer within {budget_s:g} s")
        except (aiohttp.ClientError, UnicodeError) as error:
            # The latter is said of a name that no host can have.
            number = error.errno if isinstance(error, OSError) else None
            return NoPromise(str(error) or type(error).__name__, is_local=number in OF_THIS_HOST)

    async def _ask_one(self, name: str, url: str, body: Mapping[str, Any]) -> NoPromise | None:
        async with self._open().post(_at(url, "/failsafe"), json=body, allow_redirects=False) as answer:
            text = (await answer.content.read(SHOWN_CHARACTERS)).decode(errors="replace").strip()
            if answer.status != 200 or text != ACCEPTED:
                return NoPromise(f"{answer.status} {text}")
            # Behind an address that moved, or that two members announce, another one may have promised.
            mark = answer.headers.get(MEMBER_HEADER, "")
            return (
                None if mark == member_mark(self._scope, name) else NoPromise(f"at {url} answers {mark or 'another'}")
            )

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            access = self._access
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    ssl=access.tls,
                    resolver=LastKnown(),
                    use_dns_cache=False,
                    keepalive_timeout=IDLE_S,
                    limit=0,
                ),
                headers={"Authorization": access.authorization} if access.username else None,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
            )
        return self._session


def _names_a_host(url: str) -> bool:
    """What stands in a member's key may be anything."""
    try:
        return bool(urlsplit(url).hostname)
    except ValueError:
        return False


class LastKnown(AbstractResolver):
    """Names are looked up for each new connection; where that takes long or fails, the last answer counts.

    An outage of the name service is likely to come together with one of etcd.
    """

    def __init__(self) -> None:
        self._service = ThreadedResolver()
        self._known: dict[tuple[str, int, int], list[ResolveResult]] = {}
        self._looking: dict[tuple[str, int, int], asyncio.Task[list[ResolveResult]]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        key = (host, port, int(family))
        looking = self._looking.get(key)
        if looking is None:
            looking = self._looking[key] = asyncio.create_task(self._look_up(key, family))
        await asyncio.wait({looking}, timeout=LOOK_UP_S)
        known = self._known.get(key)
        return known if known is not None else await asyncio.shield(looking)

    async def _look_up(self, key: tuple[str, int, int], family: socket.AddressFamily) -> list[ResolveResult]:
        try:
            self._known[key] = found = await self._service.resolve(key[0], key[1], family)
        except OSError:
            if key not in self._known:
                raise
            return self._known[key]
        finally:
            del self._looking[key]
        return found

    async def close(self) -> None:
        for looking in tuple(self._looking.values()):
            looking.cancel()


def _at(url: str, path: str) -> str:
    """That path of the REST server whose announced address is `url`, which ends in `/patroni`."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


async def _twice(call: Callable[[], Awaitable[NoPromise | None]]) -> NoPromise | None:
    """Again on a new connection, if the one that was kept open has ended: the member may have been restarted."""
    try:
        return await call()
    except aiohttp.ClientConnectorError:
        raise
    except aiohttp.ClientConnectionError:
        return await call()
