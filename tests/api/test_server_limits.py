"""What clients may do to the server: idle, slow, half, too much, gone."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import make_mocked_request
from fake_agent import FakeAgent, Serve

from hamgr.agent import journal
from hamgr.api import server
from hamgr.api.config import ApiBroken, ApiConfig
from hamgr.api.port import Answer
from hamgr.api.server import Api, RunningApi, start

DEADLINE_S = 15.0


async def talk(port: int, raw: bytes) -> bytes:
    """Send bytes and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    answer = await asyncio.wait_for(reader.read(), DEADLINE_S)
    writer.close()
    return answer


def address_of(running: RunningApi, path: str) -> str:
    return f"http://127.0.0.1:{running.address[1]}{path}"


async def wait_until(claim: Callable[[], bool]) -> None:
    until = time.monotonic() + DEADLINE_S
    while not claim():
        assert time.monotonic() < until, "the condition did not come true in time"
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("method", ["OPTIONS", "HEAD"])
async def test_http_1_0_check_of_a_load_balancer_gets_a_status_and_a_closed_connection(
    serve: Serve, method: str
) -> None:
    running = await serve(ApiConfig(port=0))
    answer = await talk(running.address[1], f"{method} /primary HTTP/1.0\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 OK")
    assert body == b""


async def test_absolute_form_of_a_proxy_is_understood(serve: Serve) -> None:
    running = await serve(ApiConfig(port=0))
    raw = b"GET http://db:8008/replica?lag=1 HTTP/1.1\r\nHost: db\r\nConnection: close\r\n\r\n"
    assert (await talk(running.address[1], raw)).startswith(b"HTTP/1.1 503")


async def test_address_and_path_joined_by_two_slashes_are_understood(serve: Serve) -> None:
    """As vip-manager asks with its own defaults, http://127.0.0.1:8008/ and /leader."""
    running = await serve(ApiConfig(port=0))
    for path, code in (("//leader", 200), ("//replica?lag=1", 503), ("//nowhere", 404), ("//", 200)):
        raw = f"GET {path} HTTP/1.1\r\nHost: db\r\nConnection: close\r\n\r\n".encode()
        assert (await talk(running.address[1], raw)).startswith(f"HTTP/1.1 {code}".encode()), path


