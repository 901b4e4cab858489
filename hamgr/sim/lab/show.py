"""A comparison as tables: for a terminal, and as Markdown for the page on elections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hamgr.sim.lab.compare import Cell, Comparison, Plan
from hamgr.sim.lab.faults import BY_KEY as FAULTS
from hamgr.sim.lab.protocols import BY_KEY as PROTOCOLS

NOTHING = "-"
CRASH = "crash"

Words = Callable[[Cell], str]


def gap_words(cell: Cell) -> str:
    """Median and worst time without a leader."""
    if cell.gap_worst_s < 0.001:
        return "0"
    return f"{_seconds(cell.gap_p50_s)} ({_seconds(cell.gap_worst_s)})"


def safety_words(cell: Cell) -> str:
    """The worst time with two leaders, and acknowledged writes lost; in brackets where a winner lacked data."""
    parts = []
    if cell.two_trials:
        parts.append(f"two {_seconds(cell.two_worst_s)}")
    if cell.lost_worst:
        parts.append(f"lost {cell.lost_worst}")
    if cell.stale_trials:
        parts.append("stale")
    return ", ".join(parts) or "safe"


def stability_words(cell: Cell) -> str:
    """Needless changes of leader, mean per trial."""
    return f"{cell.needless_mean:.1f}" if cell.needless_mean else "0"


MATRICES: tuple[tuple[str, Words], ...] = (
    ("Without a leader, median (worst), s", gap_words),
    (
        "Two leaders at once, worst, s; acknowledged writes lost, worst; stale: a winner lacked what another had",
        safety_words,
    ),
    ("Needless changes of leader, mean per trial", stability_words),
)


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Matrices for the smallest cluster, details where one fault was chosen, growth and timeouts."""
    plan = comparison.plan
    if len(plan.faults) == 1:
        for members in plan.sizes:
            console.print(_details(comparison, plan.faults[0], members))
    else:
        for title, words in MATRICES:
            console.print(_matrix(comparison, title, words, plan.sizes[0]))
    if len(plan.sizes) > 1:
        console.print(_growth(comparison))
    if comparison.splits:
        console.print(_splits(comparison))


def _matrix(comparison: Comparison, title: str, words: Words, members: int) -> Table:
    table = Table(title=f"{title}. {members} members", box=box.ASCII2, title_justify="left", title_style="bold")
    table.add_column("fault")
    for key in comparison.plan.protocols:
        table.add_column(key, justify="right")
    for fault in comparison.plan.faults:
        cells = [comparison.cell(key, fault, members) for key in comparison.plan.protocols]
        table.add_row(fault, *(_styled(cell, words) for cell in cells))
    return table


def _styled(cell: Cell | None, words: Words) -> Text:
    if cell is None:
        return Text(NOTHING)
    is_bad = bool(cell.violations) or cell.two_trials > 0
    return Text(words(cell), style="red" if is_bad else "")


def _details(comparison: Comparison, fault: str, members: int) -> Table:
    title = f"{FAULTS[fault].title}. {members} members"
    table = Table(title=title, box=box.ASCII2, title_justify="left", title_style="bold")
    heads = (
        "gap p50",
        "p95",
        "worst",
        "two leaders",
        "in trials",
        "changes",
        "needless",
        "lost",
        "stale in",
        "messages",
    )
    table.add_column("protocol")
    for head in heads:
        table.add_column(head, justify="right")
    for key in comparison.plan.protocols:
        cell = comparison.cell(key, fault, members)
        if cell is not None:
            table.add_row(PROTOCOLS[key].title, *_detail_words(cell), style="red" if cell.two_trials else "")
    return table


def _detail_words(cell: Cell) -> Iterator[str]:
    yield from (_seconds(each) for each in (cell.gap_p50_s, cell.gap_p95_s, cell.gap_worst_s, cell.two_worst_s))
    yield f"{cell.two_trials}/{cell.trials}"
    yield f"{cell.changes_mean:.1f}"
    yield f"{cell.needless_mean:.1f}"
    yield f"{cell.lost_mean:.1f}"
    yield f"{cell.stale_trials}/{cell.trials}"
    yield NOTHING if cell.messages is None else str(cell.messages)


def growth_fault(plan: Plan) -> str:
    """By which fault growth is shown: the loss of the leader's host, unless others were asked for."""
    return CRASH if CRASH in plan.faults else plan.faults[0]


