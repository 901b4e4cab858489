"""docs/scale.md: tables of a survey, and what follows for a greater fleet. Every figure in it is computed."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from hamgr.fleet.findings import Calm, Elections, Findings, Spread, Step
from hamgr.fleet.outlook import ROOM, agents_for_room, bytes_per_write, hours_to_quota, outlook_for

PAPER_AGENTS = 3000
_WIDTH = 120

_INTRODUCTION = """\
# How many clusters one etcd carries

Written by the command below; change the command, not this page.

```
{command}
```

{conditions}

**What ran.** Light agents: hamgr's own loop and rules, its renewal thread, its watch, its reads and its transactions,
each agent with a lease, a connection for renewals and another for everything else. What stands in for PostgreSQL is a
server that is always well. Several agents share a process, members of one cluster never do. etcd, agents and the one
who measures share the machine: where its idle share nears 0, latencies are the machine's own."""

_READING = """\
- *CPU*: of one core; `*` marks etcd's leader.
- *idle*: nobody writes to the databases. *written to*: every primary moves, so that each leader tells its position
  once per `loop_wait`; that is all that a busy cluster costs etcd on top.
- *renewal*: from sending a renewal until the linearizable read that confirms it is answered. Neither is a proposal:
  they cost CPU, not disk. The client's own waiting (several agents in a Python process) is in it.
- *watch*: from sending a position until a member's watch has yielded it, all members' watches.
- *vacancy*: how long the leader key was away, seen by a watch from outside: ballots, comparison, transaction. Without
  promotion: there is no server. *single*: one lease after the other revoked. *at once*: a tenth of the leaders vanish
  together, their leases run out; *late*: how long after its `ttl` such a lease was gone."""


def document_of(findings: Findings) -> str:
    """The whole page."""
    parts = [
        _INTRODUCTION.format(command=findings.command, conditions=_wrapped(_conditions(findings))),
        "## Measured",
        "etcd, idle and written to:",
        table(_LOAD_COLUMNS, [_load_row(step) for step in findings.steps]),
        "What an agent notices:",
        table(_AGENT_COLUMNS, [_agent_row(step) for step in findings.steps]),
        "Leaders lost:",
        table(_ELECTION_COLUMNS, [_election_row(step) for step in findings.steps]),
        _READING,
        *map(_wrapped, _wrong(findings)),
        f"## {PAPER_AGENTS:,} agents, on paper",
        *_paper(findings),
    ]
    return "\n\n".join(parts) + "\n"


def _conditions(findings: Findings) -> str:
    where = "in network namespaces" if findings.place == "netns" else "on loopback"
    endpoints = "endpoints spread over etcd's members" if findings.spread else "all with the same list of endpoints"
    return (
        f"hamgr {findings.hamgr}, etcd {findings.etcd}, three members {where} of one machine ({findings.machine}), "
        f"{findings.began_at}, {findings.seconds / 60:.0f} minutes. `ttl` {findings.ttl_s:g} s, `loop_wait` "
        f"{findings.loop_wait_s:g} s, {findings.members} members a cluster, {endpoints}."
    )


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _WIDTH, subsequent_indent="   " if text[:1].isdigit() else "", break_on_hyphens=False)


_LOAD_COLUMNS = (
    "agents (clusters)",
    "CPU per member, idle",
    "written to",
    "proposals/s",
    "memory, greatest",
    "watches",
    "database",
    "fsync p99",
    "machine idle",
)


def _load_row(step: Step) -> tuple[str, ...]:
    idle, busy = step.idle.load, step.busy.load
    return (
        f"{step.agents} ({step.clusters})",
        ", ".join(f"{member.cpu_share * 100:.0f}{'*' if member.is_leader else ''}" for member in idle.members) + " %",
        ", ".join(f"{member.cpu_share * 100:.0f}{'*' if member.is_leader else ''}" for member in busy.members) + " %",
        f"{idle.proposals_per_s:.1f}; {busy.proposals_per_s:.1f}",
        f"{max(member.resident_bytes for member in busy.members) / (1 << 20):.0f} MiB",
        str(sum(member.watchers for member in busy.members)),
        f"{busy.db_bytes / (1 << 20):.1f} MiB",
        "-" if busy.fsync_p99_s is None else f"<= {busy.fsync_p99_s * 1000:g} ms",
        f"{idle.machine_idle_share * 100:.0f}; {busy.machine_idle_share * 100:.0f} %",
    )


_AGENT_COLUMNS = (
    "agents",
    "renewal p50; p99, idle",
    "written to",
    "watch p50; p99",
    "CPU per agent, idle; written to",
    "failed renewals",
    "lost leases",
)


