"""The log says each decision once, is parsed by programs, and holds no secret."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import replace

import pytest

from hamgr.agent import journal as module
from hamgr.agent.clock import now
from hamgr.agent.executor import execute
from hamgr.agent.journal import LOGGER, Journal
from hamgr.core.actions import (
    AFTER_PROMOTION,
    AskPeers,
    Checkpoint,
    EnsureSentry,
    Fence,
    PutMember,
    PutStatus,
    ReleasePools,
)
from hamgr.core.cluster import Status
from hamgr.core.decide import Decision
from hamgr.core.reasons import Code, Reason, because
from hamgr.core.result import Outcome, Result
from hamgr.core.sentences import sentence
from hamgr.core.units import Instant
from tests.agent.workbench import TERM, Bench, leading, member

DONE = Outcome(Result.DONE)
PATIENCE_S = 20.0

pytestmark = pytest.mark.usefixtures("_log_as_before")


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a thread may have to wait for its turn."""
    monkeypatch.setattr(module, "LAST_LINES_S", PATIENCE_S)


def decided(journal: Journal, reason: Reason, rule: str = "steady") -> None:
    journal.decided(leading(), Decision((), reason, rule, None, may_renew=True), now())


def lines(capfd: pytest.CaptureFixture[str]) -> list[str]:
    for handler in LOGGER.handlers:
        handler.flush()
    return capfd.readouterr().err.splitlines()


def test_a_decision_that_is_taken_again_is_written_once(capfd: pytest.CaptureFixture[str]) -> None:
    module.set_up("INFO", as_json=False)
    journal = Journal()
    for _ in range(3):
        decided(journal, because(Code.NO_LEASE))
    decided(journal, because(Code.NO_LEASE), rule="another")
    decided(journal, because(Code.WAIT_LEADER))
    decided(journal, because(Code.NO_LEASE))
    assert len(lines(capfd)) == 3


def test_a_decision_whose_values_count_down_is_written_once(capfd: pytest.CaptureFixture[str]) -> None:
    module.set_up("INFO", as_json=False)
    journal = Journal()
    for left_s in ("0.7", "0.6", "0.5"):
        decided(journal, because(Code.DEADLINE_NEAR, left_s=left_s))
    assert len(lines(capfd)) == 1
    decided(journal, because(Code.OTHER_LEADS, leader="b"))
    decided(journal, because(Code.OTHER_LEADS, leader="c"))
    assert len(lines(capfd)) == 2


def test_json_lines_are_one_object_each_with_what_a_program_asks_for(capfd: pytest.CaptureFixture[str]) -> None:
    module.set_up("INFO", as_json=True)
    journal = Journal()
    decided(journal, because(Code.OTHER_LEADS, leader='b "quoted"\nand broken'))
    journal.ended(Fence(), Outcome(Result.FAILED, "timeout", "the guard is silent"), now(), now())
    decision, end = (json.loads(line) for line in lines(capfd))
    assert decision["level"] == "WARNING"
    assert (decision["rule"], decision["reason"], decision["term"]) == ("steady", "other_leads", TERM)
    assert decision["leader"] == 'b "quoted"\nand broken'
    assert decision["message"]
    assert (end["action"], end["result"], end["code"], end["level"]) == ("Fence", "failed", "timeout", "WARNING")
    assert decision["time"].endswith("Z")


def test_a_defect_is_one_json_line_with_its_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    module.set_up("INFO", as_json=True)
    try:
        raise ZeroDivisionError("a defect")
    except ZeroDivisionError:
        LOGGER.exception("ending")
    (line,) = lines(capfd)
    assert "ZeroDivisionError: a defect" in json.loads(line)["traceback"]


