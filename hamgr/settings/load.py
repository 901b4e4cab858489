"""From a file and the environment to checked settings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hamgr.core.budget import ADOPTION_S
from hamgr.core.policy import Policy
from hamgr.settings.dynamic import DynamicSettings, parse_dynamic
from hamgr.settings.kinds import is_network
from hamgr.settings.patroni import STORES
from hamgr.settings.problem import Problem, SettingsError, warning
from hamgr.settings.relations import overridden_rule, usable_s
from hamgr.settings.shown import Loaded, leaves
from hamgr.settings.sort import sort_out, value_problems
from hamgr.settings.source import Source, add_environment, read_file, unread_variables
from hamgr.settings.table import Settings

MANAGED = frozenset(
    {
        "cluster_name",
        "config_file",
        "data_directory",
        "hba_file",
        "hot_standby",
        "ident_file",
        "listen_addresses",
        "port",
        "primary_conninfo",
        "primary_slot_name",
        "recovery_target_timeline",
        "wal_log_hints",
    }
)
"""Parameters that hamgr sets itself."""


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Loaded:
    """Read, check and complete a member's configuration. HAMGR_* wins over PATRONI_*, both over the file.

    Raises SettingsError with every problem found, not only the first.
    """
    source = read_file(path)
    return check(source, environ)


def check(source: Source, environ: Mapping[str, str]) -> Loaded:
    """As `load`, of values that were read already. Changes `source`."""
    etcd_name, problems = _normalize(source)
    add_environment(source, environ)
    known, found = sort_out(source.raw, Settings, "", "", source.written)
    problems += [*unread_variables(environ), *found, *_store_problems(known, source.raw, etcd_name)]
    try:
        settings = Settings.model_validate(known)
    except ValidationError as error:
        problems += value_problems(error, Settings, "")
        dcs = (known.get("bootstrap") or {}).get("dcs", {})
        problems += parse_dynamic(dcs, "bootstrap.dcs")[1]
        raise SettingsError(_renamed(problems, etcd_name)) from None
    seed, found = parse_dynamic(settings.bootstrap.dcs, "bootstrap.dcs")
    problems += [*found, *_relations(settings, seed.policy())]
    ordered = _renamed(problems, etcd_name)
    if any(problem.is_error for problem in ordered):
        raise SettingsError(ordered)
    return Loaded(settings, seed, ordered, _origins(settings, seed, source, ordered))


def _normalize(source: Source) -> tuple[str, list[Problem]]:
    """Patroni's other spellings as hamgr's. Returns the name that the file gives etcd's section."""
    raw = source.raw
    problems = []
    name = "etcd3"
    if "etcd" in raw and "etcd3" in raw:
        del raw["etcd"]
        problems.append(warning("etcd", "stands beside etcd3: it has no effect"))
    elif "etcd" in raw:
        name = "etcd"
        raw["etcd3"] = raw.pop("etcd")
        moved = {f"etcd3{path[4:]}": text for path, text in source.written.items() if path.startswith("etcd.")}
        source.written.update(moved)
    log = raw.get("log")
    if isinstance(log, dict) and log.get("format") not in (None, "text", "json"):
        del log["format"]
        problems.append(warning("log.format", "is not text or json: the log has hamgr's own text format"))
    return name, problems


def _renamed(problems: list[Problem], etcd_name: str) -> tuple[Problem, ...]:
    """Problems under the name that the file gives etcd's section."""
    head = "etcd3"
    return tuple(
        Problem(etcd_name + each.path[len(head) :], each.text, each.hint, each.is_error)
        if each.path == head or each.path.startswith(head + ".")
        else each
        for each in problems
    )


def _store_problems(known: Mapping[str, Any], raw: Mapping[Any, Any], etcd_name: str) -> Iterator[Problem]:
    section = known.get("etcd3") or {}
    if any(section.get(key) for key in ("host", "hosts", "url")):
        return
    hint = 'write for example etcd3: {hosts: ["10.0.0.11:2379"]}'
    others = [store for store in STORES if store in raw]
    if others:
        yield Problem(others[0], f"hamgr speaks etcd 3 (3.4 or newer), not {others[0]}", hint)
    else:
        yield Problem("etcd3", "names no endpoint of etcd (host, hosts or url)", hint)


