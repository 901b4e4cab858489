"""Lanes: at most one action of a lane is under way at a time; `OVERTAKING` goes before what runs in its own."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Lane(Enum):
    """Things that must not be done at the same time share a lane."""

    SERVER = "server"
    LEADERSHIP = "leadership"
    LEASE = "lease"
    BALLOT = "ballot"
    REQUEST = "request"
    MEMBER = "member"
    STATUS = "status"
    RECORD = "record"
    HISTORY = "history"
    ROSTER = "roster"
    SLOTS = "slots"
    CONFIG = "config"
    CHECKPOINT = "checkpoint"
    SYNC = "sync"
    SENTRY = "sentry"
    BIRTH = "birth"
    PEERS = "peers"
    POOLS = "pools"
    BALANCERS = "balancers"
    TARGETS = "targets"
    PROCESS = "process"


@dataclass(frozen=True, slots=True)
class Upstream:
    """A server to stream, clone or rewind from. `name` is empty when none is known yet."""

    name: str = ""
    host: str = ""
    port: int = 5432

    @property
    def address(self) -> str:
        """As `ServerView.upstream` tells it."""
        return f"{self.host}:{self.port}"
