"""The comparison: shown, drawn, put into a page, and the same on every machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as Xml
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hamgr.sim.commands import simulate
from hamgr.sim.jobs import WorkerLost, run_all
from hamgr.sim.lab.page import NoPlace, fill_page
from hamgr.sim.lab.protocols import BY_KEY

SMALL = (
    "--compare", "--seeds", "2", "--sizes", "3,5", "--fault", "crash", "--fault", "cut-leader", "--jobs", "1",
    "--protocol", "bully", "--protocol", "raft", "--protocol", "polling-tight", "--protocol", "hamgr",
)  # fmt: skip
SMALLEST = ("--compare", "--seeds", "1", "--sizes", "3", "--fault", "crash", "--fault", "cut-leader", "--jobs", "2")


def run(*words: str) -> Result:
    return CliRunner().invoke(simulate, list(words))


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("compared")
    page = folder / "page.md"
    page.write_text("# Page\n\n<!-- figures: gap -->\n<!-- end of figures -->\n\nText\n\n<!-- figures: command -->\n"
                    "old\n<!-- end of figures -->\n")  # fmt: skip
    words = (*SMALL, "--json", str(folder / "found.json"), "--picture", str(folder / "it.svg"), "--page", str(page))
    return folder, run(*words)


def test_a_comparison_shows_every_protocol_and_fault(compared: tuple[Path, Result]) -> None:
    _, result = compared
    assert result.exit_code == 0, result.output
    for word in ("bully", "polling-tight", "crash", "cut-leader", "by number of members", "150-300"):
        assert word in result.output


def test_its_json_has_sources_cells_and_no_violation(compared: tuple[Path, Result]) -> None:
    folder, _ = compared
    found = json.loads((folder / "found.json").read_text())
    assert {each["key"] for each in found["protocols"]} == {"bully", "raft", "polling-tight", "hamgr"}
    assert len(found["cells"]) == 4 * 2 * 2
    assert all(each["source"] and each["weaknesses"] for each in found["protocols"])
    assert not any(cell["violations"] for cell in found["cells"])
    gaps = {cell["protocol"]: cell["gap_p50_s"] for cell in found["cells"] if cell["fault"] == "crash"}
    assert gaps["raft"] < gaps["hamgr"] < gaps["polling-tight"]


def test_its_picture_is_an_svg_that_names_protocols_and_faults(compared: tuple[Path, Result]) -> None:
    folder, _ = compared
    texts = [each.text for each in Xml.parse(folder / "it.svg").iter() if each.tag.endswith("text")]
    assert "polling-tight" in texts
    assert "leader's host lost" in texts


def test_figures_stand_between_the_markers_of_the_page(compared: tuple[Path, Result]) -> None:
    folder, _ = compared
    page = (folder / "page.md").read_text()
    assert page.startswith("# Page\n\n<!-- figures: gap -->\n| fault | bully |")
    assert "\nText\n" in page
    assert "hamgr simulate --compare --seeds 2" in page
    assert "old" not in page


def test_a_page_without_a_place_is_refused_and_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    with pytest.raises(NoPlace):
        fill_page(page, {"gap": "x"})
    page.write_text("<!-- figures: unheard -->\n<!-- end of figures -->\n")
    with pytest.raises(NoPlace, match="unheard"):
        fill_page(page, {"gap": "x"})
    assert "x" not in page.read_text()


def test_a_png_is_drawn_as_well(tmp_path: Path) -> None:
    picture = tmp_path / "it.png"
    words = ("--compare", "--seeds", "1", "--sizes", "3", "--fault", "crash", "--protocol", "bully", "--jobs", "1")
    assert run(*words, "--picture", str(picture)).exit_code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--sizes", "2"), "--sizes"),
        (("--sizes", "3,x"), "--sizes"),
        (("--picture", "/nowhere/it.svg"), "/nowhere"),
        (("--picture", "it.jpg"), ".svg"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_reason(words: tuple[str, ...], reason: str) -> None:
    result = run("--compare", *words)
    assert result.exit_code == 4
    assert reason in result.output


def test_the_page_on_elections_describes_every_protocol() -> None:
    page = (Path(__file__).parents[2] / "docs" / "elections.md").read_text()
    for protocol in BY_KEY.values():
        assert f"`{protocol.key}`" in page
        assert all(weakness in page for weakness in protocol.weaknesses), protocol.key
    assert "hamgr simulate --compare" in page


@pytest.mark.parametrize(
    "words",
    [
        (*SMALLEST, "--json", "-", "--picture", "it.svg"),
        ("--runs", "14", "--jobs", "1", "--json", "-"),
        ("--runs", "8", "--sweep", "ttl=3..6/3", "--jobs", "2", "--json", "-", "--picture", "it.svg"),
    ],
    ids=["compare", "forecast", "sweep"],
)
def test_the_same_words_give_the_same_bytes_under_another_hash_seed(words: tuple[str, ...], tmp_path: Path) -> None:
    found = []
    for hash_seed in ("1", "2"):
        folder = tmp_path / hash_seed
        folder.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-m", "hamgr", "simulate", *words]
        ran = subprocess.run(command, capture_output=True, check=True, env=environment, cwd=folder, timeout=600)
        picture = folder / "it.svg"
        found.append((ran.stdout, picture.read_bytes() if picture.exists() else b""))
    assert found[0] == found[1]
    assert json.loads(found[0][0])


def test_a_worker_that_is_killed_is_said_so() -> None:
    with pytest.raises(WorkerLost, match="--jobs"):
        list(run_all(end_oneself, range(4), 2, "deaths"))


def end_oneself(_number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
