"""A real HAProxy is told who accepts writes, and its own health checks have the last word."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from hamgr.routing.errors import RouteError
from hamgr.routing.haproxy import Balancer, leave, push
from tests.postgres.pglab import free_port
from tests.routing.frontlab import Haproxy, wait_until


async def test_new_clients_go_to_the_one_that_was_pushed_and_old_sessions_end(haproxy: Haproxy) -> None:
    haproxy.members[0].code, haproxy.members[1].code = 503, 200
    name, session = await haproxy.connect()
    assert name == "db1"
    await push(haproxy.balancer, "db2", ["db1"])
    assert await haproxy.sends_to("db2")
    async with asyncio.timeout(20.0):
        assert await session.read() == b""


async def test_health_checks_set_right_what_was_pushed_wrongly(haproxy: Haproxy) -> None:
    await push(haproxy.balancer, "db2", ["db1"])
    await wait_until(lambda: haproxy.sends_to("db1"), "db1, which is well, is found again")
    await haproxy.has_checked()
    assert await haproxy.sends_to("db1")


async def test_members_that_it_does_not_know_are_passed_over(haproxy: Haproxy) -> None:
    haproxy.members[0].code, haproxy.members[1].code = 503, 200
    await push(haproxy.balancer, "db2", ["stranger", "db1", "db3; disable server primary/db2"])
    assert await haproxy.sends_to("db2")


@pytest.mark.parametrize(
    ("backend", "me", "words"),
    [
        ("primary", "stranger", "server stranger: No such server"),
        ("nowhere", "db2", "backend nowhere, server db2: No such"),
        ("primary", "a;b", "cannot be the name"),
    ],
)
async def test_what_it_does_not_know_is_named_and_changes_nothing(
    haproxy: Haproxy, backend: str, me: str, words: str
) -> None:
    with pytest.raises(RouteError, match=words):
        await push(replace(haproxy.balancer, backend=backend), me, [])
    assert await haproxy.sends_to("db1")


async def test_a_socket_that_may_not_change_anything_is_named(haproxy: Haproxy) -> None:
    with pytest.raises(RouteError, match="Permission denied"):
        await push(Balancer("primary", host="127.0.0.1", port=haproxy.runtime_port), "db2", ["db1"])
    assert await haproxy.sends_to("db1")


async def test_a_balancer_that_is_gone_or_frozen_costs_a_bounded_time(haproxy: Haproxy) -> None:
    nobody = Balancer("primary", host="127.0.0.1", port=free_port())
    with pytest.raises(RouteError, match=rf"load balancer 127.0.0.1:{nobody.port} was not told"):
        await push(nobody, "db2", ["db1"])
    with pytest.raises(RouteError, match="was not told"):
        await push(replace(haproxy.balancer, path=haproxy.balancer.path + ".gone"), "db2", ["db1"])
    assert haproxy.program is not None
    haproxy.program.freeze()
    async with asyncio.timeout(20.0):
        with pytest.raises(RouteError, match="no answer within"):
            await push(haproxy.balancer, "db2", ["db1"])


async def test_a_balancer_that_was_restarted_finds_the_leader_by_its_checks(haproxy: Haproxy) -> None:
    """It forgets what it was told, and no more than that."""
    await push(haproxy.balancer, "db2", ["db1"])
    assert haproxy.program is not None
    haproxy.program.stop()
    haproxy.members[0].code, haproxy.members[1].code = 200, 503
    await haproxy.run()
    assert await haproxy.sends_to("db1")


async def test_nobody_is_sent_to_a_server_that_leaves(haproxy: Haproxy) -> None:
    haproxy.members[0].code = 503
    await leave(haproxy.balancer, "db1")
    name, _ = await haproxy.connect()
    assert name == ""
