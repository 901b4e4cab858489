"""Asking the other members for their promises: over real connections, to members of every kind."""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from authority import Authority

from hamgr.agent import peers as module
from hamgr.agent import translate
from hamgr.agent.clock import now
from hamgr.agent.executor import execute
from hamgr.agent.peers import LastKnown, NoPromise, PeerAccess, Peers
from hamgr.api.access import tls_context
from hamgr.api.config import ApiBroken, ApiConfig
from hamgr.api.unsafe import MEMBER_HEADER, member_mark
from hamgr.core.actions import AskPeers
from hamgr.core.outcomes import PeersAnswered
from hamgr.core.policy import margin_of
from hamgr.core.result import Result
from hamgr.core.units import Instant, after
from hamgr.settings import load
from tests.agent.workbench import TERM, Bench, until

SCOPE = "main"
BODY = {"name": "a", "term": TERM}
BUDGET_S = 10.0
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000

Answering = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass
class Member:
    """A REST server that answers with what its fields say, and notes what it was asked over how many connections."""

    name: str
    url: str = ""
    code: int = 200
    text: str = "Accepted"
    bodies: list[Any] = field(default_factory=list)
    headers: list[Any] = field(default_factory=list)
    connections: set[object] = field(default_factory=set)
    """Themselves, since the id of one that has ended may be that of the next."""
    greetings: int = 0
    falls_silent: bool = False
    hangs_up: bool = False

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.connections.add(request.protocol)
        if request.method == "GET":
            self.greetings += 1
            return web.Response()
        if self.hangs_up and request.transport is not None:
            self.hangs_up = False
            request.transport.abort()
        if self.falls_silent:
            await asyncio.Event().wait()
        self.bodies.append((request.path, await request.json()))
        self.headers.append(request.headers)
        mark = {MEMBER_HEADER: member_mark(SCOPE, self.name)}
        return web.Response(status=self.code, text=self.text, headers=mark)


Found = Callable[[str], Awaitable[Member]]


@pytest.fixture
async def found() -> AsyncIterator[Found]:
    """Members that listen; all are closed in the end."""
    async with AsyncExitStack() as stack:

        async def started(name: str) -> Member:
            member = Member(name)
            server = web.Server(member.answer)
            listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
            stack.push_async_callback(server.shutdown, 0.05)
            stack.callback(listener.close)
            member.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/patroni"
            return member

        yield started


@pytest.fixture
async def peers() -> AsyncIterator[Peers]:
    made = Peers(PeerAccess("admin", "s3cret"), SCOPE)
    yield made
    await made.close()


def address(*members: Member) -> list[tuple[str, str]]:
    return [(member.name, member.url) for member in members]


async def closed_port() -> str:
    """An address where nobody listens."""
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return f"http://127.0.0.1:{port}/patroni"


# -- answers ---------------------------------------------------------------------------------------------------


async def test_all_promise_and_are_asked_with_the_password(peers: Peers, found: Found) -> None:
    b, c = await found("b"), await found("c")
    assert await peers.ask(address(b, c), BODY, BUDGET_S) == {}
    assert b.bodies == c.bodies == [("/failsafe", BODY)]
    assert b.headers[0]["Authorization"].startswith("Basic ")


async def test_who_refuses_is_named_with_its_words_whatever_the_others_say(peers: Peers, found: Found) -> None:
    b, c = await found("b"), await found("c")
    c.code, c.text = 500, "Running as a leader"
    assert await peers.ask(address(b, c), BODY, BUDGET_S) == {"c": NoPromise("500 Running as a leader")}


@pytest.mark.parametrize(("code", "text"), [(502, "Accepted"), (200, ""), (200, "well"), (302, "Accepted"), (204, "")])
async def test_anything_but_an_acceptance_is_no_promise(peers: Peers, found: Found, code: int, text: str) -> None:
    b = await found("b")
    b.code, b.text = code, text
    assert list(await peers.ask(address(b), BODY, BUDGET_S)) == ["b"]