@pytest.mark.parametrize(
    "raw", [b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nA" + b"a" * 70000]
)
async def test_nonsense_is_400_and_the_server_goes_on(serve: Serve, raw: bytes) -> None:
    running = await serve(ApiConfig(port=0))
    assert b" 400 " in (await talk(running.address[1], raw)).partition(b"\r\n")[0]
    good = await talk(running.address[1], b"GET /primary HTTP/1.0\r\n\r\n")
    assert good.startswith(b"HTTP/1.0 200")


@pytest.fixture
def _log_as_before() -> Iterator[None]:
    loggers = journal.LOGGER, journal.REST_LOGGER
    before = [(each.handlers[:], each.filters[:], each.propagate, each.level) for each in loggers]
    yield
    for logger, (handlers, filters, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.filters[:], logger.propagate = handlers, filters, propagate
        logger.setLevel(level)


@pytest.mark.usefixtures("_log_as_before")
@pytest.mark.parametrize(("level", "lines"), [("INFO", 0), ("DEBUG", 2)])
async def test_nonsense_of_anybody_does_not_fill_the_log(
    serve: Serve, capfd: pytest.CaptureFixture[str], level: str, lines: int
) -> None:
    running = await serve(ApiConfig(port=0))
    journal.set_up(level, as_json=False)
    for raw in (b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET / HTTP/1.1\r\nA: b\r\nA b\r\n\r\n"):
        assert b" 400 " in (await talk(running.address[1], raw)).partition(b"\r\n")[0]
    journal.LOGGER.handlers[0].flush()
    told = capfd.readouterr().err.splitlines()
    assert len(told) == lines
    assert all("DEBUG Error handling request from 127.0.0.1" in line for line in told)


@pytest.mark.usefixtures("_log_as_before")
async def test_a_defect_in_an_answer_is_in_the_log_as_everything_else_is(
    serve: Serve, agent: FakeAgent, capfd: pytest.CaptureFixture[str]
) -> None:
    running = await serve(ApiConfig(port=0))
    journal.set_up("INFO", as_json=True)
    agent.failure = ZeroDivisionError("a defect")
    assert b" 500 " in await talk(running.address[1], b"POST /reload HTTP/1.0\r\n\r\n")
    journal.LOGGER.handlers[0].flush()
    (line,) = capfd.readouterr().err.splitlines()
    assert "ZeroDivisionError" in json.loads(line)["traceback"]


async def test_bytes_that_are_no_text_in_path_and_query_are_answered(serve: Serve) -> None:
    running = await serve(ApiConfig(port=0))
    for target, codes in ((b"/prim\xffary", (b" 404 ", b" 400 ")), (b"/replica?tag_a=\xff&lag=%ff", (b" 400 ",))):
        answer = await talk(running.address[1], b"GET " + target + b" HTTP/1.0\r\n\r\n")
        assert any(code in answer.partition(b"\r\n")[0] for code in codes)


async def test_hundreds_of_idle_and_half_sent_requests_do_not_hold_up_a_check(serve: Serve) -> None:
    running = await serve(ApiConfig(port=0))
    port = running.address[1]
    idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(300)]
    for _, writer in idle[::2]:
        writer.write(b"GET /primary HTTP/1.1\r\nHos")
    assert (await talk(port, b"GET /primary HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.0 200")
    for _, writer in idle:
        writer.close()


@pytest.mark.parametrize("sent", [b"", b"GET /primary HTTP/1.1\r\nHos", b"GET /primary HTTP/1.1\r\nHost: a\r\n\r\n"])
async def test_idle_connection_is_closed_in_the_end(serve: Serve, sent: bytes) -> None:
    running = await serve(ApiConfig(port=0, idle_timeout_s=0.2))
    answer = await talk(running.address[1], sent)
    assert answer.startswith(b"HTTP/1.1 200") if sent.endswith(b"\r\n\r\n") else not answer.startswith(b"HTTP/1.1 200")


async def test_body_that_does_not_arrive_is_408_and_orders_nothing(serve: Serve, agent: FakeAgent) -> None:
    running = await serve(ApiConfig(port=0, body_timeout_s=0.1))
    raw = b"POST /switchover HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n{"
    assert (await talk(running.address[1], raw)).startswith(b"HTTP/1.1 408")
    assert agent.calls == []


async def test_order_that_does_not_end_is_503_and_unknown(serve: Serve, agent: FakeAgent) -> None:
    async def endless() -> Answer:
        await asyncio.Event().wait()
        return Answer(200)

    agent.reload = endless  # type: ignore[method-assign]
    running = await serve(ApiConfig(port=0, order_timeout_s=0.1))
    async with aiohttp.ClientSession() as session, session.post(address_of(running, "/reload")) as answer:
        assert answer.status == 503
        assert "unknown" in await answer.text()


async def test_a_restart_is_waited_for_beyond_the_limit_of_other_orders(serve: Serve, agent: FakeAgent) -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def slow(kind: str, options: Mapping[str, Any]) -> Answer:
        begun.set()
        await release.wait()
        return Answer(200, f"{kind}ed successfully")

    async def endless() -> Answer:
        await asyncio.Event().wait()
        return Answer(200)

    agent.order, agent.reload = slow, endless  # type: ignore[method-assign]
    running = await serve(ApiConfig(port=0, order_timeout_s=0.1))
    async with aiohttp.ClientSession() as session:
        restart = asyncio.create_task(send(session, address_of(running, "/restart")))
        await asyncio.wait_for(begun.wait(), DEADLINE_S)
        assert await send(session, address_of(running, "/reload")) == 503, "given later, and its limit is over"
        release.set()
        assert await restart == 200


async def test_health_is_answered_while_an_order_is_under_way(serve: Serve, agent: FakeAgent) -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def slow() -> Answer:
        begun.set()
        await release.wait()
        return Answer(202, "reload scheduled")

    agent.reload = slow  # type: ignore[method-assign]
    running = await serve(ApiConfig(port=0))
    base = f"http://127.0.0.1:{running.address[1]}"
    async with aiohttp.ClientSession() as session:
        order = asyncio.create_task(send(session, f"{base}/reload"))
        await asyncio.wait_for(begun.wait(), DEADLINE_S)
        async with session.get(f"{base}/primary") as answer:
            assert answer.status == 200
        release.set()
        assert await order == 202


async def send(session: aiohttp.ClientSession, address: str) -> int:
    async with session.post(address) as answer:
        return answer.status


async def test_client_that_goes_away_does_not_cancel_its_order(serve: Serve, agent: FakeAgent) -> None:
    begun, release, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow() -> Answer:
        begun.set()
        await release.wait()
        ended.set()
        return Answer(202)

    agent.reload = slow  # type: ignore[method-assign]
    running = await serve(ApiConfig(port=0))
    _, writer = await asyncio.open_connection("127.0.0.1", running.address[1])
    writer.write(b"POST /reload HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    await asyncio.wait_for(begun.wait(), DEADLINE_S)
    writer.close()
    await writer.wait_closed()
    release.set()
    await asyncio.wait_for(ended.wait(), DEADLINE_S)


async def test_port_in_use_names_the_address(serve: Serve, agent: FakeAgent) -> None:
    running = await serve(ApiConfig(port=0))
    port = running.address[1]
    with pytest.raises(ApiBroken, match=rf"127\.0\.0\.1:{port}"):
        await start(ApiConfig(port=port), agent)


async def test_address_that_is_not_ours_is_broken(agent: FakeAgent) -> None:
    with pytest.raises(ApiBroken, match=r"192\.0\.2\.1:8008") as raised:
        await start(ApiConfig(host="192.0.2.1"), agent)
    assert raised.value.is_retryable, "the host may have it once it has booted"
    with pytest.raises(ApiBroken, match=r"x\.invalid") as raised:
        await start(ApiConfig(host="x.invalid"), agent)
    assert raised.value.is_retryable, "and so may the name service"


async def test_close_frees_the_port_and_waits_for_no_idle_client(
    agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "SHUTDOWN_S", 10 * DEADLINE_S)
    running = await start(ApiConfig(port=0), agent)
    port = running.address[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.wait_for(running.close(), DEADLINE_S)
    assert await asyncio.wait_for(reader.read(), DEADLINE_S) == b""
    writer.close()
    again = await start(ApiConfig(port=port), agent)
    await again.close()


async def test_extra_headers_are_on_every_answer(serve: Serve) -> None:
    running = await serve(ApiConfig(port=0, extra_headers={"X-Frame-Options": "DENY", "Server": "quiet"}))
    async with aiohttp.ClientSession(f"http://127.0.0.1:{running.address[1]}") as session:
        for path in ("/primary", "/nowhere", "/metrics"):
            async with session.get(path) as answer:
                assert (answer.headers["X-Frame-Options"], answer.headers["Server"]) == ("DENY", "quiet")


async def test_a_bug_is_500_without_a_traceback(serve: Serve, agent: FakeAgent, caplog: Any) -> None:
    agent.failure = RuntimeError("secret inside")
    running = await serve(ApiConfig(port=0))
    async with aiohttp.ClientSession() as session, session.get(address_of(running, "/config")) as answer:
        assert answer.status == 500
        assert "secret" not in await answer.text()
    await wait_until(lambda: "secret inside" in caplog.text)


def test_a_request_lets_everything_else_go_first(agent: FakeAgent) -> None:
    """Where tasks begin at once, a client's thousand requests at a time would else be answered in one turn."""
    request = make_mocked_request("GET", "/metrics")
    answering = Api(ApiConfig(), agent).respond(request)
    answering.send(None)
    with pytest.raises(StopIteration) as end:
        answering.send(None)
    assert end.value.value.status == 200


async def test_connections_never_take_the_descriptors_that_the_agent_needs(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 3)
    running = await serve(ApiConfig(port=0))
    port = running.address[1]
    idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
    await wait_until(lambda: len(running._factory.connections) == 3)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with suppress(ConnectionResetError):
        assert await asyncio.wait_for(reader.read(), DEADLINE_S) == b""
    writer.close()
    idle[0][1].close()
    await wait_until(lambda: len(running._factory.connections) == 2)
    ask = b"GET /primary HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    assert (await talk(port, ask)).startswith(b"HTTP/1.1 200")
    for _, each in idle[1:]:
        each.close()


def test_a_process_that_may_open_few_files_takes_fewer_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (1024, 1024))
    assert server._most_connections() == 1024 - server.KEPT_DESCRIPTORS
