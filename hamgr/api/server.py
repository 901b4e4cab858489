"""The REST server: listens, limits, authorises, and turns requests into replies.

aiohttp's low-level server without its application: a table look-up is the whole routing, because load
balancers ask for /primary hundreds of times a second on a host whose cores belong to PostgreSQL.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
import ssl
from typing import Any

from aiohttp import web

from hamgr.api.access import Caller, Denial, denial_of, denial_of_member, tls_context
from hamgr.api.config import ApiBroken, ApiConfig
from hamgr.api.names import Names
from hamgr.api.orders import Refusal
from hamgr.api.port import AgentPort, Answer, Unavailable
from hamgr.api.reply import Reply, json_reply, text_reply
from hamgr.api.safe import Desk
from hamgr.api.unsafe import ASKED_BY_MEMBERS, HANDLERS, WAITS_AS_TOLD, Handler
from hamgr.core.health import CHECK_OF_PATH

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
SHUTDOWN_S = 1.0
TLS_HANDSHAKE_S = 5.0
BACKLOG = 512
MOST_CONNECTIONS = 4096
"""Open at a time; further ones are closed at once."""
KEPT_DESCRIPTORS = 256
"""Of the process's open files, those that connections never use: the agent's own work goes first."""


class Api:
    """Turns one request into one reply."""

    def __init__(self, config: ApiConfig, port: AgentPort) -> None:
        self.config = config
        self.names = Names()
        self._port = port
        self._desk = Desk(port)
        self._safe_paths = frozenset((*CHECK_OF_PATH, *self._desk.at_once, *self._desk.reading))

    async def respond(self, request: web.BaseRequest) -> web.Response:
        """aiohttp's entry."""
        # Requests that arrived together are answered without a pause from Python 3.12 on, where a task begins at once:
        # a client that sends thousands of them must not keep the agent from its beat.
        await asyncio.sleep(0)
        target = request.raw_path
        # A proxy may send the absolute form, which only the parsed URL tells apart.
        path, _, query = (target if target.startswith("/") else request.rel_url.raw_path_qs).partition("?")
        if path.startswith("//"):
            # An address that ends in a slash and a path that begins with one, joined by whoever asks.
            path = "/" + path.lstrip("/")
        if len(path) > 1 and path.endswith("/"):
            path = path[:-1]
        reply = await self._reply(request, path, query)
        return self._rendered(request.method, reply)

    async def _reply(self, request: web.BaseRequest, path: str, query: str) -> Reply:
        method = request.method
        if method in SAFE_METHODS and path in self._safe_paths:
            return self._desk.answer_at_once(path, query) or await self._read(path, query)
        handlers = HANDLERS.get(path, {})
        if method in handlers:
            return await self._order(request, path, handlers[method])
        allowed = [*(SAFE_METHODS if path in self._safe_paths else ()), *handlers]
        if not allowed:
            return json_reply(404, {"error": f"unknown path {path[:200]}"})
        return Reply(405, b"", headers={"Allow": ", ".join(allowed)})

    async def _read(self, path: str, query: str) -> Reply:
        try:
            async with asyncio.timeout(self.config.read_timeout_s):
                return await self._desk.reading[path](query)
        except TimeoutError:
            return text_reply(503, f"no answer from etcd within {self.config.read_timeout_s} s")
        except Unavailable as problem:
            return text_reply(503, str(problem))

    async def _order(self, request: web.BaseRequest, path: str, handler: Handler) -> Reply:
        denial = await self._denial(_caller(request), path)
        if denial is not None:
            realm = {"WWW-Authenticate": 'Basic realm="hamgr"'} if denial.code == 401 else None
            return text_reply(denial.code, denial.text, realm)
        try:
            raw = await self._body(request)
            async with asyncio.timeout(None if path in WAITS_AS_TOLD else self.config.order_timeout_s):
                return _shown(await handler(self._port, raw))
        except Refusal as refusal:
            return text_reply(refusal.code, refusal.text)
        except Unavailable as problem:
            return text_reply(503, str(problem))
        except TimeoutError:
            limit_s = self.config.order_timeout_s
            return text_reply(503, f"not ended within {limit_s} s; whether it took effect is unknown")

    async def _denial(self, caller: Caller, path: str) -> Denial | None:
        if path in ASKED_BY_MEMBERS:
            return denial_of_member(self.config, caller, self.names)
        cluster = self._port.snapshot().state.cluster
        return await denial_of(self.config, caller, cluster.members if cluster else (), self.names)

    async def _body(self, request: web.BaseRequest) -> bytes:
        try:
            async with asyncio.timeout(self.config.body_timeout_s):
                return await request.read()
        except TimeoutError as problem:
            limit_s = self.config.body_timeout_s
            raise Refusal(408, f"the body did not arrive within {limit_s} s") from problem
        except web.HTTPRequestEntityTooLarge as problem:
            raise Refusal(413, f"the body is larger than {self.config.max_body_bytes} bytes") from problem
        except web.RequestPayloadError as problem:
            raise Refusal(400, f"the body cannot be read: {problem}") from problem

    def _rendered(self, method: str, reply: Reply) -> web.Response:
        headers = {"Content-Type": reply.content_type, "Server": "hamgr", **reply.headers}
        headers.update(self.config.extra_headers)
        return web.Response(status=reply.code, body=b"" if method == "OPTIONS" else reply.body, headers=headers)