async def test_a_promise_of_another_member_behind_the_address_does_not_count(peers: Peers, found: Found) -> None:
    """Two members that announce the same address would be one promise, and one rival more."""
    b = await found("b")
    missing = await peers.ask([("b", b.url), ("c", b.url)], BODY, BUDGET_S)
    assert list(missing) == ["c"]
    assert "main/b" in missing["c"].why


async def test_the_same_name_in_another_cluster_is_another_member(found: Found) -> None:
    b = await found("b")
    elsewhere = Peers(PeerAccess(), "other")
    assert list(await elsewhere.ask(address(b), BODY, BUDGET_S)) == ["b"]
    await elsewhere.close()


async def test_a_silent_member_costs_no_more_than_the_budget_and_the_others_are_heard(
    peers: Peers, found: Found
) -> None:
    b, c = await found("b"), await found("c")
    c.falls_silent = True
    began_at = now()
    assert await peers.ask(address(b, c), BODY, 0.3) == {"c": NoPromise("no answer within 0.3 s")}
    assert now() - began_at < BUDGET_S
    assert len(b.bodies) == 1


@pytest.mark.parametrize("none", ["", "c.host", "http://[::1", "http://:8008"])
async def test_a_closed_port_and_an_address_that_is_none_are_no_error_of_this_host(peers: Peers, none: str) -> None:
    missing = await peers.ask([("b", await closed_port()), ("c", none)], BODY, BUDGET_S)
    assert [missing["b"].is_local, missing["c"].is_local] == [False, False]
    assert "REST address" in missing["c"].why


@pytest.mark.parametrize("host", ["db1..example.com", "x" * 64])
async def test_a_name_that_no_host_can_have_promises_nothing(peers: Peers, host: str) -> None:
    """It passes for a host's; only the look-up, in this agent, finds out."""
    missing = await peers.ask([("b", f"http://{host}:8008/patroni")], BODY, BUDGET_S)
    assert not missing["b"].is_local
    assert "label" in missing["b"].why


def test_without_any_network_every_failure_is_of_this_host() -> None:
    """In a network namespace of its own, whose only interface is down."""
    missing: dict[str, NoPromise] = {}
    barred: list[int] = []

    async def ask() -> None:
        peers = Peers(PeerAccess(), SCOPE)
        targets = [("b", "http://10.0.0.2:8008/patroni"), ("c", "http://127.0.0.1:8008/patroni")]
        missing.update(await peers.ask(targets, BODY, BUDGET_S))
        await peers.close()

    def cut_off() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET if os.geteuid() == 0 else CLONE_NEWUSER | CLONE_NEWNET):
            barred.append(ctypes.get_errno())
            return
        asyncio.run(ask())

    thread = threading.Thread(target=cut_off)
    thread.start()
    thread.join()
    if barred:
        pytest.skip(f"no network namespace can be made here: {os.strerror(barred[0])}")
    assert {name: one.is_local for name, one in missing.items()} == {"b": True, "c": True}


# -- connections -----------------------------------------------------------------------------------------------


async def test_a_warm_connection_carries_every_ask(peers: Peers, found: Found) -> None:
    b = await found("b")
    peers.keep_warm(frozenset({b.url}), now())
    await until(lambda: b.greetings == 1 and peers._warming is not None and peers._warming.done(), "it is warm")
    for _ in range(3):
        assert await peers.ask(address(b), BODY, BUDGET_S) == {}
    assert len(b.connections) == 1


async def test_it_is_kept_warm_at_intervals_and_for_every_new_member(peers: Peers, found: Found) -> None:
    b, c = await found("b"), await found("c")
    at = now()

    async def greeted(urls: set[str], at_s: float) -> tuple[int, int]:
        peers.keep_warm(frozenset(urls), after(at, at_s))
        await until(lambda: peers._warming is None or peers._warming.done(), "the greeting is over")
        return b.greetings, c.greetings

    assert await greeted({b.url}, 0) == (1, 0)
    assert await greeted({b.url}, module.WARM_EVERY_S / 2) == (1, 0)
    assert await greeted({b.url, c.url}, module.WARM_EVERY_S / 2) == (2, 1)
    assert await greeted({b.url, c.url}, module.WARM_EVERY_S * 1.5) == (3, 2)


