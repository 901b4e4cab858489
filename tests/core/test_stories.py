"""Every file under scenarios/ is a story that must come true; those under scenarios/open are known not to, yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.story import tell

HERE = Path(__file__).parent / "scenarios"


@pytest.mark.parametrize("path", sorted(HERE.glob("*.txt")), ids=lambda path: path.stem)
def test_story_comes_true(path: Path) -> None:
    tell(path)


@pytest.mark.xfail(strict=True, reason="a known defect: move the story up when it is mended")
@pytest.mark.parametrize("path", sorted((HERE / "open").glob("*.txt")), ids=lambda path: path.stem)
def test_open_story_comes_true(path: Path) -> None:
    tell(path)
