"""Answers are counted with their codes, silence is counted as such, closed connections are made anew."""

from __future__ import annotations

import asyncio

from hamgr.bench.rest_load import load

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Server:
    """Answers everything with 503; `closes`: as HTTP/1.0 does, after each answer; `silent`: says nothing."""

    def __init__(self, *, closes: bool = False, silent: bool = False) -> None:
        self.closes, self.silent = closes, silent
        self.connections = 0
        self.requests: list[bytes] = []

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}/primary"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.requests.append(head.split(b"\r\n")[0])
                if self.silent:
                    continue
                version = b"HTTP/1.0" if self.closes else b"HTTP/1.1"
                length = b"" if self.closes else b"Content-Length: 2\r\n"
                writer.write(version + b" 503 no\r\n" + length + b"\r\n{}")
                if self.closes:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


async def test_each_answer_is_counted_with_its_code() -> None:
    server = Server()
    async with server as url:
        found = await load(url, 0.2, 3, 2)
    assert found["codes"] == {503: len(server.requests)}
    assert found["failed"] == 0
    assert set(server.requests) == {b"GET /primary HTTP/1.1"}
    assert server.connections == 3 + 2


async def test_a_server_that_closes_each_connection_is_connected_to_anew() -> None:
    server = Server(closes=True)
    async with server as url:
        found = await load(url, 0.2, 2, 0)
    assert found["failed"] == 0
    assert found["codes"] == {503: len(server.requests)}
    assert server.connections >= len(server.requests)


async def test_a_server_that_says_nothing_has_failures_and_no_latencies() -> None:
    async with Server(silent=True) as url:
        found = await load(url, 0.1, 2, 0)
    assert found["failed"] == 2
    assert found["requests_per_s"] == 0
    assert "p99_ms" not in found


async def test_a_server_that_is_not_there_has_failures() -> None:
    async with Server() as url:
        pass
    found = await load(url, 0.05, 1, 0)
    assert found["requests_per_s"] == 0
    assert isinstance(found["failed"], int)
    assert found["failed"] > 0
