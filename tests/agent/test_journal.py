"""The log says each decision once, is parsed by programs, and holds no secret."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

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
from hamgr.guard import host
from tests.agent.workbench import TERM, Bench, leading, member

DONE = Outcome(Result.DONE)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    loggers = LOGGER, module.REST_LOGGER
    before = [(each.handlers[:], each.filters[:], each.propagate, each.level) for each in loggers]
    yield
    for logger, (handlers, filters, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.filters[:], logger.propagate = handlers, filters, propagate
        logger.setLevel(level)


def decided(journal: Journal, reason: Reason, rule: str = "steady") -> None:
    journal.decided(leading(), Decision((), reason, rule, None, may_renew=True), now())


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_a_decision_that_is_taken_again_is_written_once(capsys: pytest.CaptureFixture[str]) -> None:
    module.set_up("INFO", as_json=False)
    journal = Journal()
    for _ in range(3):
        decided(journal, because(Code.NO_LEASE))
    decided(journal, because(Code.NO_LEASE), rule="another")
    decided(journal, because(Code.WAIT_LEADER))
    decided(journal, because(Code.NO_LEASE))
    assert len(lines(capsys)) == 3


def test_a_decision_whose_values_count_down_is_written_once(capsys: pytest.CaptureFixture[str]) -> None:
    module.set_up("INFO", as_json=False)
    journal = Journal()
    for left_s in ("0.7", "0.6", "0.5"):
        decided(journal, because(Code.DEADLINE_NEAR, left_s=left_s))
    assert len(lines(capsys)) == 1
    decided(journal, because(Code.OTHER_LEADS, leader="b"))
    decided(journal, because(Code.OTHER_LEADS, leader="c"))
    assert len(lines(capsys)) == 2


def test_json_lines_are_one_object_each_with_what_a_program_asks_for(capsys: pytest.CaptureFixture[str]) -> None:
    module.set_up("INFO", as_json=True)
    journal = Journal()
    decided(journal, because(Code.OTHER_LEADS, leader='b "quoted"\nand broken'))
    journal.ended(Fence(), Outcome(Result.FAILED, "timeout", "the guard is silent"), now(), now())
    decision, end = (json.loads(line) for line in lines(capsys))
    assert decision["level"] == "WARNING"
    assert (decision["rule"], decision["reason"], decision["term"]) == ("steady", "other_leads", TERM)
    assert decision["leader"] == 'b "quoted"\nand broken'
    assert decision["message"]
    assert (end["action"], end["result"], end["code"], end["level"]) == ("Fence", "failed", "timeout", "WARNING")
    assert decision["time"].endswith("Z")


def test_a_defect_is_one_json_line_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    module.set_up("INFO", as_json=True)
    try:
        raise ZeroDivisionError("a defect")
    except ZeroDivisionError:
        LOGGER.exception("ending")
    (line,) = lines(capsys)
    assert "ZeroDivisionError: a defect" in json.loads(line)["traceback"]


def test_in_systemds_journal_each_line_has_its_priority_and_no_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dates lines itself, and what has no priority counts as information."""
    with (tmp_path / "journal").open("w") as stream:
        found = os.fstat(stream.fileno())
        monkeypatch.setattr(host.os, "fstat", lambda _: found)
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        monkeypatch.setattr(module.sys, "stderr", stream)
        module.set_up("DEBUG", as_json=False)
        LOGGER.debug("routine")
        decided(Journal(), because(Code.LEADING, term=TERM))
        LOGGER.warning("said by a server: %s", "two\nlines")
        try:
            raise ZeroDivisionError("a defect")
        except ZeroDivisionError:
            LOGGER.exception("ending")
        module.complain("first\nsecond")
    routine, decision, quoted, ending, *traceback, first, second = (tmp_path / "journal").read_text().splitlines()
    assert (routine, decision) == ("<7>routine", f"<6>leading in term {TERM}")
    assert (quoted, ending) == ("<4>said by a server: two lines", "<3>ending")
    assert traceback
    assert all(line.startswith("<3>") for line in traceback)
    assert (first, second) == ("<3>first", "<3>second")


def test_elsewhere_an_error_at_the_start_is_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    module.complain("first\nsecond")
    assert lines(capsys) == ["first", "second"]


def test_the_term_is_a_number_in_every_line(capsys: pytest.CaptureFixture[str]) -> None:
    module.set_up("INFO", as_json=True)
    decided(Journal(), because(Code.LEADING, term=TERM))
    (line,) = lines(capsys)
    assert json.loads(line)["term"] == TERM


def test_routine_that_went_well_is_left_to_debug(capsys: pytest.CaptureFixture[str]) -> None:
    module.set_up("INFO", as_json=False)
    journal = Journal()
    for action in (PutStatus(Status()), PutMember(member("a")), EnsureSentry(), AskPeers(TERM, (), 5.0)):
        journal.ended(action, DONE, now(), now())
    assert lines(capsys) == []
    journal.ended(PutStatus(Status()), Outcome(Result.FAILED, "store", "no answer"), now(), now())
    journal.ended(Fence(), DONE, now(), now())
    assert len(lines(capsys)) == 2


def test_what_is_tried_again_for_days_is_told_when_it_ends_in_another_way(capsys: pytest.CaptureFixture[str]) -> None:
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
    assert len(lines(capsys)) == 5


@pytest.mark.parametrize("code", [Code.ILL, Code.ILL_AND_NONE_BETTER, Code.PUTTING_DOWN, Code.ALONE, Code.WAIT_QUORUM])
def test_what_a_person_should_look_at_is_a_warning(capsys: pytest.CaptureFixture[str], code: Code) -> None:
    module.set_up("WARNING", as_json=False)
    decided(Journal(), because(code, vital="commit", problem="no space left"))
    assert len(lines(capsys)) == 1


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


async def test_no_password_gets_into_the_log(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    module.set_up("DEBUG", as_json=True)
    secret = "secret-super"
    wanted = bench.world.wanted()
    config = replace(wanted, superuser=replace(wanted.superuser, password=secret))
    bench.world.wanted = lambda: config
    bench.server.answers["checkpoint"] = OSError("no space left")
    outcome = await execute(bench.world, Checkpoint(AFTER_PROMOTION))
    Journal().ended(Checkpoint(AFTER_PROMOTION), outcome, now(), now())
    LOGGER.info("%s %r", config, bench.world)
    written = capsys.readouterr().err
    assert "no space left" in written
    assert secret not in written