def _relations(settings: Settings, policy: Policy) -> Iterator[Problem]:
    yield from _address_problems(settings)
    yield from _password_problems(settings)
    yield from _login_problems(settings)
    yield from _open_to_all(settings)
    yield from _guard_problems(settings, policy)
    yield from _without_effect(settings)
    yield from _route_problems(settings)
    yield from overridden_rule(policy.synchronous_mode, settings.postgresql.parameters, "postgresql")
    if (settings.restapi.keyfile or settings.restapi.keyfile_password) and not settings.restapi.certfile:
        yield Problem("restapi.certfile", "is missing, but a key for it is given")
    if settings.restapi.verify_client != "none" and not (settings.restapi.certfile and settings.restapi.cafile):
        yield Problem("restapi.verify_client", "needs certfile and cafile")
    if bool(settings.etcd3.cert) != bool(settings.etcd3.key) and settings.etcd3.key:
        yield Problem("etcd3.cert", "is missing, but a key for it is given")
    # Of whole seconds that is enough for a timeout of at least one, which every device can be given.
    if settings.watchdog.safety_margin >= policy.ttl_s:
        text = f"{settings.watchdog.safety_margin} s leave nothing of ttl ({policy.ttl_s:g} s)"
        yield Problem("watchdog.safety_margin", text, "write -1 for half of ttl")


def _address_problems(settings: Settings) -> Iterator[Problem]:
    server = settings.postgresql
    if server.connect_address is None and server.listen.is_wildcard:
        hint = f"write the address that others reach, for example 10.0.0.11:{server.listen.port}"
        yield Problem("postgresql.connect_address", "is missing, and postgresql.listen is a wildcard", hint)
        return
    if settings.server_address == settings.rest_address:
        yield Problem("restapi.connect_address", "is the address of PostgreSQL", "give the REST server its own port")
    local = ("127.0.0.1", "::1", "localhost")
    is_remote = any(endpoint.host not in local for endpoint in settings.etcd3.endpoints)
    for key, address in (
        ("postgresql.connect_address", settings.server_address),
        ("restapi.connect_address", settings.rest_address),
    ):
        if is_remote and address.host in local:
            yield warning(key, f"{address.host} is this host only: members elsewhere cannot connect")


def _password_problems(settings: Settings) -> Iterator[Problem]:
    if settings.postgresql.pgpass:
        return
    roles = settings.postgresql.authentication
    for name, role in (("superuser", roles.superuser), ("replication", roles.replication)):
        if role.needs_password:
            hint = f"write it, or set HAMGR_{name.upper()}_PASSWORD, or give a client certificate (sslcert) or pgpass"
            yield Problem(f"postgresql.authentication.{name}.password", "is missing", hint)


def _login_problems(settings: Settings) -> Iterator[Problem]:
    """Half a login is none: without a username the REST server asks for no password, without one it takes any that is
    empty.
    """
    for at, login in (
        ("restapi.authentication", settings.restapi.authentication),
        ("ctl.authentication", settings.ctl.authentication),
        ("etcd3", settings.etcd3),
    ):
        has_password = login.password is not None and login.password.get_secret_value() != ""
        if bool(login.username) != has_password:
            missing = "username" if has_password else "password"
            yield Problem(at, "username and password belong together", f"{missing} is missing")


def _open_to_all(settings: Settings) -> Iterator[Problem]:
    section = settings.restapi
    host, login = section.listen.hosts[0], section.authentication
    is_loopback = host == "localhost" or (is_network(host) and ip_address(host).is_loopback)
    asks = login.username or login.password or section.verify_client != "none"
    if not (is_loopback or asks or section.allowlist or section.allowlist_include_members):
        text = f"is missing: whoever reaches {section.listen} may switch over, restart and reconfigure"
        yield warning("restapi.authentication", text, "give username and password, or verify_client, or allowlist")


