"""The page of a report, and the file that it is made from: the recorded one is of real drills."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click
import pytest
from click.testing import CliRunner

from hamgr.drill.archive import BadReport, Report, read_json, write_json
from hamgr.drill.commands import drill
from hamgr.drill.course import Change, Span, edges_of, stages_of
from hamgr.drill.page import page_of
from hamgr.drill.picture import ms_fine
from hamgr.drill.run import Outcome
from hamgr.drill.summary import ms, summarised

RECORDED = Path(__file__).with_name("recorded_drills.json")
SVG = re.compile(r"<svg.*?</svg>", re.DOTALL)


@pytest.fixture(scope="module")
def report() -> Report:
    return read_json(RECORDED)


def one_of(report: Report, fault: str) -> Outcome:
    return next(outcome for outcome in report.outcomes if outcome.fault == fault)


def page_with(report: Report, *outcomes: Outcome) -> str:
    return page_of(replace(report, outcomes=outcomes))


def words_of(page: str) -> str:
    """What a reader sees, without tags."""
    found: list[str] = []
    parser = HTMLParser()
    parser.handle_data = found.append  # type: ignore[method-assign]
    parser.feed(page)
    return " ".join(found)


def pictures_of(page: str) -> Iterator[ElementTree.Element]:
    for text in SVG.findall(page):
        yield ElementTree.fromstring(text)


def kinds_of(picture: ElementTree.Element) -> list[str]:
    return [element.get("class", "") for element in picture.iter()]


def texts_of(picture: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in picture.iter("text")]


def test_each_judged_drill_has_one_well_formed_picture(report: Report) -> None:
    assert len(list(pictures_of(page_of(report)))) == len(report.outcomes) == 3


def test_page_fetches_nothing(report: Report) -> None:
    page = page_of(report)
    assert not re.search(r"<(script|link|img|iframe|object)|@import|url\(|\bsrc=|https?://", page)
    assert set(re.findall(r'href="([^"]*)"', page)) == {"#drill-1", "#drill-2", "#drill-3"}


def test_figures_of_the_page_are_those_of_the_file(report: Report) -> None:
    value = json.loads(RECORDED.read_text())
    words = words_of(page_of(report))
    for outcome in value["outcomes"]:
        verdict = outcome["verdict"]
        assert (
            f"{verdict['write_gap_s'] * 1000:.0f} ms (before the fault {verdict['quiet_gap_s'] * 1000:.0f} ms)" in words
        )
        assert f"{verdict['acknowledged']} writes" in words
        assert " then ".join(verdict["leaderships"]) in words
        for name, seconds in verdict["rejoin_s"].items():
            assert not seconds or f"{name} {seconds:.2f} s" in words
    conditions = value["conditions"]
    for name in ("hamgr", "postgresql", "etcd", "began_at", "command", "machine"):
        assert conditions[name] in words


def test_stages_of_a_record_stand_in_picture_and_table(report: Report) -> None:
    outcome = one_of(report, "switchover")
    assert outcome.record is not None
    page = page_with(report, outcome)
    (picture,) = pictures_of(page)
    stages = stages_of(outcome.record)
    assert [stage["name"] for stage in stages] == ["detect", "fence", "vote", "elect", "promote", "writable", "routed"]
    for stage in stages:
        start_s, end_s = edges_of(stage) or (0.0, 0.0)
        assert ms_fine(end_s - start_s) in texts_of(picture)
        assert stage["name"] in texts_of(picture)
        assert ms(end_s) in words_of(page)
    assert kinds_of(picture).count("stage") == len(stages)


def test_picture_says_how_the_two_clocks_were_brought_together(report: Report) -> None:
    page = page_with(report, one_of(report, "host-lost"))
    (picture,) = pictures_of(page)
    assert "align" in kinds_of(picture)
    assert any("first acknowledged a write" in text for text in texts_of(picture))
    assert "measured on the new leader's clock" in words_of(page)


def test_stage_that_nobody_measured_is_said_to_be_unknown(report: Report) -> None:
    (picture,) = pictures_of(page_with(report, one_of(report, "host-lost")))
    assert texts_of(picture).count("unknown: nobody measured it") == 1


def test_stage_over_budget_is_marked(report: Report) -> None:
    outcome = one_of(report, "switchover")
    assert outcome.course is not None
    (change,) = outcome.course.changes
    late = Change({**change.record, "over_budget": ["vote"]}, change.zero_s)
    page = page_with(report, replace(outcome, course=replace(outcome.course, changes=(late,))))
    (picture,) = pictures_of(page)
    assert [text for text in texts_of(picture) if "OVER BUDGET" in text]
    assert "stage over" in kinds_of(picture)


def test_two_primaries_are_marked_in_both_panels_and_in_words(report: Report) -> None:
    outcome = one_of(report, "switchover")
    assert outcome.course is not None
    close = outcome.course.close
    pair = Span((close.begin_s + close.end_s) / 2, close.end_s, "db1/1 and db2/2")
    page = page_with(report, replace(outcome, course=replace(outcome.course, two_primaries=(pair,))))
    (picture,) = pictures_of(page)
    assert kinds_of(picture).count("two") == 2
    words = f"TWO PRIMARIES {ms(pair.end_s - pair.begin_s)}"
    assert texts_of(picture).count(words) == 2
    assert "db1/1 and db2/2" in words_of(page)


def test_change_that_cannot_be_placed_is_said_to_have_no_place(report: Report) -> None:
    outcome = one_of(report, "switchover")
    assert outcome.course is not None
    (change,) = outcome.course.changes
    lost = replace(outcome.course, changes=(replace(change, zero_s=None),))
    (picture,) = pictures_of(page_with(report, replace(outcome, course=lost)))
    assert "stage" not in kinds_of(picture)
    assert any("have no place" in text for text in texts_of(picture))


def test_drill_that_was_not_finished_says_why_and_has_no_picture(report: Report) -> None:
    page = page_with(report, Outcome("host-lost", 5, None, error="not settled after 120 s"))
    assert not SVG.search(page)
    assert "NOT FINISHED" in words_of(page)
    assert "not settled after 120 s" in words_of(page)


def test_whatever_stands_in_a_report_is_shown_as_text(report: Report) -> None:
    evil = '<script>alert("1")</script>&\x00\x1b]]>'
    outcome = one_of(report, "switchover")
    assert outcome.course is not None
    (change,) = outcome.course.changes
    record = {**change.record, "cause": evil, "former": evil, "lsn": evil, "ballots": {evil: evil}, "term": [evil]}
    record["stages"] = [*change.record["stages"], {"name": evil, "start_s": 0.1, "end_s": 0.2, "by": evil}]
    rows = tuple(replace(row, host=evil, writer=evil) for row in outcome.course.whole.rows)
    course = replace(
        outcome.course,
        changes=(Change(record, change.zero_s),),
        whole=replace(outcome.course.whole, rows=rows),
    )
    page = page_of(
        Report(
            replace(report.conditions, command=evil, machine=evil),
            (replace(outcome, fault=evil, title=evil, error=evil, course=course),),
        )
    )
    assert "<script" not in page
    assert not {"\x00", "\x1b"} & set(page)
    assert len(list(pictures_of(page))) == 1
    assert '<script>alert("1")</script>&' in words_of(page)


def test_record_of_wrong_types_is_drawn_as_far_as_it_goes(report: Report) -> None:
    outcome = one_of(report, "switchover")
    assert outcome.course is not None
    broken: list[dict[str, Any]] = [
        {},
        {"stages": [1, {"name": 2}, {"name": "vote", "start_s": "x", "end_s": 1}], "ballots": [], "budget_s": 3},
        {"stages": [{"name": "vote", "start_s": 1e300, "end_s": -1e300}], "over_budget": 7, "term": None},
    ]
    course = replace(outcome.course, changes=tuple(Change(record, 0.0) for record in broken))
    assert len(list(pictures_of(page_with(report, replace(outcome, course=course))))) == 1


# -- the file ----------------------------------------------------------------------------------------------------


def test_report_that_is_read_and_written_again_is_the_same(report: Report, tmp_path: Path) -> None:
    write_json(tmp_path / "again.json", report)
    assert json.loads((tmp_path / "again.json").read_text()) == json.loads(RECORDED.read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["again.json"]


def test_summary_in_the_file_has_the_median_of_the_runs(report: Report) -> None:
    outcome = one_of(report, "switchover")
    assert outcome.verdict is not None
    runs = [replace(outcome, verdict=replace(outcome.verdict, write_gap_s=gap_s)) for gap_s in (0.3, 0.1, 0.9)]
    (row,) = summarised(runs)
    assert (row.runs, row.gap_median_s, row.gap_max_s) == (3, 0.3, 0.9)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON, or cut short"),
        (RECORDED.read_text()[:-200], "not JSON, or cut short"),
        ('{"format": NaN}', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not a report of drills"),
        ('{"plan": [{"Plan": {"Node Type": "Result"}}]}', "not a report of drills"),
        ('{"format": "hamgr-drill/2"}', "use the hamgr that wrote it"),
        ('{"format": "hamgr-drill/1", "outcomes": []}', "conditions"),
        (RECORDED.read_text().replace('"write_gap_s": 0.', '"write_gap_s": "x0.', 1), "not JSON"),
        (RECORDED.read_text().replace('"write_gap_s":', '"write_gap":'), "outcomes.0.verdict.write_gap_s"),
        (RECORDED.read_text().replace('"bins": 240', '"bins": 241'), "count"),
    ],
)
def test_file_that_is_no_report_is_refused_with_its_name_and_what_is_wrong(
    text: str, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "drills.json"
    path.write_text(text)
    with pytest.raises(BadReport, match=re.escape(says)) as refusal:
        read_json(path)
    assert str(path) in str(refusal.value)
    assert len(str(refusal.value)) < 1000


def test_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff\xfe\x00PGDMP")
    with pytest.raises(BadReport, match="not JSON"):
        read_json(tmp_path / "x")


# -- the command -------------------------------------------------------------------------------------------------


def called(*arguments: str | Path) -> click.testing.Result:
    return CliRunner().invoke(drill, [str(argument) for argument in arguments])


def test_page_is_made_from_the_file_alone(report: Report, tmp_path: Path) -> None:
    result = called("--report", RECORDED, "--html", tmp_path / "drills.html")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "drills.html").read_text() == page_of(report)


def test_bad_file_makes_no_page_and_the_command_fails(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{}")
    result = called("--report", tmp_path / "bad.json", "--html", tmp_path / "drills.html")
    assert result.exit_code == 2
    assert "bad.json: not a report of drills" in result.output
    assert not (tmp_path / "drills.html").exists()
    assert called("--report", tmp_path / "absent.json", "--html", tmp_path / "drills.html").exit_code == 2


def test_page_from_a_file_breaks_nothing(tmp_path: Path) -> None:
    result = called("switchover", "--report", RECORDED, "--html", tmp_path / "drills.html")
    assert result.exit_code == 2
    assert "takes no fault" in result.output


def test_file_that_cannot_be_written_is_refused_before_the_first_drill(tmp_path: Path) -> None:
    result = called("switchover", "--html", tmp_path / "absent" / "drills.html")
    assert result.exit_code == 2
    assert "no file can be written" in result.output
