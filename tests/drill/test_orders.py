"""A drill orders a member by REST: with the login that the member asks for."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hamgr.drill.container_member import ContainerMember
from hamgr.drill.containers import Container
from hamgr.drill.errors import DrillError
from hamgr.drill.fault import Victims
from hamgr.drill.faults import FAULTS

LOGIN = "Basic " + base64.b64encode(b"admin:s3cret").decode()


class Rest(BaseHTTPRequestHandler):
    """Notes orders, and refuses those without the login."""

    orders: list[tuple[str, str, Any]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_let_in = self.headers.get("Authorization") == LOGIN
        if is_let_in:
            self.orders.append((self.command, self.path, body))
        self.send_response(200 if is_let_in else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def rest() -> Iterator[HTTPServer]:
    Rest.orders = []
    server = HTTPServer(("127.0.0.1", 0), Rest)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def member_at(port: int, login: tuple[str, str] | None) -> ContainerMember:
    host = cast(Container, SimpleNamespace(address="127.0.0.1"))
    return ContainerMember(
        name="db1", host=host, rest_port=port, postgres_port=1, password="", rest_login=login, log=Path()
    )


def switch_over(member: ContainerMember) -> None:
    FAULTS["switchover"].arm(Victims(primary=member, replicas=(), cluster=cast(Any, None)))


def test_a_switchover_of_a_drill_shows_the_login(rest: HTTPServer) -> None:
    switch_over(member_at(rest.server_port, ("admin", "s3cret")))
    assert Rest.orders == [("POST", "/switchover", {"leader": "db1"})]


def test_a_switchover_that_is_refused_is_not_taken_for_one(rest: HTTPServer) -> None:
    with pytest.raises(DrillError, match="401"):
        switch_over(member_at(rest.server_port, None))
    with pytest.raises(DrillError, match="POST /switchover to db1"):
        switch_over(member_at(1, None))
