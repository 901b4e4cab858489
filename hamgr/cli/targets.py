"""Which cluster and which members a command line names, in patronictl's manner."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

import click

from hamgr.cli.errors import Refused
from hamgr.cli.members import role_of
from hamgr.core.cluster import ClusterView, Member

ROLES = ("leader", "primary", "standby-leader", "replica", "standby", "any")
"""patronictl's words; `standby` is its `replica`, and a primary is a leader here."""


role_option = click.option("-r", "--role", type=click.Choice(ROLES), help="Any member of this role.")
member_option = click.option("-m", "--member", help="This member.")


def split_names(names: Sequence[str], scope: str) -> tuple[str, tuple[str, ...]]:
    """Scope and member names of `[CLUSTER] [MEMBERS]...`.

    The first name is the cluster's if it is the configured scope or if none is configured.
    """
    if names and (not scope or names[0] == scope):
        return names[0], tuple(names[1:])
    return scope, tuple(names)


def pick_members(view: ClusterView, names: Sequence[str], role: str = "any") -> tuple[Member, ...]:
    """The named members, or all, as far as they have the role; by name, the leader last.

    Raises Refused when a name is unknown or nobody is left.
    """
    known = {member.name for member in view.members}
    unknown = [name for name in names if name not in known]
    if unknown:
        up = ", ".join(sorted(known)) or "none"
        raise Refused(f"no member {', '.join(unknown)} is up; members: {up}")
    chosen = [m for m in view.members if (not names or m.name in names) and has_role(view, m.name, role)]
    if not chosen:
        raise Refused(f"no member of role {role} is up" + (f" among {', '.join(names)}" if names else ""))
    return tuple(sorted(chosen, key=lambda member: (view.is_led_by(member.name), member.name)))


def pick_one(view: ClusterView, role: str | None, name: str | None) -> Member:
    """The named member, or one of the role; without either the leader. Raises Refused when there is none."""
    if role and name:
        raise click.UsageError("--role and --member exclude each other")
    return pick_members(view, [name] if name else [], role or ("any" if name else "leader"))[0]


def address_of(member: Member) -> tuple[str, int]:
    """Host and port of the member's server. Raises Refused while it announces none that can be read."""
    try:
        parts = urlsplit(member.conn_url)
        host, port = parts.hostname, parts.port or 5432
    except ValueError as problem:
        raise Refused(f"{member.name} announces an address of its server that is none") from problem
    if not host:
        raise Refused(f"{member.name} announces no address of its server")
    return host, port


def has_role(view: ClusterView, name: str, role: str) -> bool:
    """True when the member has the role that one of ROLES means."""
    if role == "any":
        return True
    is_leader = role_of(view, name) == "leader"
    return is_leader if role in ("leader", "primary", "standby-leader") else not is_leader


def leader_of(view: ClusterView) -> Member | None:
    """The member that holds the leader key, if its own key is there too."""
    return view.member(view.leader.name) if view.leader else None
