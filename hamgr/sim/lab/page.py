"""Figures in a page of the docs: what stands between two markers is what the command last found."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

BEGIN = "<!-- figures: {name} -->"
END = "<!-- end of figures -->"
_PLACE = re.compile(r"<!-- figures: (\w+) -->\n.*?<!-- end of figures -->", re.DOTALL)


class NoPlace(Exception):
    """The page has no place for figures, or one for figures that there are not."""


def fill_page(path: Path, figures: Mapping[str, str]) -> None:
    """Every place of the page holds its figures. Raises NoPlace and leaves the page as it was where that cannot be."""
    try:
        page = path.read_text(encoding="utf-8")
    except OSError as error:
        raise NoPlace(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise NoPlace(f"{path} is not UTF-8 text") from error
    names = _PLACE.findall(page)
    missing = [name for name in names if name not in figures]
    if not names or missing:
        what = f"no figures for {', '.join(missing)}" if missing else f"no line '{BEGIN.format(name='gap')}'"
        raise NoPlace(f"{path}: {what}")
    path.write_text(_PLACE.sub(lambda found: filled(found[1], figures[found[1]]), page), encoding="utf-8")


def filled(name: str, figures: str) -> str:
    """One place with its figures."""
    return f"{BEGIN.format(name=name)}\n{figures}\n{END}"
