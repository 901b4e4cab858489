"""What a survey means for a greater fleet, on paper: straight lines through what was measured. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hamgr.fleet.findings import Findings, Step

QUOTA_BYTES = 2 << 30
"""etcd's default for its database: beyond it accepts no writes. Source: etcd operations guide, storage size limit."""

ROOM = 0.5
"""Of a core that etcd's busiest member may take: the rest is for elections, and for a day when the disk is slow."""


@dataclass(frozen=True, slots=True)
class Line:
    """y = base + slope * agents, by least squares. `worst_error`: greatest distance of a measured point, same unit."""

    base: float
    slope: float
    worst_error: float

    def at(self, agents: int) -> float:
        return self.base + self.slope * agents


def line_through(points: Sequence[tuple[int, float]]) -> Line | None:
    """None for fewer than two different numbers of agents: nothing follows from one."""
    if len({agents for agents, _ in points}) < 2:
        return None
    count = len(points)
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    base = mean_y - slope * mean_x
    return Line(base, slope, max(abs(y - base - slope * x) for x, y in points))


@dataclass(frozen=True, slots=True)
class Outlook:
    """One quantity at so many agents. `text` is its value as people read it, `why` how it was come by."""

    name: str
    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something that was measured at each step and grows with the fleet."""

    name: str
    of: Callable[[Step], float]
    shown: Callable[[float], str]


def cores(share: float) -> str:
    return f"{share:.2f} cores"


def mebibytes(size: float) -> str:
    return f"{size / (1 << 20):.0f} MiB"


def per_second(rate: float) -> str:
    return f"{rate:.1f}/s"


QUANTITIES = (
    Quantity("CPU of the busiest etcd member, idle clusters", lambda step: step.idle.load.busiest.cpu_share, cores),
    Quantity("the same, clusters that are written to", lambda step: step.busy.load.busiest.cpu_share, cores),
    Quantity(
        "CPU of all etcd members, written to",
        lambda step: sum(member.cpu_share for member in step.busy.load.members),
        cores,
    ),
    Quantity("proposals, idle", lambda step: step.idle.load.proposals_per_s, per_second),
    Quantity("proposals, written to", lambda step: step.busy.load.proposals_per_s, per_second),
    Quantity(
        "requests (renewals, reads, writes), all members",
        lambda step: sum(member.requests_per_s for member in step.busy.load.members),
        per_second,
    ),
    Quantity(
        "watches, all members",
        lambda step: sum(member.watchers for member in step.busy.load.members),
        lambda count: f"{count:.0f}",
    ),
    Quantity(
        "open files of the member with most",
        lambda step: max(member.open_files for member in step.busy.load.members),
        lambda count: f"{count:.0f}",
    ),
    Quantity(
        "memory of the greatest etcd member",
        lambda step: max(member.resident_bytes for member in step.busy.load.members),
        mebibytes,
    ),
    Quantity(
        "sent to clients by the member that sends most",
        lambda step: max(member.sent_bytes_per_s for member in step.busy.load.members),
        lambda rate: f"{rate / 1e6 * 8:.1f} Mbit/s",
    ),
)


def line_of(findings: Findings, quantity: Quantity) -> Line | None:
    return line_through([(step.agents, quantity.of(step)) for step in findings.steps])


def outlook_for(findings: Findings, agents: int) -> list[Outlook]:
    """Each quantity at so many agents, if it goes on as it did."""
    found = []
    for quantity in QUANTITIES:
        line = line_of(findings, quantity)
        if line is None:
            continue
        if line.slope <= 0:
            most = max(quantity.of(step) for step in findings.steps)
            found.append(Outlook(quantity.name, f"some {quantity.shown(most)}", "it did not grow with the fleet"))
            continue
        why = f"{quantity.shown(line.base)} and {quantity.shown(line.slope * 100)} per 100 agents; "
        why += f"off by {quantity.shown(line.worst_error)} at most where it was measured"
        found.append(Outlook(quantity.name, quantity.shown(line.at(agents)), why))
    return found


def agents_for_room(findings: Findings) -> int | None:
    """How many agents of clusters that are written to one etcd carries before its busiest member takes ROOM of a core.

    None: more was not seen to cost more, or too little was measured.
    """
    line = line_of(findings, QUANTITIES[1])
    if line is None or line.slope <= 0:
        return None
    return max(0, int((ROOM - line.base) / line.slope))


def bytes_per_write(findings: Findings) -> float | None:
    """By how much the database's file grows with each proposal; None: it did not, its file grows in leaps."""
    steps = [step.busy.load for step in findings.steps]
    written = sum(load.proposals_per_s * load.seconds for load in steps)
    grown = sum(load.db_growth_bytes_per_s * load.seconds for load in steps)
    return grown / written if written and grown > 0 else None


def hours_to_quota(findings: Findings, agents: int) -> float | None:
    """How long etcd takes writes of so many agents' clusters, all written to, uncompacted; None: not known."""
    size = bytes_per_write(findings)
    line = line_of(findings, QUANTITIES[4])
    if size is None or line is None or line.at(agents) <= 0:
        return None
    return QUOTA_BYTES / (size * line.at(agents)) / 3600
