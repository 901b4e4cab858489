"""The synchronous rule of a running primary: what is wanted, what is in force, who has caught up. DESIGN.md 5.10."""

from __future__ import annotations

import re

from hamgr.core.quorum import ALONE, BLOCKED, SyncRule
from hamgr.core.scene import Scene
from hamgr.core.server import ServerView, Walsender
from hamgr.core.state import SyncInForce

TEXT = re.compile(r'(ANY|FIRST) (\d+) \((".*")\)')


def rule_of(text: str) -> SyncRule | None:
    """The rule that this synchronous_standby_names is, None if it is not one of ours."""
    if not text:
        return ALONE
    found = TEXT.fullmatch(text)
    if found is None:
        return None
    names = tuple(name.replace('""', '"') for name in found[3][1:-1].split('", "'))
    return SyncRule(names, int(found[2]), found[1] == "ANY")


def sync_in_force(known: SyncInForce | None, server: ServerView) -> SyncInForce | None:
    """What the last look at the server says of its rule: since when all walsenders go by it, and who has caught up."""
    rule = rule_of(server.sync_names)
    if not server.is_primary or rule is None or not _goes_by(server.walsenders, rule):
        return known if known is not None and server.is_primary and known.names == server.sync_names else None
    if known is None or known.names != server.sync_names:
        return SyncInForce(server.sync_names, server.written_lsn)
    if known.has_caught_up:
        return known
    # A standby that has come back may still have its former walsender beside the new one.
    reached = {s.application_name for s in _named(server.walsenders, rule) if s.flush_lsn >= known.lsn}
    return SyncInForce(known.names, known.lsn, has_caught_up=len(reached) >= rule.count)


def _goes_by(walsenders: tuple[Walsender, ...], rule: SyncRule) -> bool:
    """Each walsender reads the configuration by itself; until it has, it releases commits by the rule before.

    Source: src/backend/replication/syncrep.c, SyncRepInitConfig.
    """
    return all((sender.sync_priority > 0) == (rule.place_of(sender.application_name) > 0) for sender in walsenders)


def _named(walsenders: tuple[Walsender, ...], rule: SyncRule) -> tuple[Walsender, ...]:
    return tuple(sender for sender in walsenders if rule.place_of(sender.application_name))


def wanted_rule(scene: Scene) -> SyncRule:
    """The rule that suits the standbys which stream now."""
    policy = scene.policy
    fit = _fit_standbys(scene)
    count = min(policy.synchronous_node_count, len(fit))
    if not count:
        return BLOCKED if policy.synchronous_mode_strict else ALONE
    if policy.synchronous_mode == "quorum":
        return SyncRule(tuple(sorted(fit)), count, any_of=True)
    return SyncRule(tuple(sorted(fit[:count])), count)


def first_rule(scene: Scene) -> SyncRule | None:
    """The rule with which a promoted server begins, before any standby has come; None: not hamgr's to set.

    A server that is promoted, or started, again in the term of its leader finds the electorate of that one's former
    life: nothing is acknowledged until nobody can be elected who lacks it.
    """
    if scene.policy.synchronous_mode == "off":
        return None
    sync = scene.view.sync
    others_may_lead = sync is not None and sync.leader == scene.me and bool(sync.members)
    return BLOCKED if scene.policy.synchronous_mode_strict or others_may_lead else ALONE


def _fit_standbys(scene: Scene) -> list[str]:
    """Members that may be waited for, the best first: by priority, those waited for already, by position, by name.

    Only who may lead counts: a copy on a member that never leads keeps no commit alive.
    """
    senders = {sender.application_name: sender for sender in scene.server.walsenders if sender.state == "streaming"}
    present = rule_of(scene.server.sync_names) or ALONE
    limit = scene.policy.maximum_lag_on_syncnode_bytes

    def is_fit(name: str) -> bool:
        member = scene.view.member(name)
        if member is None or member.tags.nosync or not member.tags.may_lead or name == scene.me or '"' in name:
            return False
        return limit < 0 or scene.server.written_lsn - senders[name].flush_lsn <= limit

    def rank(name: str) -> tuple[int, bool, int, str]:
        member = scene.view.member(name)
        priority = member.tags.sync_priority if member is not None else 0
        return (-priority, name not in present.names, -senders[name].flush_lsn, name)

    return sorted((name for name in senders if is_fit(name)), key=rank)
