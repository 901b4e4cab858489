"""A cluster is settled by its servers' own word, whoever manages them."""

from __future__ import annotations

import pytest

from hamgr.bench.stage import sole_primary, unsettled
from hamgr.drill.server import Standing

PRIMARY = Standing(is_primary=True, is_streaming=False, timeline=3)
STREAMING = Standing(is_primary=False, is_streaming=True, timeline=3)


def test_one_primary_and_streaming_standbys_are_settled() -> None:
    standings = {"db1": STREAMING, "db2": PRIMARY, "db3": STREAMING}
    assert sole_primary(standings) == "db2"
    assert unsettled(standings) == ""


@pytest.mark.parametrize(
    ("standings", "reason"),
    [
        ({"db1": STREAMING, "db2": STREAMING}, "no primary, or several: db1 is standby, db2 is standby"),
        ({"db1": PRIMARY, "db2": PRIMARY}, "no primary, or several: db1 is primary, db2 is primary"),
        ({"db1": None, "db2": STREAMING}, "no primary, or several: db1 is silent, db2 is standby"),
        ({"db1": PRIMARY, "db2": None}, "db2: postgres does not answer"),
        ({"db1": PRIMARY, "db2": Standing(False, False, 3)}, "db2 does not stream"),
        ({"db1": PRIMARY, "db2": Standing(False, True, 2)}, "db2 streams timeline 2, db1 writes 3"),
    ],
)
def test_anything_else_is_not_and_says_why(standings: dict[str, Standing | None], reason: str) -> None:
    assert unsettled(standings) == reason
