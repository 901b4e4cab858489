"""etcd's generated messages and the methods that we call, for channels of our own.

The only module that imports `etcd3`. Its classes were generated long ago: current protobuf loads them only in
its pure Python form, which has to be chosen before the first import of protobuf. The price is about 20 us per
field, so messages are kept small.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import Any

os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python"
# The agent forks children only to exec; gRPC's fork handlers would stop its threads for nothing.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
# A refused connection is reported by us; gRPC would write it to stderr as well.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

with warnings.catch_warnings():
    # One warning per field, of a form of generated code that will go on to work in pure Python.
    warnings.simplefilter("ignore", DeprecationWarning)
    from etcd3.etcdrpc import kv_pb2, rpc_pb2

KeyValue = kv_pb2.KeyValue
Event = kv_pb2.Event
Compare = rpc_pb2.Compare
RequestOp = rpc_pb2.RequestOp
TxnRequest = rpc_pb2.TxnRequest
RangeRequest = rpc_pb2.RangeRequest
PutRequest = rpc_pb2.PutRequest
DeleteRangeRequest = rpc_pb2.DeleteRangeRequest
LeaseGrantRequest = rpc_pb2.LeaseGrantRequest
LeaseRevokeRequest = rpc_pb2.LeaseRevokeRequest
LeaseKeepAliveRequest = rpc_pb2.LeaseKeepAliveRequest
AuthenticateRequest = rpc_pb2.AuthenticateRequest
StatusRequest = rpc_pb2.StatusRequest
WatchRequest = rpc_pb2.WatchRequest
WatchCreateRequest = rpc_pb2.WatchCreateRequest
WatchResponse = rpc_pb2.WatchResponse

PROGRESS_REQUEST = b"\x1a\x00"
"""WatchRequest{progress_request: {}}, which etcd 3.4 knows and the generated class does not: field 3, empty."""


@dataclass(frozen=True, slots=True)
class Method:
    """One remote call: its path and the class of its answer."""

    path: str
    answer: Any

    def bind(self, channel: Any) -> Any:
        """The method as a callable of one request, on a blocking or an asyncio channel."""
        return channel.unary_unary(
            self.path, request_serializer=serialized, response_deserializer=self.answer.FromString
        )


TXN = Method("/etcdserverpb.KV/Txn", rpc_pb2.TxnResponse)
LEASE_GRANT = Method("/etcdserverpb.Lease/LeaseGrant", rpc_pb2.LeaseGrantResponse)
LEASE_REVOKE = Method("/etcdserverpb.Lease/LeaseRevoke", rpc_pb2.LeaseRevokeResponse)
AUTHENTICATE = Method("/etcdserverpb.Auth/Authenticate", rpc_pb2.AuthenticateResponse)
STATUS = Method("/etcdserverpb.Maintenance/Status", rpc_pb2.StatusResponse)
# A stream in etcd's interface. One message each way and the end of the stream are the same bytes as a unary
# call, which needs no thread to feed it.
LEASE_KEEP_ALIVE = Method("/etcdserverpb.Lease/LeaseKeepAlive", rpc_pb2.LeaseKeepAliveResponse)
WATCH_PATH = "/etcdserverpb.Watch/Watch"


def serialized(message: Any) -> bytes:
    """Bytes of a request; bytes pass as they are."""
    if isinstance(message, bytes):
        return message
    encoded: bytes = message.SerializeToString()
    return encoded
