"""Addresses in members' keys that are none: one member's mistake is told, and costs no other."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from cli_world import World, free_port

from hamgr.cli import rest
from hamgr.cli.rest import Reply, RestAccess, Unreachable, ask_all, call, call_in_background
from hamgr.core.cluster import Member

DEADLINE_S = 10.0
NO_ADDRESSES = [
    "http://10..0.0.11:8008/patroni",
    f"http://{'a' * 64}.example:8008/patroni",
    "http://[::bad:8008/patroni",
    "http://10.0.0.11:port/patroni",
    "http://10.0.0.11:99999/patroni",
    "10.0.0.11:8008/patroni",
    "//10.0.0.11:8008/patroni",
    "gopher://10.0.0.11:8008/patroni",
    "http:///patroni",
]


@pytest.mark.parametrize("url", NO_ADDRESSES)
def test_a_call_of_an_address_that_is_none_was_not_sent(url: str) -> None:
    with pytest.raises(Unreachable) as caught:
        call(RestAccess(), Member("m", api_url=url), "GET", "/patroni", timeout_s=1.0)
    assert not caught.value.was_sent
    assert "m" in str(caught.value)
    assert ask_all(RestAccess(), [Member("m", api_url=url)]) == {}


@pytest.mark.parametrize("url", NO_ADDRESSES)
def test_a_call_in_the_background_of_an_address_that_is_none_has_an_end(url: str) -> None:
    answer = call_in_background(RestAccess(), Member("m", api_url=url), "POST", "/restart", timeout_s=1.0)
    with pytest.raises(Unreachable):
        answer.result(DEADLINE_S)


def test_a_login_that_no_header_can_hold_is_not_sent() -> None:
    member = Member("m", api_url=f"http://127.0.0.1:{free_port()}/patroni")
    with pytest.raises(Unreachable) as caught:
        call(RestAccess("\u0416", "secret"), member, "GET", "/patroni", timeout_s=1.0)
    assert not caught.value.was_sent
    assert "secret" not in str(caught.value)


def test_a_defect_in_a_call_in_the_background_reaches_whoever_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Reply:
        raise ZeroDivisionError

    told = threading.Event()
    monkeypatch.setattr(rest, "call", broken)
    monkeypatch.setattr(threading, "excepthook", lambda _: told.set())
    answer = call_in_background(RestAccess(), Member("m"), "POST", "/restart", timeout_s=1.0)
    with pytest.raises(ZeroDivisionError):
        answer.result(DEADLINE_S)
    assert told.wait(DEADLINE_S)


@pytest.mark.parametrize("url", NO_ADDRESSES[:3])
def test_one_members_mistyped_address_does_not_keep_the_others_from_being_shown(world: World, url: str) -> None:
    world.add_member("bad", free_port(), with_rest=False, api_url=url, conn_url=url.replace("http", "postgres"))
    shown = world.run("list")
    assert shown.exit_code == 0
    assert all(name in shown.output for name in ("p1", "p2", "bad"))
    ordered = world.run("restart", "bad", "--force")
    assert ordered.exit_code == 1
    assert "Failed: restart of member bad" in ordered.output


def test_an_address_of_a_server_that_is_none_is_refused(world: World) -> None:
    world.add_member("bad", free_port(), with_rest=False, conn_url="postgres://[::bad:5432/postgres")
    for command in (("dsn", "-m", "bad"), ("query", "-m", "bad", "-c", "select 1")):
        result = world.run(*command)
        assert result.exit_code == 1
        assert "bad announces an address of its server that is none" in result.output
