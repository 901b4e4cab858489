"""Who may change things, and TLS."""

from __future__ import annotations

import ssl
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from authority import Authority
from fake_agent import FakeAgent, Serve, view

from hamgr.api.access import Caller, denial_of
from hamgr.api.config import ApiBroken, ApiConfig
from hamgr.api.names import Names
from hamgr.core.cluster import Member

SECRET = ApiConfig(port=0, username="admin", password="s3cret: with colon")
UNSAFE = [
    ("POST", "/switchover"),
    ("DELETE", "/switchover"),
    ("POST", "/failover"),
    ("POST", "/restart"),
    ("POST", "/reinitialize"),
    ("POST", "/reload"),
    ("PATCH", "/config"),
    ("PUT", "/config"),
    ("POST", "/failsafe"),
]


def url(running: Any, path: str, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{running.address[1]}{path}"


async def status(address: str, method: str = "POST", **more: Any) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.request(method, address, **more) as answer:
        return answer.status, await answer.text()


# -- basic authentication --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), UNSAFE)
async def test_every_unsafe_method_wants_the_password(serve: Serve, agent: FakeAgent, method: str, path: str) -> None:
    running = await serve(SECRET)
    async with aiohttp.ClientSession() as session, session.request(method, url(running, path)) as answer:
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == 'Basic realm="hamgr"'
    assert agent.calls == []


@pytest.mark.parametrize(
    "header",
    ["", "Basic", "Basic ", "Basic !!!", "Basic YWRtaW46c2VjcmV0", "Bearer YWRtaW46", "Basic \xff\xfe", "x" * 4000],
)
async def test_wrong_authorization_is_401(serve: Serve, agent: FakeAgent, header: str) -> None:
    running = await serve(SECRET)
    assert (await status(url(running, "/reload"), headers={"Authorization": header}))[0] == 401
    assert agent.calls == []


async def test_right_password_is_let_through(serve: Serve, agent: FakeAgent) -> None:
    running = await serve(SECRET)
    right = aiohttp.BasicAuth(SECRET.username, SECRET.password)
    assert (await status(url(running, "/reload"), auth=right))[0] == 200
    assert agent.calls == [("reload", None)]


async def test_safe_methods_need_no_password(serve: Serve) -> None:
    running = await serve(SECRET)
    for path in ("/primary", "/patroni", "/cluster", "/config", "/metrics"):
        assert (await status(url(running, path), "GET"))[0] == 200


def test_password_is_not_in_the_representation() -> None:
    assert SECRET.password not in repr(SECRET)


# -- allow-list ------------------------------------------------------------------------------------------------


async def test_address_outside_the_allowlist_is_403(serve: Serve, agent: FakeAgent) -> None:
    outside = await serve(ApiConfig(port=0, allowlist=(ip_network("10.0.0.0/8"),)))
    assert await status(url(outside, "/reload")) == (403, "Access is denied")
    assert (await status(url(outside, "/primary"), "GET"))[0] == 200
    assert agent.calls == []
    inside = await serve(ApiConfig(port=0, allowlist=(ip_network("10.0.0.0/8"), ip_network("127.0.0.0/8"))))
    assert (await status(url(inside, "/reload")))[0] == 200


async def test_allowlist_comes_before_the_password(serve: Serve) -> None:
    running = await serve(replace(SECRET, allowlist=(ip_network("10.0.0.0/8"),)))
    right = aiohttp.BasicAuth(SECRET.username, SECRET.password)
    assert (await status(url(running, "/reload"), auth=right))[0] == 403


async def test_members_are_allowed_by_the_address_of_their_rest_url(serve: Serve, agent: FakeAgent) -> None:
    running = await serve(ApiConfig(port=0, allowlist_include_members=True))
    assert (await status(url(running, "/reload")))[0] == 200
    stranger = agent.state._replace(cluster=view(members=(Member("two", api_url="http://10.0.0.2:8008/patroni"),)))
    agent.become(stranger)
    assert (await status(url(running, "/reload")))[0] == 403


@pytest.mark.parametrize(
    ("address", "allowed"),
    [("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("fe80::1%eth0", True), ("11.0.0.1", False), ("", False)],
)
async def test_address_forms(address: str, allowed: bool) -> None:
    config = ApiConfig(allowlist=(ip_network("10.0.0.0/8"), ip_network("fe80::/10")))
    assert (await denial_of(config, Caller(address, False, None), (), Names()) is None) == allowed


async def test_member_whose_name_does_not_resolve_opens_nothing() -> None:
    config = ApiConfig(allowlist_include_members=True)
    members = (
        Member("two", api_url="http://no-such-host.invalid:8008/patroni"),
        Member("three", api_url="::"),
        Member("four", api_url="http://[::bad:8008/patroni"),
    )
    denial = await denial_of(config, Caller("10.0.0.1", False, None), members, Names())
    assert denial is not None
    assert denial.code == 403


# -- TLS -------------------------------------------------------------------------------------------------------


def trust(authority: Authority, identity: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.certificate)
    if identity:
        context.load_cert_chain(*identity)
    return context


def tls(authority: Authority, **more: Any) -> ApiConfig:
    certfile, keyfile = authority.issue("server")
    return ApiConfig(port=0, certfile=certfile, keyfile=keyfile, **more)


async def test_https_with_optional_client_certificate_wants_it_for_unsafe_methods(
    serve: Serve, authority: Authority
) -> None:
    running = await serve(tls(authority, cafile=authority.certificate, verify_client="optional"))
    stranger, friend = trust(authority), trust(authority, authority.issue("friend"))
    assert (await status(url(running, "/primary", "https"), "GET", ssl=stranger))[0] == 200
    refused = (403, "client certificate required")
    assert await status(url(running, "/reload", "https"), ssl=stranger) == refused
    assert (await status(url(running, "/reload", "https"), ssl=friend))[0] == 200


async def test_certificate_and_password_are_both_wanted(serve: Serve, authority: Authority) -> None:
    config = tls(authority, cafile=authority.certificate, verify_client="optional", username="a", password="b")
    running = await serve(config)
    friend = trust(authority, authority.issue("friend"))
    assert (await status(url(running, "/reload", "https"), ssl=friend))[0] == 401
    right = aiohttp.BasicAuth("a", "b")
    assert (await status(url(running, "/reload", "https"), ssl=friend, auth=right))[0] == 200


async def test_required_client_certificate_keeps_all_others_out(
    serve: Serve, authority: Authority, tmp_path: Path
) -> None:
    running = await serve(tls(authority, cafile=authority.certificate, verify_client="required"))
    friend = trust(authority, authority.issue("friend"))
    assert (await status(url(running, "/primary", "https"), "GET", ssl=friend))[0] == 200
    forger = Authority(tmp_path / "forger")
    for context in (trust(authority), trust(authority, forger.issue("friend"))):
        with pytest.raises(aiohttp.ClientError):
            await status(url(running, "/primary", "https"), "GET", ssl=context)


async def test_encrypted_key_is_opened_with_its_password(serve: Serve, authority: Authority) -> None:
    certfile, keyfile = authority.issue("locked", key_password="opensesame")
    config = ApiConfig(port=0, certfile=certfile, keyfile=keyfile, keyfile_password="opensesame")
    running = await serve(config)
    assert (await status(url(running, "/primary", "https"), "GET", ssl=trust(authority)))[0] == 200
    with pytest.raises(ApiBroken, match=r"locked\.crt"):
        await serve(replace(config, keyfile_password="wrong"))


async def test_reloaded_certificates_hold_for_new_connections_and_old_ones_stay(
    serve: Serve, authority: Authority, tmp_path: Path
) -> None:
    config = tls(authority, cafile=authority.certificate, verify_client="required")
    running = await serve(config)
    other = Authority(tmp_path / "other")
    old = trust(authority, authority.issue("friend"))
    new = trust(other, other.issue("friend"))
    address = url(running, "/primary", "https")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=old)) as session:
        async with session.get(address) as answer:
            assert answer.status == 200
        replace_files(config, other)
        await running.reload(config)
        async with session.get(address) as answer:
            assert answer.status == 200
    assert (await status(address, "GET", ssl=new))[0] == 200
    old_client_new_server = trust(other, (authority.at / "friend.crt", authority.at / "friend.key"))
    with pytest.raises(aiohttp.ClientError):
        await status(address, "GET", ssl=old_client_new_server)


def replace_files(config: ApiConfig, other: Authority) -> None:
    """The server's files come from another authority now."""
    certfile, keyfile = other.issue("server")
    assert config.certfile is not None
    assert config.keyfile is not None
    assert config.cafile is not None
    for target, source in ((config.certfile, certfile), (config.keyfile, keyfile), (config.cafile, other.certificate)):
        target.write_bytes(source.read_bytes())


async def test_reload_of_broken_files_keeps_the_old_certificate(serve: Serve, authority: Authority) -> None:
    config = tls(authority)
    running = await serve(config)
    assert config.certfile is not None
    config.certfile.write_text("half a certif")
    with pytest.raises(ApiBroken, match=r"server\.crt"):
        await running.reload(config)
    assert (await status(url(running, "/primary", "https"), "GET", ssl=trust(authority)))[0] == 200


async def test_reload_without_tls_changes_nothing(serve: Serve) -> None:
    running = await serve(ApiConfig(port=0))
    await running.reload(ApiConfig(port=0))
    assert (await status(url(running, "/primary"), "GET"))[0] == 200


async def test_a_reload_changes_who_may_change_things(serve: Serve) -> None:
    running = await serve(SECRET)
    right, new = aiohttp.BasicAuth(SECRET.username, SECRET.password), aiohttp.BasicAuth("admin", "new")
    await running.reload(replace(SECRET, password="new"))
    assert (await status(url(running, "/reload"), auth=right))[0] == 401
    assert (await status(url(running, "/reload"), auth=new))[0] == 200
    await running.reload(replace(SECRET, password="new", allowlist=(ip_network("10.0.0.0/8"),)))
    assert (await status(url(running, "/reload"), auth=new))[0] == 403


async def test_a_reload_does_not_change_between_http_and_https(serve: Serve, authority: Authority) -> None:
    running = await serve(SECRET)
    with pytest.raises(ApiBroken, match="restart"):
        await running.reload(replace(tls(authority), password="new"))
    right = aiohttp.BasicAuth(SECRET.username, SECRET.password)
    assert (await status(url(running, "/reload"), auth=right))[0] == 200, "all is as it was"