def _caller(request: web.BaseRequest) -> Caller:
    transport = request.transport
    certificate = transport.get_extra_info("peercert") if transport else None
    return Caller(request.remote or "", bool(certificate), request.headers.get("Authorization"))


def _shown(answer: Answer) -> Reply:
    if answer.body is not None:
        return json_reply(answer.code, answer.body)
    return text_reply(answer.code, answer.text, answer.headers)


class RunningApi:
    """A REST server that listens."""

    def __init__(self, api: Api, factory: web.Server, listeners: list[asyncio.Server]) -> None:
        self._api = api
        self._factory = factory
        self._listeners = listeners

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens on."""
        host, port, *_ = self._listeners[0].sockets[0].getsockname()
        return host, port

    async def reload(self, config: ApiConfig) -> None:
        """From now on as `config` says, but for where it listens. New connections get the certificate, key and CA
        files as they are now; present ones stay.

        The listening sockets are handed to a listener with a fresh TLS context rather than the old context being
        loaded again, so that a CA removed from the file is no longer trusted. Raises ApiBroken, with all as it was,
        if the files cannot be used, or if HTTP would become HTTPS or back: the members know the address as it was.
        """
        if config.is_https is not self._api.config.is_https:
            raise ApiBroken("restapi.certfile: between HTTP and HTTPS REST changes by a restart of the service only")
        tls = tls_context(config)
        if tls is not None:
            old = self._listeners
            copies = [socket.dup() for listener in old for socket in listener.sockets]
            self._listeners = [await _listen(self._factory, tls, sock=copy) for copy in copies]
            for listener in old:
                listener.close()
        self._api.config = config
        self._api.names.look_up(config.allowed_hosts)

    async def close(self) -> None:
        """Stop listening and end every connection, requests under way within a second."""
        for listener in self._listeners:
            listener.close()
        self._factory.pre_shutdown()
        # Idle connections end in the next turn of the loop; only requests under way are waited for.
        await asyncio.sleep(0)
        await self._factory.shutdown(SHUTDOWN_S)


async def start(config: ApiConfig, port: AgentPort) -> RunningApi:
    """A REST server for this agent. Raises ApiBroken, with the address or file, if it cannot listen."""
    api = Api(config, port)
    tls = tls_context(config)
    loop = asyncio.get_running_loop()

    def limited(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=config.max_body_bytes)

    factory = web.Server(
        api.respond,
        request_factory=limited,
        access_log=None,
        keepalive_timeout=config.idle_timeout_s,
        lingering_time=1.0,
        auto_decompress=False,
    )
    host = None if config.host in ("", "*") else config.host
    try:
        listener = await _listen(factory, tls, host=host, port=config.port)
    except OSError as problem:
        broken = ApiBroken(f"cannot listen on {config.host}:{config.port} for REST: {problem}")
        # No number: none of the addresses is there yet, as Python 3.13 says it.
        broken.is_retryable = isinstance(problem, socket.gaierror) or problem.errno in (None, errno.EADDRNOTAVAIL)
        raise broken from problem
    # Known before members ask, which they may do only when no name can be looked up any more.
    api.names.look_up(config.allowed_hosts)
    return RunningApi(api, factory, [listener])


async def _listen(factory: web.Server, tls: ssl.SSLContext | None, **where: Any) -> asyncio.Server:
    def connection() -> asyncio.BaseProtocol:
        return factory() if len(factory.connections) < _most_connections() else _Refused()

    handshake_s = TLS_HANDSHAKE_S if tls else None
    loop = asyncio.get_running_loop()
    return await loop.create_server(connection, ssl=tls, ssl_handshake_timeout=handshake_s, backlog=BACKLOG, **where)


def _most_connections() -> int:
    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(MOST_CONNECTIONS, open_files - KEPT_DESCRIPTORS))


class _Refused(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            transport.abort()