def test_in_systemds_journal_each_line_has_its_priority_and_no_date(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dates lines itself, and what has no priority counts as information."""
    found = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    module.set_up("DEBUG", as_json=False)
    LOGGER.debug("routine")
    decided(Journal(), because(Code.LEADING, term=TERM))
    LOGGER.warning("said by a server: %s", "two\nlines")
    try:
        raise ZeroDivisionError("a defect")
    except ZeroDivisionError:
        LOGGER.exception("ending")
    routine, decision, quoted, ending, *traceback = lines(capfd)
    assert (routine, decision) == ("<7>routine", f"<6>leading in term {TERM}")
    assert (quoted, ending) == ("<4>said by a server: two lines", "<3>ending")
    assert traceback
    assert all(line.startswith("<3>") for line in traceback)
    module.complain("first\nsecond")
    assert lines(capfd) == ["<3>first", "<3>second"]


def test_elsewhere_an_error_at_the_start_is_as_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    module.complain("first\nsecond")
    assert lines(capfd) == ["first", "second"]


def test_the_term_is_a_number_in_every_line(capfd: pytest.CaptureFixture[str]) -> None:
    module.set_up("INFO", as_json=True)
    decided(Journal(), because(Code.LEADING, term=TERM))
    (line,) = lines(capfd)
    assert json.loads(line)["term"] == TERM


def test_routine_that_went_well_is_left_to_debug(capfd: pytest.CaptureFixture[str]) -> None:
    module.set_up("INFO", as_json=False)
    journal = Journal()
    for action in (PutStatus(Status()), PutMember(member("a")), EnsureSentry(), AskPeers(TERM, (), 5.0)):
        journal.ended(action, DONE, now(), now())
    assert lines(capfd) == []
    journal.ended(PutStatus(Status()), Outcome(Result.FAILED, "store", "no answer"), now(), now())
    journal.ended(Fence(), DONE, now(), now())
    assert len(lines(capfd)) == 2


def test_what_is_tried_again_for_days_is_told_when_it_ends_in_another_way(capfd: pytest.CaptureFixture[str]) -> None:
    module.set_up("INFO", as_json=False)
    journal, refused = Journal(), Outcome(Result.FAILED, "route", "pool a:1 was not released: refused")
    ends = [
        refused,
        refused,
        refused,
        replace(refused, text="pool a:1 was not released: no answer"),
        refused,
        DONE,
        refused,
    ]
    for number, end in enumerate(ends):
        journal.ended(ReleasePools(TERM, Instant(float(number))), end, now(), now())
    assert len(lines(capfd)) == 5


@pytest.mark.parametrize("code", [Code.ILL, Code.ILL_AND_NONE_BETTER, Code.PUTTING_DOWN, Code.ALONE, Code.WAIT_QUORUM])
def test_what_a_person_should_look_at_is_a_warning(capfd: pytest.CaptureFixture[str], code: Code) -> None:
    module.set_up("WARNING", as_json=False)
    decided(Journal(), because(code, vital="commit", problem="no space left"))
    assert len(lines(capfd)) == 1


def test_every_reason_has_a_line_even_without_values(caplog: pytest.LogCaptureFixture) -> None:
    LOGGER.propagate = True
    LOGGER.setLevel(logging.INFO)
    journal = Journal()
    for code in Code:
        decided(journal, Reason(code, tuple((name, "1") for name in _names(code))))
    assert len(caplog.records) == len(Code)


def _names(code: Code) -> list[str]:
    """The values that a reason's sentence asks for, found by giving it none, then one more at a time."""
    names: list[str] = []
    while True:
        try:
            sentence(Reason(code, tuple((name, "x") for name in names)))
        except KeyError as missing:
            names.append(str(missing.args[0]))
        else:
            return names


async def test_no_password_gets_into_the_log(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    module.set_up("DEBUG", as_json=True)
    secret = "secret-super"
    wanted = bench.world.wanted()
    config = replace(wanted, superuser=replace(wanted.superuser, password=secret))
    bench.world.wanted = lambda: config
    bench.server.answers["checkpoint"] = OSError("no space left")
    outcome = await execute(bench.world, Checkpoint(AFTER_PROMOTION))
    Journal().ended(Checkpoint(AFTER_PROMOTION), outcome, now(), now())
    LOGGER.info("%s %r", config, bench.world)
    written = "\n".join(lines(capfd))
    assert "no space left" in written
    assert secret not in written