def _guard_problems(settings: Settings, policy: Policy) -> Iterator[Problem]:
    timeout = settings.guard.agent_timeout_for(policy.ttl_s)
    room = usable_s(policy) - policy.renew_interval_s - ADOPTION_S
    if timeout > room and settings.guard.agent_timeout is not None:
        text = f"{timeout:g} s: a frozen agent is not replaced before its lease ends (room {max(0.0, room):.2f} s)"
        yield warning("guard.agent_timeout", text, "leave it out, or raise ttl")
    needed = policy.primary_stop_timeout_s + policy.handover_timeout_s
    if settings.guard.stop_timeout < needed:
        text = f"{settings.guard.stop_timeout:g} s is less than primary_stop_timeout + handover_timeout ({needed:g} s)"
        yield warning("guard.stop_timeout", text, "an orderly stop may be cut short")


def _route_problems(settings: Settings) -> Iterator[Problem]:
    """One pool or file entered twice would be paused, and rewritten, against itself."""
    seen: dict[object, str] = {}
    for number, pool in enumerate(settings.pgbouncer):
        at = f"pgbouncer.{number}"
        for key, value in (("host", (pool.host, pool.port)), ("target_file", pool.target_file)):
            if value and value in seen:
                yield Problem(f"{at}.{key}", f"is that of {seen[value]} as well", "enter each pool once")
            seen[value] = at
    for number, balancer in enumerate(settings.haproxy):
        entry = (balancer.socket, balancer.backend)
        if entry in seen:
            yield Problem(f"haproxy.{number}.socket", f"is that of {seen[entry]} as well", "enter each balancer once")
        seen[entry] = f"haproxy.{number}"


def _without_effect(settings: Settings) -> Iterator[Problem]:
    server = settings.postgresql
    others = [method for method in server.create_replica_methods if method != "basebackup"]
    if others:
        text = f"{', '.join(others)}: not yet; replicas are made by pg_basebackup"
        yield warning("postgresql.create_replica_methods", text)
    for name in ("replicatefrom", "nostream"):
        if getattr(settings.tags, name):
            yield warning(f"tags.{name}", "has no effect: every replica streams from the leader")
    roles = server.authentication
    for name, role in (("superuser", roles.superuser), ("replication", roles.replication), ("rewind", roles.rewind)):
        if role.sslpassword is not None:
            text = "has no effect: PostgreSQL's programs would show it to everybody on this host"
            yield warning(f"postgresql.authentication.{name}.sslpassword", text, "give a key without a password")
    if not settings.etcd3.is_tls and (settings.etcd3.cacert or settings.etcd3.cert):
        yield warning("etcd3.protocol", "is http: cacert and cert have no effect", "write protocol: https")
    seeded = settings.bootstrap.dcs.get("postgresql")
    cluster = seeded.get("parameters") if isinstance(seeded, Mapping) else None
    cluster_names = cluster if isinstance(cluster, Mapping) else {}
    for at, names in (("postgresql", server.parameters), ("bootstrap.dcs.postgresql", cluster_names)):
        for name in sorted(MANAGED.intersection(names)):
            yield warning(f"{at}.parameters.{name}", "hamgr sets this parameter itself: it has no effect")


def _origins(
    settings: Settings, seed: DynamicSettings, source: Source, problems: tuple[Problem, ...]
) -> Mapping[str, str]:
    adjusted = {each.path for each in problems if "is taken as" in each.text}
    origins = {}
    for path, _ in leaves(settings, seed):
        if path in source.variables:
            origins[path] = f"environment {source.variables[path]}"
        elif path in adjusted:
            origins[path] = "adjusted"
        else:
            origins[path] = "file" if _is_in(source.raw, path) else "default"
    return origins


def _is_in(raw: Mapping[Any, Any], path: str) -> bool:
    """True if the file gives a value at `path`. Names of parameters may hold dots themselves."""
    for key, value in raw.items():
        if path == key:
            return value is not None
        if path.startswith(f"{key}.") and isinstance(value, Mapping) and _is_in(value, path[len(str(key)) + 1 :]):
            return True
    return False