async def test_a_member_that_was_restarted_since_is_asked_on_a_new_connection(peers: Peers, found: Found) -> None:
    b = await found("b")
    assert await peers.ask(address(b), BODY, BUDGET_S) == {}
    b.hangs_up = True
    assert await peers.ask(address(b), BODY, BUDGET_S) == {}
    assert len(b.connections) == 2


async def test_other_credentials_are_used_from_the_next_ask_on(peers: Peers, found: Found) -> None:
    b = await found("b")
    await peers.ask(address(b), BODY, BUDGET_S)
    await peers.use(PeerAccess())
    await peers.ask(address(b), BODY, BUDGET_S)
    assert ["Authorization" in headers for headers in b.headers] == [True, False]
    assert "s3cret" not in repr(PeerAccess("admin", "s3cret"))


async def test_a_name_is_known_on_when_the_name_service_fails_or_falls_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_UP_S", 0.01)
    known = LastKnown()
    first = await known.resolve("localhost", 8008)

    async def fails(*_given: Any) -> Any:
        raise OSError("no name service")

    async def is_silent(*_given: Any) -> Any:
        await asyncio.Event().wait()

    for service in (fails, is_silent):
        monkeypatch.setattr(known._service, "resolve", service)
        assert await known.resolve("localhost", 8008) == first
    await known.close()
    other = LastKnown()
    monkeypatch.setattr(other._service, "resolve", fails)
    with pytest.raises(OSError, match="no name service"):
        await other.resolve("localhost", 8008)


# -- the action ------------------------------------------------------------------------------------------------


ASK = AskPeers(TERM, (("b", "http://b"), ("c", "http://c")), 5.0)


def answering(bench: Bench, *rounds: dict[str, NoPromise]) -> list[tuple[Any, Any, float, Instant]]:
    """What the peers are asked, round by round: (peers, body, budget, when). They answer with these."""
    asked: list[tuple[Any, Any, float, Instant]] = []

    def ask(peers: Any, body: Any, budget_s: float) -> dict[str, NoPromise]:
        asked.append((peers, body, budget_s, now()))
        return rounds[len(asked) - 1]

    bench.peers.answers["ask"] = ask
    return asked


async def test_with_all_promises_the_deadline_counts_from_before_the_first_was_asked_in_earnest(bench: Bench) -> None:
    asked = answering(bench, {}, {})
    outcome = await execute(bench.world, ASK)
    (first_peers, first, budget_s, first_at), (peers, second, _, second_at) = asked
    assert outcome.result is Result.DONE
    assert outcome.value == PeersAnswered(outcome.value.sent_at)
    assert first_at < outcome.value.sent_at < second_at
    assert bench.link.extended_to == [(after(outcome.value.sent_at, 5.0 - margin_of(5.0)), TERM)]
    assert first_peers == peers == ASK.peers
    assert budget_s <= ASK.ttl_s / 5
    assert [(body["name"], body["term"], body["ttl"]) for body in (first, second)] == [("a", TERM, 0), ("a", TERM, 5)]


async def test_nobody_is_bound_unless_all_would_be(bench: Bench) -> None:
    asked = answering(bench, {"c": NoPromise("500 no")})
    await execute(bench.world, ASK)
    assert [body["ttl"] for _, body, _, _ in asked] == [0]


