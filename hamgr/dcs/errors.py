"""What can go wrong with the store, as few families; each says whether trying again may help."""

from __future__ import annotations

from typing import ClassVar

import grpc


class StoreError(Exception):
    """Root of the family. `code` is for programs, `hint` tells a person what to look at."""

    code: ClassVar[str] = "store"
    retryable: ClassVar[bool] = False
    hint: ClassVar[str] = ""


class StoreUnavailable(StoreError):
    """No proper answer in time; nothing was changed by the call."""

    code = "store_unavailable"
    retryable = True
    hint = "check that a majority of the etcd members runs and that this host reaches one of them"


class OutcomeUnknown(StoreError):
    """A change was sent and not answered: it may have taken effect, or may still do so."""

    code = "outcome_unknown"
    retryable = True
    hint = "read the keys again to see whether the change took effect"


class StoreRefused(StoreError):
    """etcd answered, and it is no. Trying the same again gives the same answer."""

    code = "store_refused"
    hint = "check user, password, permissions and certificates of the etcd section, and etcd's alarms"


class StoreTooOld(StoreRefused):
    """The etcd that answers is of a version that hamgr does not work with."""

    code = "store_too_old"
    hint = "install a newer etcd"


class LeaseExpired(StoreRefused):
    """The lease does not exist (any more), nor do the keys that hung on it."""

    code = "lease_expired"
    hint = "the agent was away for longer than the ttl, or the lease was revoked"


class TokenRejected(StoreRefused):
    """The authentication token is not valid (any more): a fresh one is needed."""

    code = "token_rejected"


class Unanswered(StoreError):
    """One try at one endpoint failed. `sent` is False when etcd certainly did not act on it. Not for callers."""

    code = "unanswered"
    retryable = True

    def __init__(self, text: str, sent: bool) -> None:
        super().__init__(text)
        self.sent = sent


_NOT_ACTED_ON = ("failed to connect", "etcdserver: no leader", "too many requests", "not capable")
"""Texts of gRPC (no connection) and etcd (turned away before the proposal), etcd 3.4 rpctypes/error.go."""

_STALE_TOKEN = (
    "invalid auth token",
    "revision in header is old",
    "revision of auth store is old",
    "user name is empty",
)

_NO_ANSWER = frozenset(
    (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.DATA_LOSS,
    )
)


def error_of(status: grpc.StatusCode, details: str | None, host: str) -> StoreError:
    """The error that a failed call at `host` means, by gRPC status and etcd's text."""
    text = f"etcd at {host}: {details or status.name}"
    said = (details or "").lower()
    if status is grpc.StatusCode.UNAUTHENTICATED or any(part in said for part in _STALE_TOKEN):
        return TokenRejected(text)
    if any(part in said for part in _NOT_ACTED_ON):
        return Unanswered(text, sent=False)
    if "lease not found" in said:
        return LeaseExpired(text)
    if status in _NO_ANSWER:
        return Unanswered(text, sent=True)
    return StoreRefused(text)
