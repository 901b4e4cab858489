"""What several runs of a fault come to, and the verdict on one in words: for terminal, page and JSON alike."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from hamgr.drill.predicted import Gap
from hamgr.drill.run import Outcome
from hamgr.drill.verdict import Verdict

NOT_FINISHED = "NOT FINISHED"

COLUMNS = (
    "fault",
    "ttl",
    "runs",
    "gap median",
    "gap max",
    "predicted",
    "quiet",
    "lost",
    "two primaries",
    "changes",
    "rejoin max",
    "verdict",
)
"""Of a table of summaries; all but the first and the last are figures."""


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """All runs of one fault at one ttl. Times in seconds; None: in no run did writes come back, or none was judged."""

    fault: str
    ttl_s: float
    runs: int
    gap_median_s: float | None
    gap_max_s: float | None
    """Of the runs in which writes came back."""
    predicted_s: Gap | None
    """What the product predicts: best, typical, worst."""
    quiet_max_s: float | None
    """The longest gap before the fault: what the machine's own load does to the client."""
    lost: int
    two_primaries_s: float
    changes: int
    """Of leader, at most in one run."""
    rejoin_max_s: float
    is_good: bool
    """Every run of it."""
    verdict: str
    """Of the first run that is not good, or of the first."""

    def cells(self) -> tuple[str, ...]:
        """What stands below COLUMNS."""
        is_judged = self.quiet_max_s is not None
        return (
            self.fault,
            f"{self.ttl_s:g} s",
            str(self.runs),
            ms(self.gap_median_s) if is_judged else "-",
            ms(self.gap_max_s) if is_judged else "-",
            self._predicted(),
            ms(self.quiet_max_s) if is_judged else "-",
            str(self.lost),
            ms(self.two_primaries_s),
            str(self.changes),
            f"{self.rejoin_max_s:.2f} s",
            self.verdict,
        )

    @property
    def is_as_predicted(self) -> bool | None:
        """Whether the median lies between the best and the worst that was predicted; None: nothing to compare."""
        if self.predicted_s is None or self.gap_median_s is None:
            return None
        return self.predicted_s[0] <= self.gap_median_s <= self.predicted_s[2]

    def _predicted(self) -> str:
        if self.predicted_s is None:
            return "-"
        best, _, worst = self.predicted_s
        mark = " (!)" if self.is_as_predicted is False else ""
        return f"{best * 1000:.0f}-{worst * 1000:.0f} ms{mark}"


def summarised(outcomes: Sequence[Outcome]) -> list[SummaryRow]:
    """One row per fault and ttl, in the order in which they came first."""
    by_fault: dict[tuple[str, float], list[Outcome]] = {}
    for outcome in outcomes:
        by_fault.setdefault((outcome.fault, outcome.ttl_s), []).append(outcome)
    return [_row(runs) for runs in by_fault.values()]


def _row(runs: Sequence[Outcome]) -> SummaryRow:
    verdicts = [run.verdict for run in runs if run.verdict is not None]
    gaps = [each.write_gap_s for each in verdicts if each.write_gap_s is not None]
    worst = next((run for run in runs if not run.is_good), runs[0])
    return SummaryRow(
        fault=worst.fault,
        ttl_s=worst.ttl_s,
        runs=len(runs),
        gap_median_s=statistics.median(gaps) if gaps else None,
        gap_max_s=max(gaps, default=None),
        predicted_s=next((run.predicted for run in runs if run.predicted is not None), None),
        quiet_max_s=max((each.quiet_gap_s for each in verdicts), default=None),
        lost=sum(each.lost + each.lost_pinned for each in verdicts),
        two_primaries_s=max((each.two_primaries_s for each in verdicts), default=0.0),
        changes=max((each.leader_changes for each in verdicts), default=0),
        rejoin_max_s=max((seconds for each in verdicts for seconds in each.rejoin_s.values()), default=0.0),
        is_good=all(run.is_good for run in runs),
        verdict=verdict_in_words(worst),
    )


def verdict_in_words(outcome: Outcome) -> str:
    """The verdict in a few words; what is wrong is in capitals."""
    verdict = outcome.verdict
    if verdict is None:
        return NOT_FINISHED
    wrong = []
    if verdict.has_bad_losses:
        wrong.append(f"{verdict.lost + verdict.lost_pinned} ACKNOWLEDGED WRITES LOST")
    if verdict.two_primaries:
        wrong.append(f"TWO PRIMARIES ({verdict.rows_of_old_primaries} rows of the old one)")
    if verdict.timelines_twice:
        wrong.append(f"TIMELINE {verdict.timelines_twice[0]} USED TWICE")
    if outcome.moved_needlessly:
        wrong.append("LEADER CHANGED WITHOUT NEED")
    if outcome.stayed:
        wrong.append("LEADER DID NOT CHANGE")
    if outcome.stalled:
        wrong.append("NOT WRITABLE WHILE IT LASTED")
    return ", ".join(wrong) or "good" + (", losses on record" if verdict.lost or verdict.lost_pinned else "")


def risks_in_words(verdict: Verdict) -> str:
    """Bytes at risk by each record of a change."""
    said = ("unknown" if risk is None else f"{risk} B" for risk in verdict.at_risk_bytes)
    return " then ".join(said) or "nothing"


def ms(seconds: float | None) -> str:
    """A duration as people read it; None: writes never came back."""
    return "never ended" if seconds is None else f"{seconds * 1000:.0f} ms"