@pytest.mark.parametrize("rounds", [0, 1], ids=["before", "when bound"])
@pytest.mark.parametrize(
    ("missing", "is_alone"),
    [
        ({"c": NoPromise("500 no")}, False),
        ({"c": NoPromise("no route", is_local=True)}, False),
        ({"b": NoPromise("no route", is_local=True), "c": NoPromise("no answer")}, False),
        ({"b": NoPromise("no route", is_local=True), "c": NoPromise("no route", is_local=True)}, True),
    ],
    ids=["one refuses", "one is not reached", "only one of both is local", "none leaves this host"],
)
async def test_a_single_missing_promise_leaves_the_deadline_where_it_is(
    bench: Bench, missing: dict[str, NoPromise], is_alone: bool, rounds: int
) -> None:
    answering(bench, *([{}] * rounds), missing)
    outcome = await execute(bench.world, ASK)
    assert (outcome.result, outcome.code) == (Result.FAILED, "peers")
    assert all(name in outcome.text and one.why in outcome.text for name, one in missing.items())
    assert outcome.value.refused == {name: one.why for name, one in missing.items()}
    assert outcome.value.is_alone is is_alone
    assert bench.link.extended_to == []


async def test_without_peers_the_leader_leads_on_by_itself(bench: Bench) -> None:
    answering(bench, {}, {})
    outcome = await execute(bench.world, AskPeers(TERM, (), 5.0))
    assert (outcome.result, outcome.value.is_alone) == (Result.DONE, False)


# -- TLS -------------------------------------------------------------------------------------------------------

FILE = """
scope: main
name: a
restapi: {{listen: "127.0.0.1:8008", certfile: {cert}, keyfile: {key}, cafile: {ca}, verify_client: required,
  authentication: {{username: admin, password: s3cret}}}}
etcd3: {{hosts: ["127.0.0.1:1"]}}
{more}
postgresql:
  listen: "127.0.0.1:5432"
  data_dir: {directory}/data
  authentication:
    superuser: {{username: postgres, password: s}}
    replication: {{username: replicator, password: r}}
"""


def access_of(directory: Path, authority: Authority, **more: str) -> PeerAccess:
    """As the member's file says, with a certificate of that authority."""
    cert, key = authority.issue("a")
    given = {"cert": cert, "key": key, "ca": authority.certificate, "more": "", "directory": directory, **more}
    path = directory / "hamgr.yml"
    path.write_text(FILE.format(**given))
    return translate.peer_access(load(path, {}).settings)


async def asked_over_tls(access: PeerAccess, authority: Authority) -> tuple[dict[str, NoPromise], Member]:
    """What an ask to a member ends in that wants a client certificate of the authority."""
    member = Member("b")
    cert, key = authority.issue("b")
    config = ApiConfig(certfile=cert, keyfile=key, cafile=authority.certificate, verify_client="required")
    server = web.Server(member.answer)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(server, "127.0.0.1", 0, ssl=tls_context(config))
    peers = Peers(access, SCOPE)
    try:
        url = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}/patroni"
        return await peers.ask([("b", url)], BODY, BUDGET_S), member
    finally:
        await peers.close()
        listener.close()
        await server.shutdown(0.05)


async def test_members_show_each_other_the_certificates_of_their_rest(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    missing, member = await asked_over_tls(access_of(tmp_path, authority), authority)
    assert missing == {}
    assert member.headers[0]["Authorization"] == PeerAccess("admin", "s3cret").authorization


async def test_a_member_whose_certificate_is_of_another_authority_is_not_believed(tmp_path: Path) -> None:
    mine, other = Authority(tmp_path / "ca"), Authority(tmp_path / "other")
    missing, member = await asked_over_tls(access_of(tmp_path, mine), other)
    assert (list(missing), missing["b"].is_local, member.bodies) == (["b"], False, [])


async def test_the_command_lines_settings_come_first(tmp_path: Path) -> None:
    mine, other = Authority(tmp_path / "ca"), Authority(tmp_path / "other")
    cert, key = other.issue("ctl")
    ctl = f"ctl: {{cacert: {other.certificate}, certfile: {cert}, keyfile: {key}}}"
    missing, _ = await asked_over_tls(access_of(tmp_path, mine, more=ctl), other)
    assert missing == {}


def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    (tmp_path / "bad.pem").write_text("no certificate")
    with pytest.raises(ApiBroken, match=r"bad\.pem"):
        access_of(tmp_path, authority, ca=str(tmp_path / "bad.pem"))
