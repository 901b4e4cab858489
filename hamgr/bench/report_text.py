"""What the report says in words: it is the same whatever was measured."""

from __future__ import annotations

from collections.abc import Mapping

HEAD = """\
# Benchmark: hamgr, Patroni and pg_auto_failover side by side

<!-- Written by scripts/bench from {results}: never by hand. `scripts/bench --report-only` makes it anew. -->

All figures of this page come from these calls, and all runs, one by one, are in [{results}]({results}):
"""

HOW_TO_READ = """\
## How to read it

**What runs.** Three database hosts, three hosts for etcd (pg_auto_failover: one for its monitor) and one for the client
are network namespaces of one machine, each with its own address. PostgreSQL, etcd, initdb's options and the servers'
parameters are the same for all. hamgr and Patroni get the same configuration file, but for the keys that only one of
them has; `use_pg_rewind` is on for both. Replication is asynchronous, but for pg_auto_failover, which is synchronous as
it comes. There is no watchdog device, and no service manager starts anything again.

**Timings.** hamgr: its default `ttl` 5 s, and 2 s, the shortest that etcd grants. Patroni: its defaults (`ttl` 30,
`loop_wait` 10, `retry_timeout` 10) and the shortest that it accepts (20, 1, 3), each also with `failsafe_mode`
(off by default). pg_auto_failover: its defaults, and tight ones: health checks every half second with
one retry, `node_considered_unhealthy_timeout` and `network_partition_timeout` 2 s, `primary_demote_timeout` 1 s,
`wal_retrieve_retry_interval` 0.2 s. It would accept a millisecond for each; these keep the order that it needs, namely
that a primary which is cut off stops itself before another one leads. The rest of its time is its keepers' loop of 1 s.

**Who measures.** A client that knows nothing of the managers: one writer that commits a row every 4 ms, like an
application that knows all three hosts, and one writer pinned to each host that tries all the time. A fault strikes at a
random instant, at least one whole period after the cluster has settled. A cluster has settled when PostgreSQL says so
on each host: one primary, all others stream its timeline.

- *Write gap*: the longest time between two acknowledged rows of the application, from just before the fault until every
  host is back in its place. A gap as long as the fault means that the manager sat it out.
- *Two primaries*: how long two servers certainly accepted writes at the same time.
- *Acknowledged writes lost*: rows of all writers that were acknowledged and that the primary does not have at the end.
- *Leader changes*: how often another server accepted writes than before, for whatever reason.
- *All back in place*: from the end of the fault until every host is primary or streams from it, by SQL. Where a manager
  does not get there within 120 s it says so, and the next run has a new cluster.

**Medians and ranges** are over the runs of the table. *Times hamgr's* is the median against that of hamgr with its
defaults. **Bold** is a median better than that one's by more than can be told apart (5 ms for a gap: the client writes
every 4 ms). Runs that take milliseconds had the machine to themselves; those that take seconds may have had other
clusters beside them (`--jobs`).
One machine with little load and a small database: what counts is the ratio, not the milliseconds.
"""

FAULT_NOTES: Mapping[str, str] = {
    "switchover": "Asked as an operator would: POST /switchover, or `pg_autoctl perform switchover`.",
    "postgres-killed": "SIGKILL to the postmaster. Patroni starts it again in place (`primary_start_timeout` 300).",
    "host-lost": "The cable is pulled and everything on the host killed; it comes back once writes flow again.",
    "agent-killed": (
        "SIGKILL to the process that decides; whatever supervises it within the manager lives. After 60 s it is started"
        " again where it is still gone."
    ),
    "manager-killed": (
        "As before, but guard *and* agent of hamgr, and all processes of `pg_autoctl`; Patroni has one process anyway."
        " Nobody starts them again for 60 s."
    ),
    "agent-frozen": "SIGSTOP to the process that decides, SIGCONT after 60 s.",
    "isolated": (
        "Packets between the primary and etcd (monitor) and the other database hosts are dropped both ways. A primary"
        " without synchronous standbys acknowledges until it knows; what it acknowledged then is lost."
    ),
    "etcd-unresponsive": "SIGSTOP to all of etcd; pg_auto_failover: to everything on the monitor's host.",
    "postgres-hung": "SIGSTOP to postmaster and all its children, SIGCONT after 60 s.",
    "etcd-leader-killed": "SIGKILL to etcd's leader; pg_auto_failover has one monitor: it is killed.",
    "replica-lost": "As a lost host, but of a replica.",
    "disk-full": "Not a block is free on the disk of data and WAL of the primary; after 60 s they are.",
    "idle": (
        "Over a minute without a client. The manager is its agent and whatever supervises it: hamgr's guard,"
        " `pg_autoctl`'s three processes. CPU of PostgreSQL includes what the managers ask of it."
    ),
    "rest": (
        "Asked from another host over so many connections, one request after the other on each. A server that closes"
        " each connection after its answer is connected to anew, which counts."
    ),
}
"""Of faults and costs: what exactly is done."""

CLOSING = """
## To run it again

```
scripts/bench --runs 5 --jobs 3
```

as root on Debian, with nothing else running: it installs what is missing, Patroni into an environment of its own. It
takes hours; it may be interrupted and continued with `--resume`. `scripts/bench --help` says how to run a part of it.
"""
