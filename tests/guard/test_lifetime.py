"""One guard at a time; its orderly end; what happens after a disorderly one."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.guard.bench import DEAF_TREE, Bench, is_alive, living, wait_until


def end_of(bench: Bench) -> int:
    assert bench.guard is not None
    return bench.guard.wait(20)


def test_second_guard_is_refused_and_names_the_first(bench: Bench) -> None:
    bench.run("beat")
    second = subprocess.run(bench.argv("beat"), capture_output=True, text=True, check=False)
    assert second.returncode == 3
    assert f"another guard, pid {bench.page.guard_pid}," in second.stderr
    assert bench.ask("ping")[0] == "pong"


def test_sigterm_waits_for_the_agent_and_ends_with_zero(bench: Bench) -> None:
    bench.run("beat")
    agent = bench.page.agent_pid
    os.kill(bench.page.guard_pid, signal.SIGTERM)
    assert end_of(bench) == 0
    assert not is_alive(agent)
    assert not (bench.runtime_dir / "guard.sock").exists()


def test_sigterm_stops_the_server_itself_when_the_agent_does_not(bench: Bench) -> None:
    bench.run("deaf", stop_timeout_s=1)
    tree = bench.start_server("trap 'touch stopped; exit' INT; sleep 1000 & wait", size=2)
    os.kill(bench.page.guard_pid, signal.SIGTERM)
    wait_until((bench.data_dir / "stopped").exists, "the postmaster was asked to stop")
    assert end_of(bench) == 1
    assert not is_alive(tree[0])
    bench.wait_until_said("agent did not stop in time")


def test_sigterm_fences_a_server_that_does_not_stop(bench: Bench) -> None:
    bench.run("deaf", stop_timeout_s=1)
    tree = bench.start_server(DEAF_TREE, size=3)
    os.kill(bench.page.guard_pid, signal.SIGTERM)
    assert end_of(bench) == 1
    assert living(tree) == []


def test_disarmed_server_is_left_running_when_the_agent_ends_in_order(bench: Bench) -> None:
    bench.run("beat-then-exit", "0")
    tree = bench.start_server()
    (bench.runtime_dir / "go").touch()
    assert end_of(bench) == 0
    assert all(map(is_alive, tree))
    bench.wait_until_said("left running, disarmed")


def test_armed_server_is_guarded_to_its_deadline_when_the_agent_ends(bench: Bench) -> None:
    bench.run("beat-then-exit", "0")
    tree = bench.start_server()
    bench.arm(tree[0], in_s=1.5)
    (bench.runtime_dir / "go").touch()
    assert end_of(bench) == 1
    assert living(tree) == []
    bench.wait_until_said("guarding it to its deadline")


def test_new_guard_adopts_agent_and_server_of_a_killed_one(bench: Bench) -> None:
    bench.run("beat")
    tree = bench.start_server()
    agent = bench.page.agent_pid
    bench.arm(tree[0], in_s=1000)
    assert bench.guard is not None
    bench.guard.kill()
    bench.guard.wait()
    bench.run("beat")
    assert bench.page.agent_pid == agent
    assert len(bench.agent_log()) == 1
    assert all(map(is_alive, tree))
    os.kill(agent, signal.SIGKILL)
    wait_until(lambda: bench.page.agent_pid != agent, "the adopted agent is kept alive too")
    assert all(map(is_alive, tree))


def test_new_guard_keeps_the_deadline_of_a_killed_one(bench: Bench) -> None:
    bench.run("beat")
    tree = bench.start_server()
    bench.arm(tree[0], in_s=1.0)
    assert bench.guard is not None
    bench.guard.kill()
    bench.guard.wait()
    bench.run("beat")
    wait_until(lambda: bench.page.fenced_at_ns, "the new guard has fenced")
    assert living(tree) == []


def test_adopted_agent_ends_in_order_too(bench: Bench) -> None:
    bench.run("beat")
    assert bench.guard is not None
    bench.guard.kill()
    bench.guard.wait()
    bench.run("beat")
    os.kill(bench.page.guard_pid, signal.SIGTERM)
    assert end_of(bench) == 0


def test_service_manager_hears_of_readiness_life_and_end(bench: Bench) -> None:
    ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ear.bind(str(bench.root / "notify"))
    ear.settimeout(20)
    environment = {**os.environ, "NOTIFY_SOCKET": str(bench.root / "notify"), "WATCHDOG_USEC": "400000"}
    bench.guard = subprocess.Popen(bench.argv("beat"), stderr=bench.stderr, env=environment)
    heard = [ear.recv(100) for _ in range(3)]
    assert heard == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
    wait_until(lambda: len(bench.agent_log()) == 1, "the agent runs")
    environ = Path(f"/proc/{bench.agent_log()[0].split()[1]}/environ").read_text()
    assert "NOTIFY_SOCKET" not in environ
    assert "HAMGR_RUNTIME_DIR" in environ
    bench.guard.terminate()
    bench.guard.wait(20)
    told = b""
    while told != b"STOPPING=1":
        told = ear.recv(100)


def test_service_manager_shows_what_the_agent_says_of_the_member_and_nothing_else(bench: Bench) -> None:
    ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ear.bind(str(bench.root / "notify"))
    ear.settimeout(20)
    environment = {**os.environ, "NOTIFY_SOCKET": str(bench.root / "notify")}
    bench.guard = subprocess.Popen(bench.argv("beat"), stderr=bench.stderr, env=environment)
    assert ear.recv(100) == b"READY=1"
    client = bench.connect()
    client.send(b"status\0leader in term 3\nWATCHDOG=1\n" + b"x" * 1000)
    assert ear.recv(1000) == b"STATUS=leader in term 3 WATCHDOG=1 " + b"x" * 472
    wait_until(lambda: len(bench.agent_log()) == 1, "the agent runs")
    os.kill(int(bench.agent_log()[0].split()[1]), signal.SIGKILL)
    assert ear.recv(1000) == b"STATUS=agent died of signal 9, next one at once"


def test_journal_gets_a_priority_and_other_logs_do_not(bench: Bench) -> None:
    log = bench.root / "journal"
    with log.open("wb") as journal:
        found = os.fstat(journal.fileno())
        for inode in (found.st_ino, found.st_ino + 1):
            environment = {**os.environ, "JOURNAL_STREAM": f"{found.st_dev}:{inode}"}
            subprocess.run([*bench.argv("beat")[:4], "--dance"], stderr=journal, env=environment, check=False)
    complaint = "hamgr-guard: the agent's command line is missing (after --)"
    assert log.read_text().splitlines() == [f"<3>{complaint}", complaint]


def test_arguments_that_make_no_sense_are_refused(bench: Bench) -> None:
    good = bench.argv("beat")
    for argv in (good[:-4], [*good[:5], "--dance=1", *good[5:]], [a.replace("-timeout=1", "-timeout=x") for a in good]):
        refused = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert refused.returncode == 2
        assert refused.stderr.startswith("hamgr-guard: ")


def test_guard_is_small(bench: Bench) -> None:
    bench.run("beat")
    bench.ask("ping")
    # In a file: from 3.14 on, what is given by -c is taken apart with `re` first.
    asking = bench.root / "asking.py"
    asking.write_text("import sys; sys.path.append('.'); import hamgr.guard.program; print(*sys.modules)")
    loaded = subprocess.run(
        [*bench.argv()[:3], str(asking)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    heavy = {"typing", "socket", "subprocess", "json", "logging", "threading", "asyncio", "dataclasses", "enum", "re"}
    # ctypes brings it from 3.14 on.
    heavy -= {"threading"} if sys.version_info >= (3, 14) else set()
    assert not heavy & set(loaded)
    assert not [name for name in loaded if name.startswith("hamgr.") and not name.startswith("hamgr.guard")]


def test_runtime_directory_too_deep_for_a_socket_is_said(bench: Bench) -> None:
    bench.runtime_dir = bench.root / ("x" * 100)
    bench.runtime_dir.mkdir()
    refused = subprocess.run(bench.argv("beat"), capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "cannot listen" in refused.stderr
    assert "Traceback" not in refused.stderr
