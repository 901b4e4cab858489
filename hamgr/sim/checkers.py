"""What must never be seen. Each check is made at the moment at which its claim could first be broken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hamgr.core import actions
from hamgr.core.actions import Action
from hamgr.core.cluster import Ballot, Status
from hamgr.core.order import rank
from hamgr.core.pipeline import Record
from hamgr.sim.agent import Agent, Shared
from hamgr.sim.client import Clients
from hamgr.sim.ground import Ground, Violation
from hamgr.sim.postgres import Server, Written
from hamgr.sim.wal import back_from, contains


class Checkers:
    """Told of what happens; raises Violation."""

    def __init__(self, ground: Ground, shared: Shared, clients: Clients) -> None:
        self._ground = ground
        self._shared = shared
        self._clients = clients
        self._leader_of_term: dict[int, str] = {}
        self._first_ack: dict[tuple[str, int], float] = {}
        """(host, term) -> when it first acknowledged a write."""
        self._latest: tuple[str, int] | None = None
        self._seen_by: dict[str, dict[str, int]] = {}
        """Member -> the ballots that it knew when it decided to take the lead."""
        self._newest: Server | None = None
        self._lost_in: dict[int, list[Written]] = {}
        self._writable_in = 0
        """The last term in which a server became writable."""
        self._never_writable: list[tuple[int, set[int]]] = []
        """(term, numbers of the writes that its leader had), of the terms since the last writable one."""
        self._records: dict[int, Record] = {}
        self._status_before: dict[int, int] = {}
        """Term -> the position that the leader before it had last written to etcd."""
        self.changes = 0
        """Leader changes so far."""
        ground.etcd.before_write.append(self._before_write)

    # -- (1) two servers never acknowledge at one time ---------------------------------------------------------

    def became_writable(self, server: Server) -> None:
        """A server may acknowledge from now on: the leader's, or one that has thawed, and is killed in a moment."""
        if self._leader_of_term.get(self._ground.etcd.get("term", 0), server.name) == server.name:
            self._newest = server
            self._count_losses(server)
        self.look_for_two()
        self._ground.at(server.accepts_from, self.look_for_two)

    def look_for_two(self) -> None:
        """At most one server may acknowledge new requests. One whose host has just thawed has its moment, in which the
        guard kills it: what it then acknowledges is judged write by write.
        """
        servers, now = self._shared.replication.servers.values(), self._ground.now
        able = [each.name for each in servers if each.may_acknowledge and each.accepts_from <= now]
        if len(able) > 1:
            raise Violation(f"two servers may acknowledge writes at one time: {', '.join(able)}")

    def acknowledged(self, written: Written) -> None:
        """The same judgement as a drill's: a row sent after a later leadership of another host acknowledged one."""
        self._mark_guarded(written)
        self._judge_late(written)
        key = (written.host, written.term)
        if key not in self._first_ack:
            self._first_ack[key] = self._ground.now
            # A promotion that a suspend cut in two may end in the moment between the thaw and the guard's kill, while
            # another holds the key: a late acknowledgement, judged above, and not the beginning of a leadership.
            if self._ground.etcd.get("leader", "") in ("", written.host):
                self._latest = key
        latest = self._latest
        if latest is None or latest[0] == written.host:
            return
        # Whoever was made a primary in a later term took over from it; the two were not leaders at one time.
        if latest[1] >= written.term and written.sent_at > self._first_ack[latest]:
            raise Violation(f"{written.host} acknowledges a write that was sent after {latest[0]} had begun to")

    def _judge_late(self, written: Written) -> None:
        """What was in flight in a host that stood still may be acknowledged after another has begun to lead. Without
        synchronous mode that is known to be possible, and lost; the README says so.
        """
        newest = self._newest
        if newest is None or newest.name == written.host or contains(newest.head, written.commit):
            return
        if written.was_guarded and self._is_synchronous():
            raise Violation(f"{written.host} acknowledges under synchronous mode a write that {newest.name} lacks")
        written.is_lost = True

    # -- (2) nothing acknowledged is lost in synchronous mode --------------------------------------------------

    def _mark_guarded(self, written: Written) -> None:
        etcd = self._ground.etcd
        sync, server = etcd.get("sync"), self._shared.replication.servers[written.host]
        is_on = self._is_synchronous() and sync is not None and sync.leader == written.host
        written.was_guarded = is_on or server.sync.count > 0

    def _is_synchronous(self) -> bool:
        values = self._ground.etcd.get("config") or {}
        return bool(values.get("synchronous_mode", "off") != "off")

    def _count_losses(self, server: Server) -> None:
        """Which acknowledged writes this new primary lacks; under synchronous mode there must be none."""
        numbers = {commit.number for commit in back_from(server.head)}
        lost = [each for each in self._clients.acknowledged if not each.is_lost and each.number not in numbers]
        guarded = [each for each in lost if each.was_guarded and self._is_synchronous()]
        if guarded:
            raise Violation(
                f"{server.name} leads without write {guarded[0].number}, which {guarded[0].host} acknowledged "
                f"under synchronous mode ({len(guarded)} in all)"
            )
        self._writable_in = self._ground.etcd.get("term", 0)
        for each in lost:
            each.is_lost = True
            without = (term for term, had in self._never_writable if each.number not in had)
            self._lost_in.setdefault(next(without, self._writable_in), []).append(each)
        self._never_writable = []
        for record in self._records.values():
            self._judge_record(record)

    # -- (7) what was lost was on record -----------------------------------------------------------------------

    def recorded(self, record: Record) -> None:
        """A lossy change of leader says so: 0 bytes at risk is said only where nothing that was known of is lost."""
        self._records[record.term] = record
        self._judge_record(record)

    def _judge_record(self, record: Record) -> None:
        if record.at_risk_bytes != 0:
            return
        known_lsn = self._status_before.get(record.term, 0)
        lost = self._lost_in.get(record.term, [])
        if record.cause == "leader_lost":
            # What was written since the last status is known to nobody who could put it on record.
            lost = [each for each in lost if each.commit is not None and each.commit.lsn <= known_lsn]
        if lost:
            raise Violation(
                f"the record of term {record.term} ({record.cause}) says that nothing was at risk, "
                f"and {len(lost)} acknowledged writes are lost"
            )

    def lost(self) -> list[int]:
        """Acknowledged writes that the present primary does not have."""
        primary = next((each for each in self._shared.replication.servers.values() if each.is_writable), None)
        have = {commit.number for commit in back_from(primary.head)} if primary else set()
        return [each.number for each in self._clients.acknowledged if each.number not in have]

    # -- (3) terms ---------------------------------------------------------------------------------------------

    def _before_write(self, puts: Mapping[str, tuple[Any, int]], _gone: tuple[str, ...]) -> None:
        if "leader" not in puts and "term" not in puts:
            return
        etcd = self._ground.etcd
        name = puts["leader"][0] if "leader" in puts else etcd.get("leader", "")
        before = etcd.get("term", 0)
        term = puts["term"][0] if "term" in puts else before
        if term not in (before, before + 1):
            raise Violation(f"the term goes from {before} to {term}")
        if self._leader_of_term.setdefault(term, name) != name:
            raise Violation(f"term {term} has two leaders: {self._leader_of_term[term]} and {name}")
        if term != before:
            if before and before != self._writable_in:
                head = self._shared.replication.servers[self._leader_of_term[before]].head
                self._never_writable.append((before, {commit.number for commit in back_from(head)}))
            self.changes += 1
            self._status_before[term] = etcd.get("status", Status()).optime
            self._ground.say(name, f"takes the lead in term {term}")
            self._judge_election(name, term)

    # -- (5.3) the greatest ballot -----------------------------------------------------------------------------

    def _judge_election(self, name: str, term: int) -> None:
        """Nobody takes a vacant lead over a greater ballot of a rival that it had not seen."""
        etcd = self._ground.etcd
        mine = etcd.get(f"ballots/{name}")
        known = self._seen_by.get(name)
        if "leader" in etcd.keys or mine is None or known is None or mine.term != term:
            return
        for key in sorted(etcd.keys):
            ballot = etcd.keys[key].value if key.startswith("ballots/") else None
            if not isinstance(ballot, Ballot) or ballot.term != term or rank(ballot) > rank(mine):
                continue
            if ballot.lsn > mine.lsn and known.get(ballot.name, etcd.mod(key)) != etcd.mod(key):
                raise Violation(f"{name} takes the lead over the ballot of {ballot.name}, which it had not seen")

    # -- (4) only with the key ---------------------------------------------------------------------------------

    def action_started(self, agent: Agent, action: Action) -> None:
        """What an agent must not even begin."""
        server, etcd = agent.server, self._ground.etcd
        if isinstance(action, actions.ReleaseLeader) and server.is_alive:
            raise Violation(f"{agent.name} releases the key while its server lives")
        if isinstance(action, actions.StartPrimary) and not server.was_primary:
            raise Violation(f"{agent.name} starts a replica's data as a primary on the old timeline")
        if isinstance(action, actions.StartPrimary | actions.Promote) and etcd.get("leader") not in (agent.name, None):
            raise Violation(f"{agent.name} begins {type(action).__name__} while {etcd.get('leader')} holds the key")
        if isinstance(action, actions.TakeLeader):
            self._seen_by[agent.name] = dict(action.ballots)
