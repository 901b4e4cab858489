"""docs/monitoring.md names what there is, and all of it."""

from __future__ import annotations

import re
from pathlib import Path

from fake_agent import FakeAgent, primary_state

from hamgr.api.metric_table import PAGE, renewed
from hamgr.api.safe import Desk
from hamgr.cli.commands_dsn import ATTRIBUTES
from hamgr.core.health import CHECK_OF_PATH
from hamgr.core.portrait import PATRONI_VERSION, guard_body

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / PAGE).read_text()


def section(title: str) -> str:
    """What stands below a heading of the second rank."""
    return TEXT.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_its_tables_of_metrics_are_up_to_date() -> None:
    assert renewed(TEXT) == TEXT, "run python -m hamgr.api.metric_table"


def test_its_endpoints_are_those_that_answer() -> None:
    rows = [line.split("|")[1] for line in section("Endpoints").splitlines() if line.startswith("| `")]
    named = {path for row in rows for path in re.findall(r"`(/[a-z]*)`", row)}
    desk = Desk(FakeAgent(primary_state()))
    information = {*desk.at_once, *desk.reading}
    assert information <= named
    assert named <= {*information, *CHECK_OF_PATH}


def test_it_says_what_the_status_shows_of_the_guard() -> None:
    agent = FakeAgent(primary_state())
    assert agent.guard is not None
    for key in guard_body(agent.state, agent.guard)["guard"]:
        assert f"`{key}`" in section("Endpoints"), key


def test_versions_and_words_are_those_of_the_code() -> None:
    assert PATRONI_VERSION in section("Endpoints")
    assert PATRONI_VERSION in section("check_patroni")
    for word in ("primary", "standby", "prefer-standby"):
        assert word in ATTRIBUTES
        assert f"`{word}`" in section("Addresses, poolers, templates")


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", TEXT):
        assert ((ROOT / PAGE).parent / target).exists(), target
