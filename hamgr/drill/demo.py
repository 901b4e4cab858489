"""The demonstration: a cluster forms on this machine, and three failures show what hamgr is for."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from hamgr.drill.accounts import server_account
from hamgr.drill.cluster import Cluster
from hamgr.drill.faults import FAULTS
from hamgr.drill.plan import Plan
from hamgr.drill.report import print_outcome, print_summary
from hamgr.drill.run import Outcome, Say, run_drill
from hamgr.drill.session import Session

DEMO_FAULTS = ("switchover", "postgres-killed", "member-lost")
SYNCHRONOUS_NAMES = "synchronous_standby_names"
COMMIT_ON_TWO = "ANY 1 (*)"


def show_demo(console: Console, session: Session, ttl_s: int, keep: bool) -> bool:
    """Run the demonstration in a session. Returns whether all went well: nothing lost, never two primaries.

    With `keep` the cluster and its files outlive this process. Raises DrillError when no cluster forms.
    """
    plan = Plan(session.directory, server_account(), ttl_s=ttl_s, store_members=1)
    as_whom = f" as user {plan.account.name}" if plan.account else ""
    console.print(f"etcd and three members start on this machine{as_whom}, in {session.directory}")
    with progress(console) as say:
        say("the cluster forms")
        cluster = session.need_cluster(plan)
    assert isinstance(cluster, Cluster)
    print_members(console, cluster)
    outcomes = []
    for name in DEMO_FAULTS:
        if name == "member-lost":
            _commit_on_two(console, cluster)
        outcomes.append(_show(console, cluster, name))
        if outcomes[-1].verdict is None:
            break
    print_summary(console, outcomes)
    good = len(outcomes) == len(DEMO_FAULTS) and all(_is_lossless(outcome) for outcome in outcomes)
    if keep and outcomes[-1].verdict is not None:
        cluster.need_leader().set_parameter(SYNCHRONOUS_NAMES, None)
        _keep(console, session, cluster)
    session.keep_files = session.keep_files or not good
    if not good:
        console.print(f"logs: {cluster.logs}", highlight=False)
    return good


def _is_lossless(outcome: Outcome) -> bool:
    """Good, and not even a loss that is on record: the demonstration promises more than asynchronous mode does."""
    verdict = outcome.verdict
    return outcome.is_good and verdict is not None and verdict.lost + verdict.lost_pinned == 0


def _commit_on_two(console: Console, cluster: Cluster) -> None:
    """From here on each commit waits for one replica.

    A switchover and a crash on a live host lose nothing without it. A whole member that vanishes may take the
    commits of its last milliseconds along: with asynchronous replication no manager can bring those back.
    """
    cluster.need_leader().set_parameter(SYNCHRONOUS_NAMES, COMMIT_ON_TWO)
    console.print(
        f"\nfrom here on each commit waits for a replica ({SYNCHRONOUS_NAMES} = '{COMMIT_ON_TWO}', by PATCH /config): "
        "asynchronous, a lost host may take its last milliseconds of commits along",
        highlight=False,
    )


def _show(console: Console, cluster: Cluster, name: str) -> Outcome:
    fault = FAULTS[name]
    with progress(console) as say:
        outcome = run_drill(cluster, fault, lambda text: say(f"{fault.name}: {text}"))
    print_outcome(console, fault.title, outcome)
    return outcome


@contextmanager
def progress(console: Console, *, quiet: bool = False) -> Iterator[Say]:
    """A live line on a terminal; in a log one plain line per step, or none if `quiet`."""
    if quiet and not console.is_terminal:
        yield lambda _: None
    elif console.is_terminal:
        with console.status("") as status:
            yield status.update
    else:
        yield lambda text: console.print(f"- {text}", highlight=False)


def print_members(console: Console, cluster: Cluster) -> None:
    """Who is what, from the members' own REST."""
    for member in cluster.members:
        said = member.says()
        role = "leader" if member.is_leader() else said.get("role", "?")
        console.print(
            f"  {member.name}  {role:<8} timeline {said.get('timeline', '?')}  "
            f"postgres {member.host.address}:{member.postgres_port}  REST {member.rest_url}",
            highlight=False,
        )


def _keep(console: Console, session: Session, cluster: Cluster) -> None:
    """Leave the cluster up and say how to look at it and how to end it."""
    pids = cluster.keep()
    stop = session.directory / "stop"
    stop.write_text(stop_script(pids, session.directory))
    stop.chmod(0o755)
    member = cluster.members[0]
    hamgr = Path(sys.executable).parent / "hamgr"
    console.print("\nThe cluster stays up:")
    print_members(console, cluster)
    for line in (
        f"look:   {hamgr} -c {member.config_path} list",
        f"REST:   curl -s {member.rest_url}/cluster",
        f'SQL:    psql "host={member.host.address} port={member.postgres_port} user=postgres"',
        f"        password: in {member.config_path}",
        f"logs:   {cluster.logs}",
        f"end it: {stop}",
    ):
        console.print(f"  {line}", highlight=False, soft_wrap=True)
    session.keep_files = True
    session.cluster = None


def stop_script(pids: list[int], directory: Path) -> str:
    """A shell script that ends a kept cluster.

    A pid is signalled only if it still is the subreaper that it was: pids are used again.
    """
    numbers = " ".join(map(str, pids))
    room = shlex.quote(str(directory))
    return f"""#!/bin/sh
# Ends the kept demonstration and removes its files.
is_host() {{ {{ tr '\\0' ' ' <"/proc/$1/cmdline"; }} 2>/dev/null | grep -q subreaper; }}
for pid in {numbers}; do
    if is_host "$pid"; then kill "$pid"; fi
done
for pid in {numbers}; do
    while is_host "$pid"; do sleep 0.1; done
done
rm -rf {room}/cluster-1 {room}/stop
rmdir {room}
"""
