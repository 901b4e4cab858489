# ruff: noqa: ASYNC220, ASYNC221 -- a test has the loop to itself
"""Real servers for the tests of hamgr.postgres, run as an unprivileged user where the tests run as root."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from hamgr.core.actions import Upstream
from hamgr.core.server import ServerIdentity
from hamgr.postgres import process
from hamgr.postgres.config import Credentials, ServerConfig
from hamgr.postgres.errors import ServerBroken
from hamgr.postgres.server import LocalServer, open_server

DEADLINE_S = 30.0


def unprivileged_user() -> pwd.struct_passwd:
    """Whom servers may run as: PostgreSQL refuses root."""
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("no unprivileged user")


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """This process (and what it starts) has the rights of an unprivileged user; root's come back afterwards."""
    if os.getuid() != 0:
        yield
        return
    user = unprivileged_user()
    groups = os.getgroups()
    os.setgroups([])
    os.setresgid(user.pw_gid, user.pw_gid, 0)
    os.setresuid(user.pw_uid, user.pw_uid, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        os.setgroups(groups)


@contextlib.contextmanager
def as_root() -> Iterator[None]:
    """Root's rights for a moment, inside of `unprivileged`; skips the test where the tests do not run as root."""
    try:
        os.seteuid(0)
    except PermissionError:
        pytest.skip("needs root")
    user = unprivileged_user()
    try:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        yield
    finally:
        os.setresgid(user.pw_gid, user.pw_gid, 0)
        os.setresuid(user.pw_uid, user.pw_uid, 0)


async def wait_until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """`condition` has become true; fails the test if it does not in time."""
    deadline = time.monotonic() + DEADLINE_S
    while not await condition():
        assert time.monotonic() < deadline, f"never saw: {what}"
        await asyncio.sleep(0.01)


class FakeGuard:
    """Starts servers in their own session and kills their trees, as the guard does."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._running: list[subprocess.Popen[bytes]] = []

    async def spawn(self, argv: Sequence[str]) -> ServerIdentity:
        try:
            with self._log.open("ab") as log:
                child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        except OSError as error:
            raise ServerBroken(str(error)) from error
        self._running.append(child)
        ticks = process.start_ticks(child.pid)
        return ServerIdentity(child.pid, ticks or 0)

    async def kill_tree(self) -> int:
        killed = 0
        for child in self._running:
            for pid in [child.pid, *children(child.pid)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
            child.wait()
        self._running.clear()
        return killed

    def reap(self) -> None:
        for child in self._running:
            child.poll()


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


@contextlib.contextmanager
def pid_reused(server: LocalServer) -> Iterator[None]:
    """The dead server's pid, as its files have it, is that of another process of the same user."""
    with subprocess.Popen(["sleep", "1000"]) as other:
        try:
            for file in (server.config.data_dir / "postmaster.pid", *server.config.sockets.glob(".s.PGSQL.*.lock")):
                _, newline, rest = file.read_text().partition("\n")
                file.write_text(f"{other.pid}{newline}{rest}")
            yield
        finally:
            other.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Lab:
    """A place for some servers of one cluster."""

    root: Path
    servers: list[LocalServer] = field(default_factory=list)
    guards: list[FakeGuard] = field(default_factory=list)

    def config(self, name: str) -> ServerConfig:
        return ServerConfig(
            name=name,
            scope="lab",
            data_dir=self.root / name,
            superuser=Credentials("postgres", "s3cret:su'per"),
            replication=Credentials("replicator", "s3cret\\repl"),
            rewind=Credentials("rewinder", "s3cret rewind"),
            port=free_port(),
            socket_dir=self.root,
            parameters={"shared_buffers": "16MB", "max_connections": 20, "fsync": "on"},
            initdb_options=("--encoding=UTF8", "--data-checksums", "--no-sync"),
            basebackup_options=("--no-sync",),
        )

    async def server(self, name: str, **changes: object) -> LocalServer:
        guard = FakeGuard(self.root / f"{name}.log")
        server = await open_server(replace(self.config(name), **changes), guard)  # type: ignore[arg-type]
        self.servers.append(server)
        self.guards.append(guard)
        return server

    async def again(self, server: LocalServer) -> LocalServer:
        """Another agent for the same server, as after a restart of the agent."""
        guard = self.guards[self.servers.index(server)]
        fresh = await open_server(server.config, guard)
        self.servers.append(fresh)
        self.guards.append(guard)
        return fresh

    def guard_of(self, server: LocalServer) -> FakeGuard:
        return self.guards[self.servers.index(server)]

    async def primary(self, name: str = "one", **changes: object) -> LocalServer:
        """A running primary with its roles, from a template that is made once per session."""
        server = await self.server(name, **changes)
        subprocess.run(["cp", "-a", str(template()), str(server.config.data_dir)], check=True)
        await server.start_primary()
        return server

    async def standby(self, upstream: LocalServer, name: str = "two", **changes: object) -> LocalServer:
        server = await self.server(name, **changes)
        await upstream.ensure_slots([name])
        await server.clone(at(upstream))
        await server.start_standby(at(upstream))
        await wait_until(lambda: streams(server), f"{name} streams")
        return server

    async def close(self) -> None:
        for server, guard in zip(self.servers, self.guards, strict=True):
            await server.close()
            await guard.kill_tree()


TEMPLATE: list[Path] = []


def template() -> Path:
    """A stopped cluster with roles; made by hand, removed at the end of the session."""
    return TEMPLATE[0]


def at(server: LocalServer) -> Upstream:
    return Upstream(server.config.name, server.config.connect_host, server.config.port)


async def streams(server: LocalServer) -> bool:
    return (await server.probe()).streaming


async def has_all_of(replica: LocalServer, primary: LocalServer) -> bool:
    written = (await primary.probe()).written_lsn
    return (await replica.probe()).received_lsn >= written


async def make_template(root: Path) -> None:
    lab = Lab(root)
    server = await lab.server("template")
    try:
        await server.initdb()
        await server.start_primary()
        await server.create_roles()
        await server.query("CREATE TABLE public.t (n bigint)")
        await server.stop(10.0)
    finally:
        await lab.close()
