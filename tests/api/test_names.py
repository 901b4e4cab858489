"""Host names that are let in: of the allow-list, and of members. The resolver is one whose answers are set by hand."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
from fake_agent import Serve

from hamgr.api import names as module
from hamgr.api.access import Caller, denial_of, denial_of_member
from hamgr.api.config import ApiConfig
from hamgr.api.names import Names
from hamgr.core.cluster import Member

DEADLINE_S = 15.0
BY_NAME = ApiConfig(port=0, allowed_hosts=("ops.example",))


@dataclass
class Resolver:
    """Knows some names. `failure`: of all look-ups. `answers` is clear while it keeps everybody waiting."""

    known: dict[str, str] = field(default_factory=dict)
    failure: int = 0
    asked: list[str] = field(default_factory=list)
    answers: threading.Event = field(default_factory=threading.Event)

    def getaddrinfo(self, host: str, *_: Any, **__: Any) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        assert self.answers.wait(DEADLINE_S), "the loop stood still"
        if self.failure or host not in self.known:
            raise socket.gaierror(self.failure or socket.EAI_NONAME, "as the test has it")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (self.known[host], 0))]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    made = Resolver({"ops.example": "10.0.0.7"})
    made.answers.set()
    monkeypatch.setattr(socket, "getaddrinfo", made.getaddrinfo)
    # A machine under load is no name service that hangs.
    monkeypatch.setattr(module, "FIRST_ANSWER_S", DEADLINE_S)
    monkeypatch.setattr(module, "NEXT_ANSWER_S", DEADLINE_S)
    return made


@pytest.fixture
def _never_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request looks names up."""
    monkeypatch.setattr(module, "FRESH_S", 0.0)


async def lets_in(names: Names, address: str, config: ApiConfig = BY_NAME, *members: Member) -> bool:
    return await denial_of(config, Caller(address, False, None), members, names) is None


async def wait_until_asked(resolver: Resolver, times: int) -> None:
    until = time.monotonic() + DEADLINE_S
    while len(resolver.asked) < times:
        assert time.monotonic() < until, "nobody looked the name up"
        await asyncio.sleep(0.001)


def lets_member_in(names: Names, address: str) -> bool:
    return denial_of_member(BY_NAME, Caller(address, False, None), names) is None


async def test_a_name_stands_for_its_addresses(resolver: Resolver) -> None:
    names = Names()
    assert await lets_in(names, "10.0.0.7")
    assert await lets_in(names, "::ffff:10.0.0.7")
    assert not await lets_in(names, "10.0.0.8")
    assert resolver.asked == ["ops.example"], "once for all of them"


async def test_members_are_let_in_by_the_names_of_their_urls_too(resolver: Resolver) -> None:
    resolver.known["db2.example"] = "10.0.0.12"
    config = ApiConfig(allowed_hosts=("ops.example",), allowlist_include_members=True)
    member = Member("db2", api_url="http://db2.example:8008/patroni")
    assert await lets_in(Names(), "10.0.0.12", config, member)
    assert await lets_in(Names(), "10.0.0.7", config, member)
    assert not await lets_in(Names(), "10.0.0.8", config, member)


@pytest.mark.usefixtures("_never_fresh")
async def test_a_name_that_moves_opens_its_new_address_and_closes_the_old(resolver: Resolver) -> None:
    names = Names()
    assert await lets_in(names, "10.0.0.7")
    resolver.known["ops.example"] = "10.0.0.9"
    assert not await lets_in(names, "10.0.0.7")
    assert await lets_in(names, "10.0.0.9")
    del resolver.known["ops.example"]
    assert not await lets_in(names, "10.0.0.9")


@pytest.mark.usefixtures("_never_fresh")
async def test_a_name_service_that_fails_leaves_its_last_answer_in_force(resolver: Resolver) -> None:
    names = Names()
    assert await lets_in(names, "10.0.0.7")
    resolver.failure = socket.EAI_AGAIN
    assert await lets_in(names, "10.0.0.7")
    assert not await lets_in(Names(), "10.0.0.7"), "there was none before"


@pytest.mark.usefixtures("_never_fresh")
async def test_a_name_service_that_hangs_holds_up_nothing_but_the_request(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names()
    assert await lets_in(names, "10.0.0.7")
    monkeypatch.setattr(module, "NEXT_ANSWER_S", 0.01)
    resolver.answers.clear()
    assert await lets_in(names, "10.0.0.7")
    assert lets_member_in(names, "10.0.0.7")
    first = asyncio.create_task(lets_in(Names(), "10.0.0.7"))
    await wait_until_asked(resolver, 3)
    resolver.answers.set()
    assert await first


async def test_members_wait_for_no_name_when_they_ask_for_a_promise(resolver: Resolver) -> None:
    names = Names()
    assert not lets_member_in(names, "10.0.0.7")
    assert await lets_in(names, "10.0.0.7")
    assert lets_member_in(names, "10.0.0.7")
    assert not lets_member_in(names, "10.0.0.8")


async def test_names_are_looked_up_before_anybody_asks(serve: Serve, resolver: Resolver) -> None:
    """Once etcd is gone, the name service may be gone, too."""
    resolver.answers.clear()
    await serve(BY_NAME)
    await wait_until_asked(resolver, 1)
    assert resolver.asked == ["ops.example"]
    resolver.answers.set()
