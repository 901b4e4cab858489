"""Our values to etcd's messages and back."""

from __future__ import annotations

from typing import Any

from hamgr.dcs import wire
from hamgr.dcs.ops import Answer, Compare, Delete, Entry, Op, Put, Range, Removed, Txn

_DELETED = wire.Event.DELETE


def txn_request(txn: Txn) -> Any:
    """etcd's TxnRequest."""
    return wire.TxnRequest(
        compare=[_compare(compare) for compare in txn.compares],
        success=[_op(op) for op in txn.then],
        failure=[_op(op) for op in txn.otherwise],
    )


def _compare(compare: Compare) -> Any:
    kind = wire.Compare
    key = compare.key.encode()
    match compare.field:
        case "value":
            return kind(key=key, target=kind.VALUE, result=kind.EQUAL, value=str(compare.equals).encode())
        case "mod_revision":
            return kind(key=key, target=kind.MOD, result=kind.EQUAL, mod_revision=compare.equals)
        case "lease_id":
            return kind(key=key, target=kind.LEASE, result=kind.EQUAL, lease=compare.equals)


def _op(op: Op) -> Any:
    key = op.key.encode()
    match op:
        case Put():
            request = wire.PutRequest(key=key, value=op.value.encode(), lease=op.lease_id)
            return wire.RequestOp(request_put=request)
        case Delete():
            return wire.RequestOp(request_delete_range=wire.DeleteRangeRequest(key=key, range_end=op.end.encode()))
        case Range():
            request = wire.RangeRequest(key=key, range_end=op.end.encode(), keys_only=op.keys_only)
            return wire.RequestOp(request_range=request)


def answer_of(response: Any) -> Answer:
    """Our Answer to a TxnResponse."""
    ranges = tuple(
        tuple(entry_of(kv) for kv in op.response_range.kvs)
        for op in response.responses
        if op.HasField("response_range")
    )
    return Answer(response.succeeded, response.header.revision, ranges)


def entry_of(kv: Any) -> Entry:
    """Our Entry of a KeyValue; a value that is no UTF-8 becomes None."""
    try:
        value = kv.value.decode()
    except UnicodeDecodeError:
        value = None
    return Entry(kv.key.decode(errors="replace"), value, kv.lease, kv.mod_revision)


def event_of(event: Any) -> Entry | Removed:
    """Our form of a watch event."""
    if event.type == _DELETED:
        return Removed(event.kv.key.decode(errors="replace"), event.kv.mod_revision)
    return entry_of(event.kv)
