"""A real server under the guard: started, busy, killed to the last backend, started again."""

import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from hamgr.guard.layout import SharedPage
from tests.guard.bench import Bench, descendants, living, start_ticks, wait_until

_PROGRAMS = next(
    (path for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True) if (path / "initdb").exists()),
    None,
)


def server_user() -> str | None:
    """Who may run the server: us, unless we are root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@pytest.fixture
def server_bench(bench: Bench) -> Bench:
    """A bench that belongs to the server's user, with a fresh cluster in its data directory."""
    if _PROGRAMS is None:
        pytest.skip("no PostgreSQL here")
    user = server_user()
    if user:
        for path in (bench.runtime_dir, bench.data_dir):
            shutil.chown(path, user)
    bench.data_dir.chmod(0o700)
    subprocess.run(
        [str(_PROGRAMS / "initdb"), "-A", "trust", "-U", "admin", "--no-sync", "-D", str(bench.data_dir)],
        user=user,
        check=True,
        capture_output=True,
        cwd="/",
    )
    return bench


def start_postgres(bench: Bench) -> int:
    """Start it on a socket in the runtime directory; the pid once it accepts queries."""
    arguments = ["-D", str(bench.data_dir), "-k", str(bench.runtime_dir), "-c", "listen_addresses=", "-F"]
    # setpriv executes the server in its own place: same pid.
    user = server_user()
    become = ["/usr/bin/setpriv", f"--reuid={user}", "--clear-groups", "--"] if user else []
    kind, pid, _ = bench.ask("start", *become, f"{_PROGRAMS}/postgres", *arguments)
    assert kind == "started"
    bench.to_end.append(int(pid))
    wait_until(lambda: sql(bench, "select 1").returncode == 0, "it answers")
    return int(pid)


def sql(bench: Bench, text: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [f"{_PROGRAMS}/psql", "-XqAt", "-h", str(bench.runtime_dir), "-U", "admin", "-d", "postgres", "-c", text],
        capture_output=True,
        check=False,
    )


def busy_sessions(bench: Bench, count: int) -> list[subprocess.Popen[bytes]]:
    loop = "do $$ begin loop perform count(*) from generate_series(1, 1000); end loop; end $$"
    arguments = ["-h", str(bench.runtime_dir), "-U", "admin", "-d", "postgres", "-c", loop]
    return [subprocess.Popen([f"{_PROGRAMS}/psql", "-Xq", *arguments], stderr=subprocess.DEVNULL) for _ in range(count)]


def test_deadline_kills_busy_backends_and_the_server_starts_again_at_once(server_bench: Bench) -> None:
    bench = server_bench
    bench.run("beat")
    postmaster = start_postgres(bench)
    sessions = busy_sessions(bench, 2)
    busy = "select count(*) from pg_stat_activity where state = 'active' and query like 'do %'"
    wait_until(lambda: sql(bench, busy).stdout.strip() == b"2", "both sessions are busy")
    tree = [postmaster, *descendants(postmaster)]
    bench.page.arm(1, postmaster, start_ticks(postmaster))
    wait_until(lambda: bench.page.fenced_at_ns, "the guard has fenced")
    assert living(tree) == []
    assert bench.page.fenced_processes >= 8
    assert all(session.wait(20) for session in sessions)
    assert bench.answer() == ["exited", str(postmaster), str(int(signal.SIGKILL))]
    bench.page.disarm()
    start_postgres(bench)
    assert bench.kill() >= 6


def test_backends_that_outlive_their_postmaster_are_killed(server_bench: Bench) -> None:
    bench = server_bench
    bench.run("beat")
    postmaster = start_postgres(bench)
    sessions = busy_sessions(bench, 1)
    busy = "select pid from pg_stat_activity where state = 'active' and query like 'do %'"
    wait_until(lambda: sql(bench, busy).stdout.strip(), "the session is busy")
    backend = int(sql(bench, busy).stdout)
    os.kill(postmaster, signal.SIGKILL)
    assert bench.answer() == ["exited", str(postmaster), str(int(signal.SIGKILL))]
    assert living([backend])
    assert bench.kill() >= 1
    assert living([backend]) == []
    assert sessions[0].wait(20)


def test_server_survives_agent_and_guard(server_bench: Bench) -> None:
    bench = server_bench
    bench.run("beat")
    postmaster = start_postgres(bench)
    bench.page.arm(0, postmaster, start_ticks(postmaster))
    for victim in (bench.page.agent_pid, bench.page.guard_pid):
        os.kill(victim, signal.SIGKILL)
    assert bench.guard is not None
    bench.guard.wait()
    bench.run("beat")
    assert isinstance(bench.page, SharedPage)
    assert sql(bench, "select 1").returncode == 0
    assert bench.kill() >= 6
    assert living([postmaster]) == []
