"""GET over so many connections for a while: `python -m hamgr.bench.rest_load URL SECONDS POOL IDLE`, its own program.

Prints one line of JSON. IDLE further connections are opened first and say nothing. A server that closes a connection
after its answer is connected to anew, which counts as part of the request. A request without an answer within two
seconds counts as failed. Standard library only, so that what is measured is the server.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_PATIENCE_S = 2.0


@dataclass(slots=True)
class Tally:
    """Seconds of each answered request by its status code, and how many were not answered."""

    took_s: list[float] = field(default_factory=list)
    codes: dict[int, int] = field(default_factory=dict)
    failed: int = 0


@dataclass(slots=True)
class Asker:
    """One connection's requests, one after the other."""

    host: str
    port: int
    path: str
    tally: Tally
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self, until: float) -> None:
        """Ask until then (time.perf_counter)."""
        while (began := time.perf_counter()) < until:
            try:
                code = await asyncio.wait_for(self._ask(), _PATIENCE_S)
            except (TimeoutError, OSError, asyncio.IncompleteReadError, ValueError):
                self.tally.failed += 1
                self._close()
                continue
            self.tally.took_s.append(time.perf_counter() - began)
            self.tally.codes[code] = self.tally.codes.get(code, 0) + 1
        self._close()

    async def _ask(self) -> int:
        if self.streams is None:
            self.streams = await asyncio.open_connection(self.host, self.port)
        reader, writer = self.streams
        writer.write(f"GET {self.path} HTTP/1.1\r\nHost: {self.host}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, _, rest = head.partition("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in map(_colon, rest.splitlines())}
        length = headers.get("content-length")
        await (reader.read() if length is None else reader.readexactly(int(length)))
        keeps = status.startswith("HTTP/1.1") and headers.get("connection", "").lower() != "close"
        if not keeps or length is None:
            self._close()
        return int(status.split()[1])

    def _close(self) -> None:
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None


def _colon(line: str) -> tuple[str, str, str]:
    return line.partition(":")


async def load(url: str, seconds: float, pool: int, idle: int) -> dict[str, float | dict[int, int]]:
    """What came of it. Raises OSError when the idle connections cannot be opened."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    idlers = [await asyncio.open_connection(host, port) for _ in range(idle)]
    tally = Tally()
    began = time.perf_counter()
    askers = [Asker(host, port, parts.path, tally) for _ in range(pool)]
    await asyncio.gather(*(asker.run(began + seconds) for asker in askers))
    spent_s = time.perf_counter() - began
    for _, writer in idlers:
        writer.close()
    took_s = sorted(tally.took_s)
    latencies = {f"p{share:g}_ms": took_s[int(len(took_s) * share / 100)] * 1000 for share in (50, 99) if took_s}
    return {
        "requests_per_s": len(took_s) / spent_s,
        **latencies,
        **({"max_ms": took_s[-1] * 1000} if took_s else {}),
        "failed": tally.failed,
        "codes": tally.codes,
    }


def main(arguments: list[str]) -> int:
    """Ask, and print what came of it."""
    url, seconds, pool, idle = arguments
    print(json.dumps(asyncio.run(load(url, float(seconds), int(pool), int(idle)))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
