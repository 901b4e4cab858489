"""A scope in etcd with keys written by hand, and small REST servers in place of its agents."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner, Result

from hamgr.__main__ import cli

PASSWORD = "s3cret-of-rest"
SYSTEM = "7300000000000000001"
START_DEADLINE_S = 20.0

Answer = tuple[int, Any]
Route = Answer | Callable[[Any], Answer]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(slots=True)
class FakeAgent:
    """Answers by `routes`; keeps what it was asked in `calls` as (method, path, body, authorization)."""

    routes: dict[tuple[str, str], Route] = field(default_factory=dict)
    calls: list[tuple[str, str, Any, str]] = field(default_factory=list)
    server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        agent = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                raw = self.rfile.read(length)
                body = json.loads(raw) if raw else None
                path = self.path.partition("?")[0]
                if self.command != "GET":
                    agent.calls.append((self.command, path, body, self.headers.get("Authorization") or ""))
                route = agent.routes.get((self.command, path), (404, "not found"))
                code, content = route(body) if callable(route) else route
                text = content if isinstance(content, str) else json.dumps(content)
                self.send_response(code)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = answer

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    @property
    def api_url(self) -> str:
        assert self.server is not None
        return f"http://127.0.0.1:{self.server.server_address[1]}/patroni"


@dataclass(slots=True)
class World:
    """One scope in etcd, the fake agents of its members, and the command line pointed at both."""

    endpoint: str
    scope: str
    folder: Path
    agents: dict[str, FakeAgent] = field(default_factory=dict)

    @property
    def config_file(self) -> Path:
        return self.folder / "hamgr.yml"

    def write_config(self, **more: Any) -> None:
        values = {
            "scope": self.scope,
            "etcd3": {"hosts": self.endpoint},
            "ctl": {"authentication": {"username": "admin", "password": PASSWORD}},
            **more,
        }
        self.config_file.write_text(yaml.safe_dump(values))

    def etcdctl(self, *arguments: str, stdin: str | None = None) -> str:
        done = subprocess.run(
            ["etcdctl", f"--endpoints={self.endpoint}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "ETCDCTL_API": "3"},
        )
        return done.stdout

    def put(self, key: str, value: Any) -> None:
        text = value if isinstance(value, str) else json.dumps(value)
        self.etcdctl("put", f"/service/{self.scope}/{key}", stdin=text)

    def put_leader(self, name: str, term: int) -> None:
        """Leader and term in one transaction, as every change of leader writes them."""
        prefix = f"/service/{self.scope}"
        self.etcdctl("txn", stdin=f"\nput {prefix}/leader {name}\nput {prefix}/term {term}\n\n\n")

    def get(self, key: str) -> str:
        lines = self.etcdctl("get", "--print-value-only", f"/service/{self.scope}/{key}")
        return lines.removesuffix("\n")

    def delete(self, key: str) -> None:
        self.etcdctl("del", f"/service/{self.scope}/{key}")

    def add_member(self, name: str, port: int, *, with_rest: bool = True, **fields: Any) -> FakeAgent:
        agent = self.agents[name] = FakeAgent()
        api_url = ""
        if with_rest:
            agent.start()
            api_url = agent.api_url
        else:
            api_url = self.dead_url()
        member = {
            "conn_url": f"postgres://127.0.0.1:{port}/postgres",
            "api_url": api_url,
            "state": "running",
            "role": "replica",
            "version": "0.1.0",
            "timeline": 3,
            "xlog_location": 0x5000100,
            "replication_state": "streaming",
        }
        self.put(f"members/{name}", {**member, **fields})
        return agent

    def dead_url(self) -> str:
        """A REST address where nobody listens."""
        return f"http://127.0.0.1:{free_port()}/patroni"

    def run(self, *arguments: str, stdin: str | None = None) -> Result:
        command = ["-c", str(self.config_file), *arguments]
        result = CliRunner().invoke(cli, command, input=stdin, catch_exceptions=False)
        assert PASSWORD not in result.output
        return result

    def stop(self) -> None:
        for agent in self.agents.values():
            agent.stop()


def wait_until_healthy(endpoint: str) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline:
        check = subprocess.run(
            ["etcdctl", f"--endpoints={endpoint}", "endpoint", "health"],
            capture_output=True,
            env={**os.environ, "ETCDCTL_API": "3"},
            check=False,
        )
        if check.returncode == 0:
            return
    raise AssertionError("etcd did not become healthy")


def status(role: str, *, state: str = "running", note: str = "", **xlog: int) -> dict[str, Any]:
    """A body of GET /patroni."""
    body: dict[str, Any] = {
        "state": state,
        "role": role,
        "server_version": 150013,
        "postmaster_start_time": "2026-11-23 20:00:00+00:00",
        "timeline": 3,
        "xlog": xlog,
        "patroni": {"version": "4.1.5", "scope": "demo", "name": "x"},
        "hamgr": {"version": "0.1.1"},
        "note": note,
    }
    if role == "replica":
        body["replication_state"] = "streaming"
    return body


def record(term: int, leader: str, former: str) -> dict[str, Any]:
    """A failover record as hamgr.core.pipeline writes it."""
    marks = [0.0, 0.012, 0.04, 0.046, 0.05, 0.09, 0.094]
    names = ["detect", "fence", "vote", "elect", "promote", "writable"]
    stages: list[dict[str, Any]] = [
        {"name": name, "start_s": start, "end_s": end, "by": leader, "clock": "boottime"}
        for name, start, end in zip(names, marks, marks[1:], strict=False)
    ]
    stages.append({"name": "routed", "start_s": None, "end_s": None, "by": "", "clock": ""})
    return {
        "term": term,
        "cause": "switchover",
        "leader": leader,
        "former": former,
        "at": 1795464000.0,
        "timeline": 4,
        "lsn": "0/5000200",
        "at_risk_bytes": 0,
        "stages": stages,
        "ballots": {leader: "3/0/5000200/1"},
        "budget_s": {"detect": 0.01, "promote": 0.5},
        "over_budget": ["detect"],
    }