def growth_heads(plan: Plan) -> list[str]:
    """Numbers of members, with how many runs there are of each: a median of two is the smaller of them."""
    return [f"{members} ({plan.seeds_of(members)} run{'s' * (plan.seeds_of(members) > 1)})" for members in plan.sizes]


def growth_rows(comparison: Comparison) -> Iterator[tuple[str, list[str]]]:
    """Per protocol, what that fault costs by number of members: gap and messages."""
    fault = growth_fault(comparison.plan)
    for key in comparison.plan.protocols:
        row = []
        for members in comparison.plan.sizes:
            cell = comparison.cell(key, fault, members)
            messages = NOTHING if cell is None or cell.messages is None else str(cell.messages)
            row.append(NOTHING if cell is None else f"{_seconds(cell.gap_p50_s)} s, {messages}")
        yield key, row


def _growth(comparison: Comparison) -> Table:
    fault = FAULTS[growth_fault(comparison.plan)].title
    title = f"{fault}: median time without a leader, messages of the election, by number of members"
    table = Table(title=title, box=box.ASCII2, title_justify="left", title_style="bold")
    table.add_column("protocol")
    for head in growth_heads(comparison.plan):
        table.add_column(head, justify="right")
    for key, row in growth_rows(comparison):
        table.add_row(key, *row)
    return table


def _splits(comparison: Comparison) -> Table:
    title = "Raft, 5 members: how long an election takes by the range of its timeouts, s"
    table = Table(title=title, box=box.ASCII2, title_justify="left", title_style="bold")
    for head in ("timeouts, ms", "p50", "p95", "worst"):
        table.add_column(head, justify="right")
    for each in comparison.splits:
        ends = (_seconds(end) for end in (each.p50_s, each.p95_s, each.worst_s))
        table.add_row(f"{each.from_ms}-{each.to_ms}", *ends)
    return table


# -- Markdown --------------------------------------------------------------------------------------------------


def markdown(comparison: Comparison) -> dict[str, str]:
    """Tables by the name of their place in the page."""
    plan = comparison.plan
    places = {
        "gap": _markdown_matrix(comparison, gap_words),
        "safety": _markdown_matrix(comparison, safety_words),
        "stability": _markdown_matrix(comparison, stability_words),
        "growth": _markdown_growth(comparison),
        "protocols": "\n".join(_sheet(key) for key in plan.protocols),
    }
    if comparison.splits:
        rows = (
            (f"{each.from_ms}-{each.to_ms} ms", [_seconds(end) for end in (each.p50_s, each.p95_s, each.worst_s)])
            for each in comparison.splits
        )
        places["timeouts"] = _markdown_rows(["timeouts", "p50, s", "p95, s", "worst, s"], rows)
    return places


def _markdown_matrix(comparison: Comparison, words: Words) -> str:
    plan = comparison.plan

    def row(fault: str) -> list[str]:
        cells = (comparison.cell(key, fault, plan.sizes[0]) for key in plan.protocols)
        return [NOTHING if cell is None else words(cell) for cell in cells]

    rows = ((FAULTS[fault].title, row(fault)) for fault in plan.faults)
    return _markdown_rows(["fault", *plan.protocols], rows)


def _markdown_growth(comparison: Comparison) -> str:
    plan = comparison.plan
    words = f"Fault: {FAULTS[growth_fault(plan)].title}. Median time without a leader, messages of the election."
    return f"{words}\n\n{_markdown_rows(['protocol', *growth_heads(plan)], growth_rows(comparison))}"


def _markdown_rows(heads: Sequence[str], rows: Iterator[tuple[str, list[str]]]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    lines += [f"| {' | '.join([first, *rest])} |" for first, rest in rows]
    return "\n".join(lines)


def _sheet(key: str) -> str:
    protocol = PROTOCOLS[key]
    lines = [f"- **{protocol.title}** (`{key}`). Source: {protocol.source}. Known weaknesses:"]
    lines += [f"  - {weakness}" for weakness in protocol.weaknesses]
    return "\n".join(lines)


def _seconds(seconds: float) -> str:
    if seconds >= 10:
        return f"{seconds:.0f}"
    return f"{seconds:.1f}" if seconds >= 1 else f"{seconds:.2f}"
