"""Pictures as SVG: a few shapes, written so that the same picture is the same bytes on every machine."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

Point = tuple[float, float]

FONT = "DejaVu Sans, Helvetica, Arial, sans-serif"
INK = "#222222"
PALE = "#777777"
GRID = "#dddddd"
PNG_PACKAGE = "resvg_py"
PNG_ZOOM = 2


class NoPicture(Exception):
    """The picture cannot be written; the text says what to do."""


class Canvas:
    """A white sheet. Lengths are pixels, y grows downwards."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.width = width
        self.height = height
        self._title = title
        self._shapes: list[str] = []
        self.rect(0, 0, width, height, fill="#ffffff")

    def rect(self, x: float, y: float, width: float, height: float, *, fill: str, stroke: str = "none") -> None:
        size = f'x="{_px(x)}" y="{_px(y)}" width="{_px(width)}" height="{_px(height)}"'
        self._shapes.append(f'<rect {size} fill="{fill}" stroke="{stroke}"/>')

    def line(self, points: Iterable[Point], *, stroke: str = INK, width: float = 1.0, dash: str = "") -> None:
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self._shapes.append(
            f'<polyline points="{_points(points)}" fill="none" stroke="{stroke}" stroke-width="{_px(width)}"'
            f' stroke-linejoin="round"{dashed}/>'
        )

    def area(self, points: Iterable[Point], *, fill: str) -> None:
        self._shapes.append(f'<polygon points="{_points(points)}" fill="{fill}"/>')

    def dot(self, x: float, y: float, radius: float, *, fill: str) -> None:
        self._shapes.append(f'<circle cx="{_px(x)}" cy="{_px(y)}" r="{_px(radius)}" fill="{fill}"/>')

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = 12,
        anchor: str = "start",
        fill: str = INK,
        bold: bool = False,
        turned: bool = False,
    ) -> None:
        """`anchor`: start, middle or end. `turned`: read from below."""
        weight = ' font-weight="bold"' if bold else ""
        turn = f' transform="rotate(-90 {_px(x)} {_px(y)})"' if turned else ""
        self._shapes.append(
            f'<text x="{_px(x)}" y="{_px(y)}" font-size="{_px(size)}" text-anchor="{anchor}" fill="{fill}"'
            f"{weight}{turn}>{escape(words)}</text>"
        )

    def svg(self) -> str:
        """The picture as a file's text."""
        size = f'width="{self.width}" height="{self.height}" viewBox="0 0 {self.width} {self.height}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family={quoteattr(FONT)}>'
        return "\n".join([head, f"<title>{escape(self._title)}</title>", *self._shapes, "</svg>", ""])

    def write(self, path: Path) -> None:
        """The picture is in that file, .svg or .png. Raises NoPicture for others, or where PNG is not possible."""
        if path.suffix == ".svg":
            path.write_text(self.svg(), encoding="utf-8")
        elif path.suffix == ".png":
            path.write_bytes(_png(self.svg()))
        else:
            raise NoPicture(f"{path.name} is neither .svg nor .png")


def _png(svg: str) -> bytes:
    try:
        renderer = importlib.import_module(PNG_PACKAGE)
    except ImportError:
        raise NoPicture("PNG needs an additional package: pip install 'hamgr[lab]', or write a .svg") from None
    return bytes(renderer.svg_to_bytes(svg_string=svg, zoom=PNG_ZOOM))


def _px(length: float) -> str:
    return f"{length:.1f}".removesuffix(".0")


def _points(points: Iterable[Point]) -> str:
    return " ".join(f"{_px(x)},{_px(y)}" for x, y in points)
