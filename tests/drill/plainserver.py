"""A plain PostgreSQL without hamgr, on a drill host: what client and verdict are tried on."""

from __future__ import annotations

import time
from pathlib import Path

import psycopg

from hamgr.drill.client import conninfo
from hamgr.drill.hosts import Host, Process
from hamgr.drill.network import free_port
from hamgr.drill.programs import postgres_bin_dir


class PlainServer:
    """One PostgreSQL server on a host, started and restarted by the test."""

    def __init__(self, host: Host, room: Path) -> None:
        self.host = host
        self.data_dir = host.directory / "data"
        self.port = free_port("127.0.0.1", set())
        self.dsn = conninfo(host.address, self.port)
        self.log = room / f"{host.name}.log"
        self.process: Process | None = None
        programs = postgres_bin_dir()
        self.postgres = str(programs / "postgres")
        host.run([str(programs / "initdb"), "-D", str(self.data_dir), "-U", "postgres", "-A", "trust", "-N"])

    def start(self) -> None:
        (self.data_dir / "postmaster.pid").unlink(missing_ok=True)
        settings = [f"port={self.port}", f"unix_socket_directories={self.host.directory}", "fsync=off"]
        options = [word for setting in settings for word in ("-c", setting)]
        self.process = self.host.spawn([self.postgres, "-D", str(self.data_dir), *options], self.log)
        deadline = time.monotonic() + 20
        while not self.answers():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def answers(self) -> bool:
        try:
            psycopg.connect(self.dsn).close()
        except psycopg.Error:
            return False
        return True
