"""The store on etcd."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Protocol

from hamgr.core.cluster import Ballot, ClusterView, HistoryLine, LeaderKey, Member, Request, Status, SyncState
from hamgr.core.pipeline import is_record
from hamgr.core.result import Result
from hamgr.core.units import Instant, Term
from hamgr.dcs import codec, transactions
from hamgr.dcs.errors import LeaseExpired, OutcomeUnknown
from hamgr.dcs.keys import ScopeKeys
from hamgr.dcs.ops import Answer, Changes, Delete, Entry, Gap, Grant, Interrupted, Put, Range, Removed, Txn, prefix_end
from hamgr.dcs.store import LeaseGrant, TxnOutcome, ViewChange
from hamgr.dcs.transactions import Change, LeaderClaim
from hamgr.dcs.view import decode_json_object, decode_view


def boot_time() -> Instant:
    """Now, on CLOCK_BOOTTIME."""
    return Instant(time.clock_gettime(time.CLOCK_BOOTTIME))


class KeyValueClient(Protocol):
    """What the store needs of etcd: EtcdClient has it, and so has the fake of the contract tests."""

    async def txn(self, txn: Txn, *, resend: bool = False, budget_s: float | None = None) -> Answer: ...

    async def grant_lease(self, ttl_s: float, budget_s: float | None = None) -> Grant: ...

    async def revoke_lease(self, lease_id: int, budget_s: float | None = None) -> None: ...

    def watch_prefix(
        self, prefix: str, after_revision: int, idle_s: float
    ) -> AsyncGenerator[Changes | Interrupted | Gap, None]: ...

    async def close(self) -> None: ...


class EtcdStore:
    """hamgr.dcs.store.Store over a client; see there for what each method promises."""

    def __init__(self, client: KeyValueClient, keys: ScopeKeys, clock: Callable[[], Instant] = boot_time) -> None:
        self._client = client
        self._keys = keys
        self._clock = clock
        self._last_read: tuple[int, Mapping[str, Entry]] = (-1, {})

    async def close(self) -> None:
        await self._client.close()

    # -- reading -----------------------------------------------------------------------------------------------

    async def read(self) -> ClusterView:
        seen_at = self._clock()
        answer = await self._client.txn(Txn(then=self._keys.view_ranges))
        self._last_read = (answer.revision, {entry.key: entry for entry in answer.entries})
        return decode_view(self._keys, answer.entries, answer.revision, seen_at)

    def watch(self, from_revision: int, idle_s: float) -> AsyncIterator[ViewChange]:
        # The keys are taken now, not when the first change is asked for: another read may come in between.
        revision, entries = self._last_read
        if revision != from_revision:
            return _gap(f"the last read was of revision {revision}, not {from_revision}")
        return self._follow(dict(entries), from_revision, idle_s)

    async def _follow(self, current: dict[str, Entry], revision: int, idle_s: float) -> AsyncIterator[ViewChange]:
        async with aclosing(self._client.watch_prefix(self._keys.prefix, revision, idle_s)) as changes:
            async for change in changes:
                if not isinstance(change, Changes):
                    yield change
                elif self._fold(current, change):
                    yield decode_view(self._keys, current.values(), change.revision, self._clock())

    def _fold(self, current: dict[str, Entry], changes: Changes) -> bool:
        """Bring the keys up to date; True if any that the view shows has changed."""
        relevant = [event for event in changes.events if not event.key.startswith(self._keys.records)]
        for event in relevant:
            if isinstance(event, Removed):
                current.pop(event.key, None)
            else:
                current[event.key] = event
        return bool(relevant)

    # -- leases, member, ballot, status ------------------------------------------------------------------------

    async def grant_lease(self, ttl_s: float) -> LeaseGrant:
        sent_at = self._clock()
        grant = await self._client.grant_lease(ttl_s)
        return LeaseGrant(grant.lease_id, grant.ttl_s, sent_at)

    async def revoke_lease(self, lease_id: int) -> None:
        await self._client.revoke_lease(lease_id)

    async def put_member(self, member: Member, lease_id: int) -> int:
        return await self._put(self._keys.member(member.name), codec.encode_member(member), lease_id)

    async def put_ballot(self, ballot: Ballot, lease_id: int, leader_revision: int) -> Ballot | None:
        vote = transactions.put_ballot(self._keys, ballot, lease_id, leader_revision)
        # Sending the same again is harmless, as in `_put`.
        answer = await self._client.txn(vote, resend=True)
        return replace(ballot, mod_revision=answer.revision) if answer.succeeded else None

    async def delete_ballot(self, name: str) -> None:
        await self._client.txn(Txn(then=(Delete(self._keys.ballot(name)),)), resend=True)

    async def put_status(self, status: Status, me: str) -> TxnOutcome:
        value = codec.encode_status(status)
        return await self._settled(transactions.put_as_leader(self._keys, me, self._keys.status, value, None))

    async def _put(self, key: str, value: str, lease_id: int) -> int:
        # Sending the same again is harmless: the key's only writer is this agent, one write after the other.
        answer = await self._client.txn(Txn(then=(Put(key, value, lease_id),)), resend=True)
        return answer.revision

    # -- leadership --------------------------------------------------------------------------------------------

    async def take_initialize(self, me: str, lease_id: int) -> TxnOutcome:
        view = await self.read()
        term = Term(view.term + 1)
        change = transactions.take_initialize(self._keys, me, lease_id, term, view.term_revision)
        return await self._settled(change)

    async def finish_initialize(self, me: str, system_identifier: str, config: Mapping[str, Any]) -> TxnOutcome:
        seed = codec.encode_json(dict(config))
        outcome = await self._settled(transactions.finish_initialize(self._keys, me, system_identifier, seed))
        if outcome.result is not Result.REFUSED:
            return outcome
        # There is a configuration already, or I do not lead: then this is refused as well.
        return await self._settled(transactions.finish_initialize(self._keys, me, system_identifier, None))

    async def take_leader(self, claim: LeaderClaim) -> TxnOutcome:
        return await self._settled(transactions.take_leader(self._keys, claim))

    async def reattach_leader(self, me: str, old: LeaderKey, lease_id: int) -> TxnOutcome:
        return await self._settled(transactions.reattach_leader(self._keys, me, old, lease_id))

    async def retake_leader(self, me: str, lease_id: int, term_revision: int, roster_revision: int) -> TxnOutcome:
        change = transactions.retake_leader(self._keys, me, lease_id, term_revision, roster_revision)
        return await self._settled(change)

    async def release_leader(
        self, me: str, term: Term, leader_revision: int = 0, parting: Request | None = None
    ) -> TxnOutcome:
        text = None if parting is None else codec.encode_request(parting)
        return await self._settled(transactions.release_leader(self._keys, me, term, leader_revision, text))

    async def put_offer(self, me: str, request: Request, leader_revision: int = 0) -> TxnOutcome:
        if request.offer is None:
            raise ValueError("the request holds no offer")
        value = codec.encode_request(request)
        change = transactions.put_offer(
            self._keys, me, request.offer.term, value, request.mod_revision, leader_revision
        )
        return await self._settled(change)

    async def withdraw_offer(self, me: str, lease_id: int, request_revision: int) -> TxnOutcome:
        return await self._settled(transactions.withdraw_offer(self._keys, me, lease_id, request_revision))

    # -- requests, configuration, documents ----------------------------------------------------------------------

    async def put_request(self, request: Request, expected_revision: int) -> TxnOutcome:
        value = codec.encode_request(request)
        return await self._settled(transactions.put_if_unchanged(self._keys.request, value, expected_revision))

    async def clear_request(self, request_revision: int) -> TxnOutcome:
        return await self._settled(transactions.delete_if_unchanged(self._keys.request, request_revision))

    async def put_config(self, values: Mapping[str, Any], expected_revision: int) -> TxnOutcome:
        value = codec.encode_json(dict(values))
        return await self._settled(transactions.put_if_unchanged(self._keys.config, value, expected_revision))

    async def put_history(self, me: str, lines: tuple[HistoryLine, ...], expected_revision: int) -> TxnOutcome:
        return await self._lead_put(me, self._keys.history, codec.encode_history(lines), expected_revision)

    async def put_roster(self, me: str, roster: Mapping[str, str], expected_revision: int) -> TxnOutcome:
        return await self._lead_put(me, self._keys.roster, codec.encode_roster(roster), expected_revision)

    async def put_sync(self, me: str, sync: SyncState, expected_revision: int) -> TxnOutcome:
        return await self._lead_put(me, self._keys.sync, codec.encode_sync(sync), expected_revision)

    async def _lead_put(self, me: str, key: str, value: str, expected_revision: int) -> TxnOutcome:
        return await self._settled(transactions.put_as_leader(self._keys, me, key, value, expected_revision))

    # -- records -------------------------------------------------------------------------------------------------

    async def put_record(self, term: Term, record: Mapping[str, Any], keep: int = 50) -> None:
        write = Put(self._keys.record(term), codec.encode_json(dict(record)))
        answer = await self._client.txn(Txn(then=(write, self._records(keys_only=True))), resend=True)
        numbers = sorted(number for entry in answer.entries if (number := self._record_term(entry)) is not None)
        old = tuple(Delete(self._keys.record(number)) for number in numbers[:-keep])
        if old:
            # At most 128 operations go into one transaction; what is left over goes at the next record.
            await self._client.txn(Txn(then=old[:100]), resend=True)

    async def list_records(self, limit: int = 50) -> tuple[Mapping[str, Any], ...]:
        answer = await self._client.txn(Txn(then=(self._records(),)))
        newest = sorted(answer.entries, key=lambda entry: self._record_term(entry) or 0, reverse=True)
        records = (_record(entry) for entry in newest)
        return tuple(record for record in records if record is not None)[:limit]

    def _records(self, keys_only: bool = False) -> Range:
        return Range(self._keys.records, prefix_end(self._keys.records), keys_only)

    def _record_term(self, entry: Entry) -> int | None:
        name = entry.key.removeprefix(self._keys.records)
        return int(name) if name.isascii() and name.isdecimal() else None

    async def delete_all(self) -> None:
        await self._client.txn(Txn(then=(Delete(self._keys.prefix, prefix_end(self._keys.prefix)),)), resend=True)

    # -- settling ------------------------------------------------------------------------------------------------

    async def _settled(self, change: Change) -> TxnOutcome:
        """Carry out the change; while time lasts, an answer that was lost is settled by sending it again."""
        try:
            answer = await self._client.txn(change.txn, resend=True)
        except OutcomeUnknown as failure:
            return TxnOutcome(Result.UNKNOWN, text=str(failure))
        except LeaseExpired as failure:
            return TxnOutcome(Result.REFUSED, text=str(failure))
        return _outcome(change, answer)


async def _gap(text: str) -> AsyncIterator[ViewChange]:
    yield Gap(text)


def _outcome(change: Change, answer: Answer) -> TxnOutcome:
    if answer.succeeded:
        return TxnOutcome(Result.DONE, answer.revision)
    found = {entry.key: entry for entry in answer.entries}
    if change.is_done(found):
        return TxnOutcome(Result.DONE, answer.revision, "was done already")
    failed = [
        f"{compare.key} is {_shown(found.get(compare.key))}, not {compare.field} {compare.equals!r}"
        for compare in change.txn.compares
        if not _holds(compare.field, compare.equals, found.get(compare.key))
    ]
    return TxnOutcome(Result.REFUSED, answer.revision, "; ".join(failed))


def _holds(field: str, equals: str | int, entry: Entry | None) -> bool:
    if entry is None:
        return equals == 0
    return bool(getattr(entry, field) == equals)


def _shown(entry: Entry | None) -> str:
    return "absent" if entry is None else f"{(entry.value or '')[:40]!r} at {entry.mod_revision}"


def _record(entry: Entry) -> Mapping[str, Any] | None:
    try:
        record = decode_json_object(entry.value or "")
    except (ValueError, RecursionError):
        return None
    return record if is_record(record) else None