def _agent_row(step: Step) -> tuple[str, ...]:
    delays = step.busy.delays
    unseen = f" ({delays.unseen} unseen)" if delays is not None and delays.unseen else ""
    return (
        str(step.agents),
        pair(step.idle.renewals),
        pair(step.busy.renewals),
        (pair(delays.spread) if delays is not None else "-") + unseen,
        "; ".join(f"{_cpu_each(step, calm) * 100:.2f}" for calm in (step.idle, step.busy)) + " %",
        str(step.idle.failed_renewals + step.busy.failed_renewals),
        str(step.lost_leases),
    )


def _cpu_each(step: Step, calm: Calm) -> float:
    return calm.load.agents_cpu_share / step.agents


_ELECTION_COLUMNS = (
    "agents",
    "single: lost",
    "vacancy p50; worst",
    "proposals each",
    "at once: lost",
    "vacancy p50; worst",
    "late p50; worst",
)


def _election_row(step: Step) -> tuple[str, ...]:
    single, storm = step.single, step.storm
    return (
        str(step.agents),
        _lost(single),
        pair(single.vacancy, worst=True),
        "-" if single.proposals_each is None else f"{single.proposals_each:.0f}",
        _lost(storm),
        pair(storm.vacancy, worst=True),
        pair(storm.lateness, worst=True),
    )


def _lost(elections: Elections) -> str:
    return f"{elections.lost}" + (f", {elections.not_taken} NOT TAKEN" if elections.not_taken else "")


def pair(spread: Spread | None, *, worst: bool = False) -> str:
    """Median and p99, or median and worst."""
    if spread is None:
        return "-"
    return f"{_ms(spread.median_s)}; {_ms(spread.worst_s if worst else spread.p99_s)} ms"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}" if seconds < 0.1 else f"{seconds * 1000:.0f}"


def _wrong(findings: Findings) -> Iterator[str]:
    """What must not have happened, if it did."""
    problems = [problem for step in findings.steps for problem in step.problems]
    if findings.ended_by:
        # The rest of the message names a directory of this machine.
        problems.append("the next step could not be carried out: " + findings.ended_by.partition("; logs: ")[0])
    lost = sum(step.lost_leases for step in findings.steps)
    changes = sum(calm.load.leader_changes for step in findings.steps for calm in (step.idle, step.busy))
    if lost:
        yield f"**{lost} leases of living agents were lost.**"
    if changes:
        yield f"**etcd changed its own leader {changes} times**, without a fault: this machine was too slow for it."
    if problems:
        yield "**Not as it should be:** " + "; ".join(problems)


def _paper(findings: Findings) -> Iterator[str]:
    rows = [(each.name, each.text, each.why) for each in outlook_for(findings, PAPER_AGENTS)]
    if not rows:
        yield "Nothing follows from a single step: measure with at least two sizes."
        return
    yield _wrapped(
        "Straight lines through the rows above. Assumed: every further agent costs what those did, on the same kind of "
        "processor and disk; etcd's members each have a machine of their own, which they had not here."
    )
    yield table(("what", f"at {PAPER_AGENTS:,}", "by"), rows)
    yield "Where it ends first:"
    yield "\n".join(_wrapped(f"{number}. {text}") for number, text in enumerate(_ends(findings), start=1))


def _ends(findings: Findings) -> Iterator[str]:
    size, hours = bytes_per_write(findings), hours_to_quota(findings, PAPER_AGENTS)
    if size is not None and hours is not None:
        yield (
            f"**The database's quota, if nobody compacts it.** Each write leaves {size:.0f} B of history; with "
            f"{PAPER_AGENTS:,} agents of clusters that are written to, etcd's default quota of 2 GiB is full after "
            f"{hours:.0f} hours, and from then on nobody can be elected. Set `auto-compaction-mode: periodic` and "
            "`auto-compaction-retention: 1h` on every etcd, whatever the size of the fleet."
        )
    carried = agents_for_room(findings)
    if carried is not None:
        yield (
            f"**CPU of the busiest member.** It takes {ROOM * 100:.0f} % of a core at some {_rounded(carried):,} "
            f"agents ({_rounded(carried) // findings.members:,} clusters of {findings.members}). Beyond that another "
            "etcd is the simple answer: clusters share nothing, so a fleet splits by cluster, each with the "
            "`etcd3.hosts` of its etcd. Twice the `loop_wait` (and a `ttl` to match) halves the requests as well."
        )
    if not findings.spread:
        yield (
            "**One member has all clients** where every agent has the same list of endpoints: agents stay with the "
            "first that answers. Give each host a list that begins with another member; `--spread` measures it."
        )
    yield (
        "Neither watches nor memory: one watch and two connections an agent. Mind the limit of open files of etcd's "
        "service (`LimitNOFILE`)."
    )


def _rounded(number: int) -> int:
    """To two digits: no more is known."""
    digits = max(0, len(str(number)) - 2)
    return int(round(number, -digits))


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
