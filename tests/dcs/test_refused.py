"""A no of etcd: definite, unless an earlier try of the same call went unanswered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hamgr.dcs.connection import Connections, Kind
from hamgr.dcs.endpoints import EtcdConfig
from hamgr.dcs.errors import LeaseExpired, OutcomeUnknown, StoreError, StoreRefused, TokenRejected, Unanswered
from hamgr.dcs.wire import TXN

LOST = Unanswered("no answer", sent=True)
TURNED_AWAY = Unanswered("no connection", sent=False)
NO = StoreRefused("etcdserver: mvcc: database space exceeded")


@pytest.mark.parametrize(
    ("kind", "tries", "raised"),
    [
        (Kind.REPEATABLE, [NO], StoreRefused),
        (Kind.REPEATABLE, [TURNED_AWAY, NO], StoreRefused),
        (Kind.REPEATABLE, [LOST, NO], OutcomeUnknown),
        (Kind.REPEATABLE, [LOST, TokenRejected("no user")], OutcomeUnknown),
        (Kind.REPEATABLE, [LOST, LeaseExpired("gone")], LeaseExpired),
        (Kind.READ, [LOST, NO], StoreRefused),
    ],
)
async def test_a_no_settles_only_what_it_is_said_to(
    monkeypatch: pytest.MonkeyPatch, kind: Kind, tries: list[StoreError], raised: type[StoreError]
) -> None:
    connections = Connections(EtcdConfig(("127.0.0.1:1", "127.0.0.1:2")))
    answers: Iterator[StoreError] = iter(tries)

    async def once(*_arguments: object) -> None:
        raise next(answers)

    monkeypatch.setattr(connections, "_once", once)
    with pytest.raises(raised) as caught:
        await connections.call(TXN, None, kind, None)
    assert type(caught.value) is raised
    assert next(answers, None) is None
