"""What `journalctl -u hamgr` shows."""

from __future__ import annotations

import re

import psycopg
import pytest

from tests.systemd.containers import ROOT, Host, wait_until
from tests.systemd.trio import Trio

pytestmark = pytest.mark.cluster

DATE = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d")
SYSLOG = {
    "log_destination": "syslog",
    "log_line_prefix": "",
    "syslog_sequence_numbers": "off",
    "syslog_split_messages": "off",
}
"""README.md, "On call"."""


def by(entries: list[dict[str, str]], program: str) -> list[dict[str, str]]:
    return [entry for entry in entries if entry.get("_COMM") == program]


def test_lines_of_guard_and_agent_have_priorities_and_one_date(leader: Host) -> None:
    guard, agent, since = leader.guard, leader.agent, leader.cursor()
    leader.run(f"kill -KILL {agent}")
    wait_until("another agent", lambda: leader.agent not in (0, agent))
    leader.run(f"kill -KILL {guard}")
    wait_until("another guard", lambda: leader.guard not in (0, guard))
    news = f"hamgr-guard: adopted agent {leader.agent}"
    wait_until("it has told", lambda: any(entry["MESSAGE"] == news for entry in leader.journal(since)))
    entries = leader.journal(since)
    # The journal may come too late to learn the name of a process that has ended.
    guards = [entry for entry in entries if entry["MESSAGE"].startswith("hamgr-guard: ")]
    mine = guards + by(entries, "hamgr-agent")
    assert {"4", "6"} <= {entry["PRIORITY"] for entry in mine}
    # "died of signal 9", or, from a guard that is not its parent, "ended in an unknown way"
    (death,) = [entry for entry in guards if entry["MESSAGE"].endswith("next one at once")]
    assert death["PRIORITY"] == "4"
    for entry in mine:
        assert not DATE.match(entry["MESSAGE"]), entry["MESSAGE"]
        assert not entry["MESSAGE"].startswith("<"), entry["MESSAGE"]
        assert "\n" not in entry["MESSAGE"]


def test_postgresqls_own_messages_are_one_entry_each_where_the_readme_is_followed(settled: Trio, leader: Host) -> None:
    for line in SYSLOG:
        assert line in (ROOT / "README.md").read_text()
    settled.set_dynamic({"postgresql": {"parameters": SYSLOG}})
    try:
        with settled.connect(leader) as connection:
            wait_until(
                "it is in force",
                lambda: (
                    connection.execute("SHOW log_destination").fetchone() == ("syslog",)
                    and connection.execute("SHOW syslog_split_messages").fetchone() == ("off",)
                ),
            )
            since = leader.cursor()
            with pytest.raises(psycopg.errors.DivisionByZero):
                connection.execute("SELECT 1 /\n0")
        entries = wait_until("its message", lambda: by(leader.journal(since), "postgres"))
        (told,) = [entry for entry in entries if "division by zero" in entry["MESSAGE"]]
        assert told["MESSAGE"].startswith("ERROR:  division by zero")
        assert told["MESSAGE"].endswith("SELECT 1 /\n\t0")
        assert (told["PRIORITY"], told["SYSLOG_IDENTIFIER"]) == ("4", "postgres")
    finally:
        settled.set_dynamic({"postgresql": {"parameters": dict.fromkeys(SYSLOG)}})
