"""A TCP proxy that loses what passes one way, or all connections, when told to."""

from __future__ import annotations

import asyncio


class Proxy:
    """Listens on a port of its own and forwards to `host`. `lose_answers`, `lose_requests`: swallow that direction."""

    def __init__(self, host: str) -> None:
        self._target = host.split(":")
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.lose_answers = False
        self.lose_requests = False
        self.lost_bytes = 0

    @property
    def host(self) -> str:
        assert self._server is not None
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def start(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def stop(self) -> None:
        """Listens no more: connections are refused from now on."""
        assert self._server is not None
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Ends all connections."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward_writer = await asyncio.open_connection(*self._target)
        self._writers |= {writer, onward_writer}
        await asyncio.gather(
            self._forward(reader, onward_writer, "lose_requests"), self._forward(onward_reader, writer, "lose_answers")
        )

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, loses: str) -> None:
        try:
            while chunk := await reader.read(65536):
                if getattr(self, loses):
                    self.lost_bytes += len(chunk)
                else:
                    writer.write(chunk)
                    await writer.drain()
        except OSError:
            pass
        writer.transport.abort()
