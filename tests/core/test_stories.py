"""Every file under scenarios/ is a story that must come true."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.story import tell

HERE = Path(__file__).parent / "scenarios"


@pytest.mark.parametrize("path", sorted(HERE.glob("*.txt")), ids=lambda path: path.stem)
def test_story_comes_true(path: Path) -> None:
    tell(path)
