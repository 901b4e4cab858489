"""Real PgBouncer and HAProxy, and clients that come through them."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import psycopg

from hamgr.postgres.config import ServerConfig
from hamgr.routing.haproxy import Balancer
from hamgr.routing.pgbouncer import Pool
from hamgr.routing.release import OwnServer
from tests.postgres.pglab import free_port

DEADLINE_S = 30.0
ADMIN, ADMIN_PASSWORD = "pgbouncer", "s3cret:ad'min"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing_programs() -> list[str]:
    """Debian's packages that these tests lack."""
    return [name for name in ("pgbouncer", "haproxy") if shutil.which(name, path=PATH) is None]


async def wait_until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """`condition` has become true; fails the test if it does not in time."""
    deadline = time.monotonic() + DEADLINE_S
    while not await condition():
        assert time.monotonic() < deadline, f"never saw: {what}"
        await asyncio.sleep(0.01)


class Program:
    """One program of the lab, ended by its pid."""

    def __init__(self, argv: list[str], log: Path) -> None:
        with log.open("ab") as output:
            self._child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def freeze(self) -> None:
        self._child.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._child.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self._child.kill()
        self._child.wait()


class Pgbouncer:
    """One PgBouncer. `target` is the file that its own includes, written by the test as an operator would at first."""

    def __init__(self, directory: Path, server: ServerConfig, pool_mode: str = "transaction") -> None:
        directory.mkdir()
        self._server = server
        self._pool_mode = pool_mode
        self._directory = directory
        self.target = directory / "target.ini"
        self.log = directory / "log"
        self.pool = Pool("127.0.0.1", free_port(), ADMIN, ADMIN_PASSWORD, target_file=self.target)
        self.own = OwnServer(server.connect_host, server.port, login_of(server))
        self.program: Program | None = None

    async def start(self, **settings: object) -> None:
        """It answers. `settings` as in its file."""
        if not self.target.exists():
            self.point_by_hand(self._server.connect_host, self._server.port)
        users = self._directory / "users"
        users.write_text(f'"{ADMIN}" "{ADMIN_PASSWORD}"\n"postgres" "{self._server.superuser.password}"\n')
        given = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.pool.port,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": users,
            "admin_users": ADMIN,
            "pool_mode": self._pool_mode,
            "server_login_retry": 1,
            "logfile": self.log,
            **settings,
        }
        lines = [f"{key} = {value}\n" for key, value in given.items()]
        ini = self._directory / "pgbouncer.ini"
        ini.write_text("".join(["[pgbouncer]\n", *lines, f"%include {self.target}\n"]))
        program = shutil.which("pgbouncer", path=PATH)
        assert program is not None
        self.program = Program([program, "-q", str(ini)], self._directory / "output")
        await wait_until(self._answers, "PgBouncer answers")

    def stop(self) -> None:
        if self.program is not None:
            self.program.thaw()
            self.program.stop()

    def point_by_hand(self, host: str, port: int) -> None:
        self.target.write_text(f"[databases]\n* = host={host} port={port}\n")

    async def _answers(self) -> bool:
        try:
            async with await self.console():
                return True
        except psycopg.OperationalError:
            return False

    async def console(self) -> psycopg.AsyncConnection:
        """An operator on the admin console."""
        return await psycopg.AsyncConnection.connect(
            host="127.0.0.1",
            port=self.pool.port,
            user=ADMIN,
            password=ADMIN_PASSWORD,
            dbname="pgbouncer",
            autocommit=True,
            cursor_factory=psycopg.AsyncClientCursor,
        )

    async def admin(self, command: str) -> list[tuple[object, ...]]:
        async with await self.console() as console:
            cursor = await console.execute(command)
            return await cursor.fetchall() if cursor.description else []

    async def client(self, database: str = "postgres") -> psycopg.AsyncConnection:
        """A client that comes through the pool."""
        return await psycopg.AsyncConnection.connect(
            host="127.0.0.1",
            port=self.pool.port,
            user="postgres",
            password=self._server.superuser.password,
            dbname=database,
            autocommit=True,
            prepare_threshold=None,
        )

    async def is_pausing(self) -> bool:
        """It has been told to pause; by its log, for no command of its console tells."""
        return "PAUSE command issued" in self.log.read_text()

    def with_pool(self, **changes: object) -> Pool:
        return replace(self.pool, **changes)  # type: ignore[arg-type]


