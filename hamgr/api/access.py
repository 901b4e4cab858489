"""Who may change things: allow-list, client certificate, basic authentication, in Patroni's order and words."""

from __future__ import annotations

import base64
import hmac
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from hamgr.api.config import ApiBroken, ApiConfig
from hamgr.api.names import Names, plain_address
from hamgr.core.cluster import Member


@dataclass(frozen=True, slots=True)
class Denial:
    """A refusal of 401 or 403 with its reason."""

    code: int
    text: str


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request, as far as access depends on it."""

    address: str
    has_certificate: bool
    authorization: str | None


async def denial_of(config: ApiConfig, caller: Caller, members: Iterable[Member], names: Names) -> Denial | None:
    """Why this caller may not change anything, or None if it may."""
    if not await _is_allowed_address(config, caller.address, members, names):
        return Denial(403, "Access is denied")
    return _why_unproven(config, caller)


def denial_of_member(config: ApiConfig, caller: Caller, names: Names) -> Denial | None:
    """As `denial_of`, for what members ask of each other.

    Where members are let through by their addresses, those are not looked at, as in Patroni: the cluster may not
    be known and names may not resolve while etcd is gone. Nor is a name of the allow-list waited for.
    """
    if config.has_allowlist and not config.allowlist_include_members:
        address = plain_address(caller.address)
        is_listed = _is_in_networks(config, address) or address in names.last_addresses_of(config.allowed_hosts)
        if not is_listed:
            return Denial(403, "Access is denied")
    return _why_unproven(config, caller)


def _why_unproven(config: ApiConfig, caller: Caller) -> Denial | None:
    if config.is_https and config.verify_client != "none" and not caller.has_certificate:
        return Denial(403, "client certificate required")
    return _why_not_authenticated(config, caller.authorization)


def _why_not_authenticated(config: ApiConfig, header: str | None) -> Denial | None:
    if not config.username:
        return None
    if header is None:
        return Denial(401, "no auth header received")
    scheme, _, credentials = header.partition(" ")
    expected = base64.b64encode(f"{config.username}:{config.password}".encode())
    given = credentials.strip().encode("utf-8", "surrogateescape")
    # The comparison comes first, so that its time says nothing of where the two differ.
    if not hmac.compare_digest(given, expected) or scheme.lower() != "basic":
        return Denial(401, "not authenticated")
    return None


async def _is_allowed_address(config: ApiConfig, address: str, members: Iterable[Member], names: Names) -> bool:
    if not config.has_allowlist and not config.allowlist_include_members:
        return True
    caller = plain_address(address)
    if caller is None:
        return False
    if _is_in_networks(config, caller):
        return True
    hosts = {*config.allowed_hosts, *(_hosts_of(members) if config.allowlist_include_members else ())}
    literals = {host: plain for host in hosts if (plain := plain_address(host))}
    return caller in literals.values() or caller in await names.addresses_of(hosts - literals.keys())


def _is_in_networks(config: ApiConfig, caller: str | None) -> bool:
    return caller is not None and any(ip_address(caller) in network for network in config.allowlist)


def _hosts_of(members: Iterable[Member]) -> frozenset[str]:
    """Of the members' REST URLs."""
    return frozenset(host for member in members if (host := _host_of(member.api_url)))


def _host_of(url: str) -> str:
    """What stands in a member's key may be anything."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def tls_context(config: ApiConfig) -> ssl.SSLContext | None:
    """The server's TLS, with the files as they are now; None: plain HTTP. Raises ApiBroken naming the file."""
    if config.certfile is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(config.certfile, config.keyfile, lambda: config.keyfile_password)
    except OSError as problem:
        raise ApiBroken(f"cannot use the REST certificate {config.certfile}: {problem}") from problem
    try:
        if config.cafile is not None:
            context.load_verify_locations(config.cafile)
        if config.ciphers:
            context.set_ciphers(config.ciphers)
    except OSError as problem:
        what = config.cafile if config.cafile and not config.ciphers else f"{config.cafile} or {config.ciphers!r}"
        raise ApiBroken(f"cannot use restapi.cafile or restapi.ciphers ({what}): {problem}") from problem
    wanted = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
    context.verify_mode = wanted[config.verify_client]
    return context
