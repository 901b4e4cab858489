"""What a server answers to whoever only says who he is: its code, which libpq keeps to itself for a failed connection.

The text of an error is in the server's language; its code (SQLSTATE) is not.
"""

from __future__ import annotations

import asyncio
import struct

from hamgr.postgres.config import ServerConfig

PROTOCOL = 196608
"""3.0. Source: PostgreSQL's manual, frontend/backend protocol, message formats."""
SOCKET_NAME = ".s.PGSQL.{port}"
CANNOT_CONNECT_NOW = "57P03"
MESSAGE_MAX = 64 * 1024


async def knock(config: ServerConfig, database: str) -> str:
    """SQLSTATE of the server's refusal; empty if it goes on to authentication, '?' if it names no code.

    Raises OSError (or EOFError, which is a server that ended or hung up) if there is no answer.
    """
    reader, writer = await _open(config)
    try:
        fields = f"user\0{config.superuser.username}\0database\0{database}\0\0".encode()
        writer.write(struct.pack("!ii", len(fields) + 8, PROTOCOL) + fields)
        await writer.drain()
        kind = await reader.readexactly(1)
        if kind != b"E":
            return ""
        (length,) = struct.unpack("!i", await reader.readexactly(4))
        if not 4 <= length <= MESSAGE_MAX:
            # A postmaster that cannot fork answers by a bare line of text.
            return "?"
        return code_of(await reader.readexactly(length - 4))
    finally:
        writer.close()


async def lets_nobody_in(config: ServerConfig, database: str, timeout_s: float) -> bool:
    """The server says that it starts, recovers from the crash of a backend, or shuts down; False without an answer."""
    try:
        async with asyncio.timeout(timeout_s):
            return await knock(config, database) == CANNOT_CONNECT_NOW
    except (OSError, EOFError):
        return False


async def _open(config: ServerConfig) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host = config.local_host
    if host.startswith("/"):
        return await asyncio.open_unix_connection(f"{host}/{SOCKET_NAME.format(port=config.port)}")
    return await asyncio.open_connection(host, config.port)


def code_of(body: bytes) -> str:
    """The field C of an ErrorResponse's body; '?' if it has none."""
    fields = {field[:1]: field[1:] for field in body.split(b"\0") if field}
    return fields.get(b"C", b"?").decode("ascii", "replace")
