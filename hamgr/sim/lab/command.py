"""`hamgr simulate --compare`: run the protocols side by side, show and draw what came of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import click

from hamgr.sim.lab.compare import Comparison, Plan, compare
from hamgr.sim.lab.drawing import draw
from hamgr.sim.lab.faults import FAULTS
from hamgr.sim.lab.page import NoPlace, fill_page
from hamgr.sim.lab.protocols import PROTOCOLS
from hamgr.sim.lab.show import markdown, print_comparison
from hamgr.sim.lab.trial import NeverReady
from hamgr.sim.outputs import EXIT_VIOLATION, BadInput, Outputs, writing

PROTOCOL_KEYS = tuple(protocol.key for protocol in PROTOCOLS)
FAULT_KEYS = tuple(fault.key for fault in FAULTS)
SIZES = (3, 5, 7, 51)
SEEDS = 10
FEWEST, MOST = 3, 99


@dataclass(frozen=True, slots=True)
class Asked:
    """What of the comparison; empty: all of it."""

    protocols: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    sizes: str = ""
    seeds: int | None = None
    page: Path | None = None

    @property
    def is_any(self) -> bool:
        """Something was asked that only a comparison understands."""
        return bool(self.protocols or self.faults or self.sizes or self.page or self.seeds is not None)

    def plan(self) -> Plan:
        """Raises BadInput."""
        return Plan(
            tuple(key for key in PROTOCOL_KEYS if not self.protocols or key in self.protocols),
            tuple(key for key in FAULT_KEYS if not self.faults or key in self.faults),
            _sizes(self.sizes) if self.sizes else SIZES,
            SEEDS if self.seeds is None else self.seeds,
        )


def run_comparison(asked: Asked, outputs: Outputs, jobs: int) -> int:
    """Exit status: 1 where hamgr was seen to break a promise."""
    plan = asked.plan()
    outputs.check()
    console = outputs.console()
    try:
        comparison = compare(plan, jobs)
    except NeverReady as error:
        raise click.ClickException(str(error)) from None
    print_comparison(console, comparison)
    outputs.write_json(comparison.as_json())
    outputs.write_picture(draw(comparison))
    if asked.page is not None:
        _fill(asked.page, asked, comparison)
    violations = list(comparison.violations)
    for words in violations:
        console.print(f"[red]violation:[/red] {words}")
    return EXIT_VIOLATION if violations else 0


def command_line(asked: Asked, plan: Plan) -> str:
    """What makes the same figures again."""
    words = ["hamgr simulate --compare", f"--seeds {plan.seeds}"]
    words += [f"--protocol {key}" for key in asked.protocols] + [f"--fault {key}" for key in asked.faults]
    words += [f"--sizes {','.join(map(str, plan.sizes))}"] if plan.sizes != SIZES else []
    return " ".join(words)


def _fill(page: Path, asked: Asked, comparison: Comparison) -> None:
    figures = markdown(comparison)
    figures["command"] = f"```\n{command_line(asked, comparison.plan)} --page {page.name}\n```"
    try:
        with writing(page):
            fill_page(page, figures)
    except NoPlace as error:
        raise BadInput(str(error)) from None


def _sizes(text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch("[0-9]{1,2}", word) and FEWEST <= int(word) <= MOST for word in words):
        raise BadInput(f"--sizes: numbers of members from {FEWEST} to {MOST}, for example 3,5,7")
    return tuple(sorted({int(word) for word in words}))