def login_of(server: ServerConfig) -> dict[str, str]:
    return {"user": server.superuser.username, "password": server.superuser.password, "dbname": "postgres"}


async def port_of(client: psycopg.AsyncConnection) -> int:
    """Of the server that answers this client."""
    cursor = await client.execute("SELECT current_setting('port')::int")
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


class Member:
    """Stands for a server and its agent: says its name to whoever connects, and answers health checks with `code`."""

    def __init__(self, name: str, code: int) -> None:
        self.name = name
        self.code = code
        self.port = free_port()
        self.rest_port = free_port()
        self.checks = 0
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        self._servers = [
            await asyncio.start_server(self._serve, "127.0.0.1", self.port),
            await asyncio.start_server(self._check, "127.0.0.1", self.rest_port),
        ]

    async def stop(self) -> None:
        for server in self._servers:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{self.name}\n".encode())
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await reader.read()
        writer.close()

    async def _check(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.checks += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"HTTP/1.0 {self.code} X\r\n\r\n".encode())
            await writer.drain()
        writer.close()


class Haproxy:
    """One HAProxy with a backend `primary` for two members."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self.members = [Member("db1", 200), Member("db2", 503)]
        self.port = free_port()
        self.runtime_port = free_port()
        self.inter = "100ms"
        self.balancer = Balancer("primary", path=str(directory / "admin.sock"))
        self.program: Program | None = None

    async def start(self) -> None:
        for member in self.members:
            await member.start()
        await self.run()

    async def run(self) -> None:
        """It runs (again)."""
        servers = [
            f"    server {member.name} 127.0.0.1:{member.port} check port {member.rest_port}\n"
            for member in self.members
        ]
        cfg = self._directory / "haproxy.cfg"
        cfg.write_text(
            "global\n"
            f"    stats socket {self.balancer.path} level admin mode 600\n"
            f"    stats socket ipv4@127.0.0.1:{self.runtime_port} level user\n"
            "defaults\n    mode tcp\n    timeout connect 1s\n    timeout client 30s\n    timeout server 30s\n"
            f"    default-server inter {self.inter} fall 2 rise 1 on-marked-down shutdown-sessions\n"
            f"listen primary\n    bind 127.0.0.1:{self.port}\n"
            "    option httpchk OPTIONS /primary\n    http-check expect status 200\n" + "".join(servers)
        )
        program = shutil.which("haproxy", path=PATH)
        assert program is not None
        self.program = Program([program, "-db", "-f", str(cfg)], self._directory / "log")
        await wait_until(self.has_found_out, "HAProxy knows who is well")

    async def has_found_out(self) -> bool:
        """Its checks have told it who is well. At its start it takes all servers for that."""
        try:
            reader, writer = await asyncio.open_unix_connection(self.balancer.path)
        except OSError:
            return False
        writer.write(b"show servers state primary\n")
        lines = (await reader.read()).decode().splitlines()
        writer.close()
        states = {line.split()[3]: line.split()[5] for line in lines if line.startswith("2 primary")}
        return states == {member.name: "2" if member.code == 200 else "0" for member in self.members}

    async def stop(self) -> None:
        if self.program is not None:
            self.program.thaw()
            self.program.stop()
        for member in self.members:
            await member.stop()

    async def connect(self) -> tuple[str, asyncio.StreamReader]:
        """A session through it: the name of whoever answers, empty for nobody, and what comes after."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._kept = writer
        try:
            name = await reader.readline()
        except OSError:
            name = b""
        return name.decode().strip(), reader

    async def sends_to(self, name: str) -> bool:
        try:
            found, _ = await self.connect()
        except OSError:
            return False
        return found == name

    async def has_checked(self) -> None:
        """Each member has been asked twice from now on."""
        before = [member.checks for member in self.members]

        async def seen() -> bool:
            return all(member.checks >= known + 2 for member, known in zip(self.members, before, strict=True))

        await wait_until(seen, "two more health checks of each member")
