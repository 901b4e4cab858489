"""A comparison as a picture: one square per protocol and fault, coloured by what is worst about it."""

from __future__ import annotations

from hamgr.sim.lab.compare import Cell, Comparison
from hamgr.sim.lab.faults import BY_KEY as FAULTS
from hamgr.sim.lab.protocols import BY_KEY as PROTOCOLS
from hamgr.sim.lab.show import gap_words, growth_rows
from hamgr.sim.svg import PALE, Canvas

LEFT, TOP, WIDE, HIGH = 270, 150, 98, 40
FOOT = 130
SAFE = ("#e3f4e1", "no two leaders, nothing lost")
LOSSY = ("#fff3c4", "acknowledged writes lost with the old leader, no two leaders")
STALE = ("#ffd9a0", "the winner lacked writes that another member had")
BRIEF = ("#f6b7a6", "two leaders for less than a second")
TWO = ("#d9534f", "two leaders for a second or more")
LEGEND = (SAFE, LOSSY, STALE, BRIEF, TWO)
BRIEFLY_S = 1.0


def colour(cell: Cell) -> str:
    """By the worst that was seen."""
    if cell.two_worst_s >= BRIEFLY_S or cell.violations:
        return TWO[0]
    if cell.two_trials:
        return BRIEF[0]
    if cell.stale_trials:
        return STALE[0]
    return LOSSY[0] if cell.lost_worst else SAFE[0]


def draw(comparison: Comparison) -> Canvas:
    """Faults from top to bottom, protocols from left to right, for the smallest cluster; below how messages grow."""
    plan = comparison.plan
    members = plan.sizes[0]
    width = LEFT + WIDE * len(plan.protocols) + 20
    bottom = TOP + HIGH * len(plan.faults)
    height = bottom + FOOT + (24 * len(plan.protocols) + 60 if len(plan.sizes) > 1 else 0)
    canvas = Canvas(width, height, f"Election protocols under faults, {members} members")
    canvas.text(
        16, 30, f"Seconds without a leader under each fault: median (worst). {members} members", size=17, bold=True
    )
    canvas.text(16, 52, f"{plan.seeds} runs each. The colour says whether it was safe", fill=PALE)
    _heads(canvas, comparison)
    for row, fault in enumerate(plan.faults):
        y = TOP + row * HIGH
        canvas.text(LEFT - 10, y + HIGH / 2 + 4, FAULTS[fault].title, anchor="end", size=11.5)
        for column, key in enumerate(plan.protocols):
            cell = comparison.cell(key, fault, members)
            if cell is not None:
                _square(canvas, LEFT + column * WIDE, y, cell)
    _legend(canvas, bottom + 22)
    if len(plan.sizes) > 1:
        _growth(canvas, comparison, bottom + FOOT + 20)
    return canvas


def _heads(canvas: Canvas, comparison: Comparison) -> None:
    for column, key in enumerate(comparison.plan.protocols):
        x = LEFT + column * WIDE + WIDE / 2
        canvas.text(x, TOP - 28, key, anchor="middle", size=11.5, bold=True)
        kind = "synchronous" if PROTOCOLS[key].is_synchronous else "asynchronous"
        canvas.text(x, TOP - 12, kind, anchor="middle", size=9.5, fill=PALE)


def _square(canvas: Canvas, x: float, y: float, cell: Cell) -> None:
    canvas.rect(x + 1, y + 1, WIDE - 2, HIGH - 2, fill=colour(cell))
    words = gap_words(cell)
    canvas.text(x + WIDE / 2, y + HIGH / 2 - 1, words, anchor="middle", size=11.5)
    if cell.two_trials:
        canvas.text(x + WIDE / 2, y + HIGH / 2 + 13, f"two: {cell.two_worst_s:.3g} s", anchor="middle", size=9.5)
    elif cell.needless_mean >= 0.5:
        text = f"{cell.needless_mean:.0f} needless"
        canvas.text(x + WIDE / 2, y + HIGH / 2 + 13, text, anchor="middle", size=9.5)


def _legend(canvas: Canvas, y: float) -> None:
    for number, (fill, words) in enumerate(LEGEND):
        at = y + number * 19
        canvas.rect(16, at - 11, 22, 14, fill=fill, stroke=PALE)
        canvas.text(46, at, words, size=11.5)
    canvas.text(520, y, "two: for how long two members accepted writes at once, at the worst", size=11, fill=PALE)
    canvas.text(520, y + 19, "needless: changes of leader that the fault gave no cause for", size=11, fill=PALE)


def _growth(canvas: Canvas, comparison: Comparison, y: float) -> None:
    title = "Leader's host lost: median seconds without a leader, messages of the election, by number of members"
    canvas.text(16, y, title, size=14, bold=True)
    for column, members in enumerate(comparison.plan.sizes):
        canvas.text(LEFT + 130 + column * 170, y + 28, f"{members} members", anchor="end", size=11.5, bold=True)
    for number, (key, row) in enumerate(growth_rows(comparison)):
        at = y + 52 + number * 24
        canvas.text(LEFT - 10, at, key, anchor="end", size=11.5)
        for column, words in enumerate(row):
            canvas.text(LEFT + 130 + column * 170, at, words, anchor="end", size=11.5)
