"""The guard's socket."""

import os
import signal
import socket
import stat

import pytest

from hamgr.guard.keeper import SECOND
from hamgr.guard.layout import boottime_ns
from tests.guard.bench import DEADLINE_S, Bench, is_alive, wait_until


def test_socket_is_private(bench: Bench) -> None:
    bench.run("beat")
    assert stat.S_IMODE((bench.runtime_dir / "guard.sock").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (["start"], "absolute path"),
        (["start", "postgres"], "absolute path"),
        (["start", "/no/such/postgres"], "cannot start /no/such/postgres: [Errno 2]"),
        (["start", "/etc/passwd"], "Permission denied"),
        (["dance"], "unknown command 'dance'"),
        (["ping", "twice"], "unknown command"),
    ],
)
def test_bad_command_is_answered_with_what_is_wrong(bench: Bench, command: list[str], complaint: str) -> None:
    bench.run("beat")
    kind, text = bench.ask(*command)
    assert kind == "error"
    assert complaint in text
    assert bench.ask("ping")[0] == "pong"


def test_missing_data_directory_is_an_error_of_start(bench: Bench) -> None:
    bench.run("beat")
    bench.data_dir.rmdir()
    kind, text = bench.ask("start", bench.postgres, "-c", ":")
    assert kind == "error"
    assert str(bench.data_dir) in text


def test_no_server_starts_under_a_deadline_that_has_passed(bench: Bench) -> None:
    """It was armed before its start, and the guard has kept that deadline: it would be bound by none."""
    bench.run("beat")
    bench.page.arm(boottime_ns() + 60 * SECOND, 0, 0)
    assert bench.ask("start", bench.postgres, "-c", "sleep 1000")[0] == "started"
    bench.kill()
    bench.page.arm(boottime_ns() + SECOND // 2, 0, 0)
    assert bench.ask("ping")[0] == "pong"
    fenced = bench.page.fenced_at_ns
    wait_until(lambda: bench.page.fenced_at_ns > fenced, "the deadline is kept")
    assert bench.ask("start", bench.postgres, "-c", ":") == ["error", "the deadline that it was armed for has passed"]
    bench.page.arm(boottime_ns() + 60 * SECOND, 0, 0)
    assert bench.ask("start", bench.postgres, "-c", ":")[0] == "started"


def test_end_of_a_server_is_told_to_every_client(bench: Bench) -> None:
    bench.run("beat")
    second = bench.connect()
    second.send(b"ping")
    assert second.recv(100).startswith(b"pong")
    kind, pid, _ = bench.ask("start", bench.postgres, "-c", "exit 3")
    assert kind == "started"
    assert bench.answer() == ["exited", pid, str(3 << 8)]
    assert second.recv(100).decode().split("\0") == ["exited", pid, str(3 << 8)]


def _took_a_ping(client: socket.socket) -> bool:
    try:
        client.send(b"ping")
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


def test_client_that_does_not_read_blocks_nobody(bench: Bench) -> None:
    bench.run("beat")
    stuck = bench.connect()
    stuck.setblocking(False)
    wait_until(lambda: not _took_a_ping(stuck), "the guard has dropped it")

    def answered() -> bool:
        return bench.ask("ping")[0] == "pong"

    wait_until(answered, "another client is served")


def test_client_that_leaves_before_its_answer_harms_nobody(bench: Bench) -> None:
    bench.run("beat")
    hasty = bench.connect()
    hasty.send("\0".join(["start", bench.postgres, "-c", "sleep 1000; :"]).encode())
    hasty.close()
    assert bench.ask("ping")[0] == "pong"
    assert bench.kill() > 0


def test_too_many_clients_do_not_shut_out_the_first(bench: Bench) -> None:
    bench.run("beat")
    crowd = [bench.connect() for _ in range(20)]
    assert bench.ask("ping")[0] == "pong"
    for client in crowd:
        client.close()

    def served() -> bool:
        late = bench.connect()
        late.settimeout(DEADLINE_S)
        try:
            late.send(b"ping")
            return late.recv(100).startswith(b"pong")
        except OSError:
            return False
        finally:
            late.close()

    wait_until(served, "there is room again")


def test_too_long_a_command_is_refused(bench: Bench) -> None:
    bench.run("beat")
    bench.client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    kind, _ = bench.ask("start", "/bin/true", "x" * 100_000)
    assert kind == "error"


def test_end_of_a_postmaster_that_is_nobodys_child_is_told(bench: Bench) -> None:
    bench.run("beat")
    tree = bench.start_server()
    bench.arm(tree[0], in_s=1000)
    assert bench.guard is not None
    bench.guard.kill()
    bench.guard.wait()
    bench.run("beat")
    bench.ask("ping")
    os.kill(tree[0], signal.SIGKILL)
    assert bench.answer() == ["exited", str(tree[0]), "-1"]
    assert is_alive(bench.page.agent_pid)
