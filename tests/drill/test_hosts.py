"""A drill host has power over all that runs on it, and nothing of it outlives the drill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hamgr.drill.accounts import interpreter_for, server_account
from hamgr.drill.errors import DrillError
from hamgr.drill.hosts import Host
from hamgr.drill.network import Network, free_port
from hamgr.drill.subreaper import descendants

_FAMILY = "setsid sleep 1000 & sleep 1000 & wait"

_MAIN_THREAD_ENDS = """
import ctypes, subprocess, threading, time
threading.Thread(target=time.sleep, args=(1000,)).start()
subprocess.Popen(["sleep", "1000"])
ctypes.CDLL(None).pthread_exit(None)
"""
"""Then /proc shows the process as a zombie, though a thread of it lives on as its child's parent."""


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def state_of(pid: int) -> str:
    """Process state letter, Z for one that does not exist."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def family(host: Host, room: Path) -> list[int]:
    """Three processes, one of which left the session."""
    process = host.spawn(["sh", "-c", _FAMILY], room / "family.log")
    wait_until(lambda: len(descendants(host.pid)) == 3)
    return [process.pid, *descendants(process.pid)]


def test_kill_all_leaves_nothing_alive_not_even_what_left_the_session(hosts: dict[str, Host], room: Path) -> None:
    pids = family(hosts["a"], room)
    assert hosts["a"].kill_all() >= 3
    assert all(state_of(pid) == "Z" for pid in pids)


def test_kill_all_reaches_below_a_process_whose_threads_end_one_by_one(hosts: dict[str, Host], room: Path) -> None:
    ending = hosts["a"].spawn([sys.executable, "-c", _MAIN_THREAD_ENDS], room / "ending.log", as_account=False)
    wait_until(lambda: state_of(ending.pid) == "Z")
    (child,) = descendants(ending.pid)
    assert child in descendants(hosts["a"].pid)
    hosts["a"].kill_all()
    assert state_of(child) == "Z"


def test_kill_all_spares_other_hosts(hosts: dict[str, Host], room: Path) -> None:
    spared = hosts["b"].spawn(["sleep", "1000"], room / "b.log")
    hosts["a"].kill_all()
    assert state_of(spared.pid) != "Z"


def test_frozen_host_runs_again_after_thaw(hosts: dict[str, Host], room: Path) -> None:
    pids = family(hosts["a"], room)
    hosts["a"].freeze_all()
    wait_until(lambda: all(state_of(pid) == "T" for pid in pids))
    hosts["a"].thaw_all()
    wait_until(lambda: all(state_of(pid) == "S" for pid in pids))


def test_closed_host_takes_everything_with_it(hosts: dict[str, Host], room: Path) -> None:
    pids = family(hosts["a"], room)
    hosts["a"].close()
    assert all(state_of(pid) == "Z" for pid in pids)


def test_nothing_outlives_a_drill_that_was_killed(room: Path) -> None:
    drill = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from hamgr.drill.hosts import loopback_hosts\n"
            f"room = Path({str(room)!r})\n"
            "host = loopback_hosts(['x'], room, None)['x']\n"
            f"host.spawn(['sh', '-c', {_FAMILY!r}], room / 'x.log')\n"
            "print(host.pid, flush=True); time.sleep(1000)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert drill.stdout is not None
    reaper = int(drill.stdout.readline())
    wait_until(lambda: len(descendants(reaper)) == 3)
    pids = [reaper, *descendants(reaper)]
    drill.kill()
    drill.wait()
    wait_until(lambda: all(state_of(pid) == "Z" for pid in pids))


def test_program_that_cannot_be_executed_is_an_error_that_names_it(hosts: dict[str, Host], room: Path) -> None:
    with pytest.raises(DrillError, match="no-such-program"):
        hosts["a"].spawn(["no-such-program"], room / "x.log")


def test_run_that_fails_shows_its_output(hosts: dict[str, Host]) -> None:
    with pytest.raises(DrillError, match="the reason"):
        hosts["a"].run(["sh", "-c", "echo the reason; exit 3"])


def test_exit_status_of_a_program_that_ends_at_once_is_known(hosts: dict[str, Host], room: Path) -> None:
    for _ in range(20):
        process = hosts["a"].spawn(["false"], room / "x.log")
        assert process.ended.wait(10)
        assert os.waitstatus_to_exitcode(process.status or 0) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_programs_run_as_an_unprivileged_user_who_can_run_hamgr(hosts: dict[str, Host], room: Path) -> None:
    assert hosts["a"].run(["id", "-u"]).strip() != "0"
    python = interpreter_for(server_account(), room)
    said = hosts["a"].run([str(python), "-c", "import hamgr, os; print(os.getuid(), hamgr.__file__)"])
    assert said.split()[0] != "0"


def test_ports_handed_out_are_free_distinct_and_outside_the_outgoing_range() -> None:
    taken: set[int] = set()
    ports = [free_port("127.0.0.1", taken) for _ in range(50)]
    lowest_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert len(set(ports)) == 50
    assert max(ports) < lowest_outgoing


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_hosts_of_a_network_reach_each_other_until_cut_beside_another_network_and_leave_no_link(room: Path) -> None:
    links_before = set(os.listdir("/sys/class/net"))
    network, another = Network(["x", "y"], room / "net", None), Network(["x"], room / "another", None)
    try:
        x, y = network.hosts["x"], network.hosts["y"]
        y.spawn([sys.executable, "-m", "http.server", "8000", "--bind", y.address], room / "y.log")
        fetch = [
            sys.executable,
            "-c",
            f"import socket; socket.create_connection(('{y.address}', 8000), 0.5)",
        ]

        def reaches() -> bool:
            try:
                x.run(fetch)
            except DrillError:
                return False
            return True

        wait_until(reaches)
        network.cut(y)
        assert not reaches()
        network.mend(y)
        wait_until(reaches)
    finally:
        network.close()
        another.close()
    wait_until(lambda: set(os.listdir("/sys/class/net")) <= links_before)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
