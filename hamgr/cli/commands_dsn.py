"""`dsn`: connection strings to one member, or to all of them with libpq choosing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import click
from psycopg.conninfo import make_conninfo

from hamgr.cli.connect import connect
from hamgr.cli.context import Globals
from hamgr.cli.errors import Refused
from hamgr.cli.members import role_of
from hamgr.cli.output import render_value
from hamgr.cli.targets import address_of, member_option, pick_members, pick_one, role_option
from hamgr.core.cluster import ClusterView, Member

ATTRIBUTES = ("read-write", "primary", "standby", "prefer-standby", "read-only", "any")
"""libpq's values of target_session_attrs. `primary`, `standby` and `prefer-standby` need libpq 14."""

ATTRIBUTE_OF_ROLE = {"replica": "standby", "standby": "standby", "any": "any"}
"""Every other role asks for the primary."""

CONNECT_TIMEOUT_S = 2
"""libpq waits for ever by default, also for a host that is gone, and it tries one after the other."""


@dataclass(frozen=True, slots=True)
class Target:
    """Whom a string is for: members in the order in which they are tried."""

    members: tuple[Member, ...]
    attributes: str = ""
    """Empty: one member, whatever it is."""
    timeout_s: int | None = None
    user: str | None = None
    dbname: str | None = None

    @property
    def addresses(self) -> list[tuple[str, int]]:
        return [address_of(member) for member in self.members]

    @property
    def options(self) -> dict[str, Any]:
        """What stands behind the hosts."""
        given = {"target_session_attrs": self.attributes or None, "connect_timeout": self.timeout_s}
        return {key: value for key, value in given.items() if value is not None}


@click.command()
@click.argument("cluster_name", required=False)
@role_option
@member_option
@click.option("--multi-host", is_flag=True, help="Name every member: libpq finds the one of the role.")
@click.option(
    "--target-session-attrs",
    "attributes",
    type=click.Choice(ATTRIBUTES),
    help="What libpq looks for, else by --role: read-write, standby or any. Implies --multi-host.",
)
@click.option(
    "--connect-timeout",
    "timeout_s",
    type=click.IntRange(min=0),
    help=f"Seconds for each host; 0: for ever.  [default: {CONNECT_TIMEOUT_S} with --multi-host]",
)
@click.option("-U", "--username", help="User name to put in.")
@click.option("-d", "--dbname", help="Database to put in.")
@click.option(
    "-f",
    "--format",
    "fmt",
    type=click.Choice(("dsn", "uri", "json")),
    default="dsn",
    show_default=True,
    help="`key=value`, postgresql://, or both and the hosts as JSON.",
)
@click.pass_obj
def dsn(
    globals_: Globals,
    cluster_name: str | None,
    role: str | None,
    member: str | None,
    multi_host: bool,
    attributes: str | None,
    timeout_s: int | None,
    username: str | None,
    dbname: str | None,
    fmt: str,
) -> None:
    """Print `host=... port=...` of a member; without options the leader's.

    With --multi-host the string holds in every state of the cluster: it names all members that are up, and libpq takes
    whichever is of the role when it connects. Whoever is away is left out, and named in a note on standard error.
    """
    view = connect(globals_, cluster_name).read_or_recall()
    if not multi_host and attributes is None:
        chosen = Target((pick_one(view, role, member),), "", timeout_s, username, dbname)
    elif member:
        raise click.UsageError("--member names one host, --multi-host and --target-session-attrs all of them")
    else:
        wanted = attributes or ATTRIBUTE_OF_ROLE.get(role or "", "read-write")
        seconds = CONNECT_TIMEOUT_S if timeout_s is None else timeout_s
        chosen = Target(_all_of(view, wanted), wanted, seconds, username, dbname)
    click.echo(_shown(view, chosen, fmt))


def _all_of(view: ClusterView, attributes: str) -> tuple[Member, ...]:
    """Every member that is up, the likeliest first; a note names those that are entered and away."""
    away = sorted(view.roster.keys() - {member.name for member in view.members})
    if away:
        click.echo(f"Note: without {', '.join(away)}, whose address nobody knows while it is away", err=True)
    members = pick_members(view, ())
    if unknown := [member.name for member in members if not member.conn_url]:
        raise Refused(f"no address is known of {', '.join(unknown)} yet", "try again in a moment")
    return members if attributes in ("standby", "prefer-standby", "read-only") else members[::-1]


def _shown(view: ClusterView, target: Target, fmt: str) -> str:
    if fmt != "json":
        return _key_values(target) if fmt == "dsn" else _uri(target)
    hosts = [
        {"name": member.name, "host": host, "port": port, "role": role_of(view, member.name)}
        for member, (host, port) in zip(target.members, target.addresses, strict=True)
    ]
    return render_value({"hosts": hosts, **target.options, "dsn": _key_values(target), "uri": _uri(target)}, fmt)


def _key_values(target: Target) -> str:
    hosts, ports = zip(*target.addresses, strict=True)
    login = {"user": target.user, "dbname": target.dbname}
    given = {key: value for key, value in login.items() if value is not None}
    return make_conninfo(host=_joined(hosts), port=_joined(ports), **given, **target.options)


def _uri(target: Target) -> str:
    hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in target.addresses)
    user = f"{quote(target.user, safe='')}@" if target.user else ""
    query = f"?{urlencode(target.options)}" if target.options else ""
    return f"postgresql://{user}{hosts}/{quote(target.dbname or '', safe='')}{query}"


def _joined(values: Sequence[Any]) -> str:
    return ",".join(str(value) for value in values)
