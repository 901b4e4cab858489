"""Starting children: agent and server, each in a session of its own.

The guard has one thread, so that fork is safe. Nothing here waits for the child: its directory, its program
may lie on a hung disk. The outcome of exec comes through a close-on-exec pipe that the loop polls.

A guard may be killed at any moment, and its successor knows a child that hangs before or in its exec by the page only.
So a child runs no program before note was taken of it there, nor once its guard is gone.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # `signal` itself costs 0.7 MiB of enumerations
import os
from _collections_abc import Callable

from hamgr.guard.cgroup import ServerGroup

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD)
"""Signals that the guard has handlers for."""
# Python ignores these, and exec hands "ignored" down.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
_SERVICE_MANAGERS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


def agent_environment(runtime_dir: str) -> dict[str, str]:
    """The guard's environment without the service manager's, and where the shared page is."""
    environment = {name: value for name, value in os.environ.items() if name not in _SERVICE_MANAGERS}
    environment["HAMGR_RUNTIME_DIR"] = runtime_dir
    return environment


def server_environment() -> dict[str, str]:
    """The guard's environment without the service manager's and without hamgr's own, which may hold passwords."""
    own = ("HAMGR_", "PATRONI_")
    return {
        name: value for name, value in os.environ.items() if name not in _SERVICE_MANAGERS and not name.startswith(own)
    }


def spawn(
    argv: list[str],
    environment: dict[str, str],
    note: Callable[[int], None],
    directory: str | None = None,
    group: ServerGroup | None = None,
) -> tuple[int, int]:
    """Fork and exec `argv`, in a session of its own: with a directory as a server (no input), else as the agent.

    `note` is called with the pid before the child goes on to its program. `group`: the control group that a server is
    in, where there is one.

    Returns the pid and a non-blocking pipe end: end of file = the program runs, text = why it does not (the child
    then exits with 127). Raises OSError when the guard cannot fork.
    """
    guard = os.getpid()
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        noted, go = os.pipe2(os.O_CLOEXEC)
    except OSError:
        os.close(reader)
        os.close(writer)
        raise
    os.set_blocking(reader, False)
    # A signal to the child before its exec must not reach the guard through the shared wake-up pipe.
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        pid = os.fork()
        if pid == 0:
            os.close(go)
            _become(argv, environment, directory, group, writer, noted, guard)
        note(pid)
        os.write(go, b"!")
    except OSError:
        os.close(reader)
        raise
    finally:
        for each in (writer, noted, go):
            os.close(each)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    return pid, reader


def _become(
    argv: list[str],
    environment: dict[str, str],
    directory: str | None,
    group: ServerGroup | None,
    writer: int,
    noted: int,
    guard: int,
) -> None:
    """In the child; does not return."""
    try:
        signal.set_wakeup_fd(-1)
        if not os.read(noted, 1):
            return
        # A child that hangs before its exec must not hold the dead guard's lock, nor its socket.
        os.closerange(3, writer)
        os.closerange(writer + 1, 1024)
        for signum in (*HANDLED, *_IGNORED_BY_PYTHON):
            signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        os.setsid()
        if directory is not None:
            if group is not None:
                group.enter()
            nothing = os.open("/dev/null", os.O_RDONLY)
            os.dup2(nothing, 0)
            os.chdir(directory)
        if os.getppid() == guard:
            os.execve(argv[0], argv, environment)
    except (OSError, ValueError) as error:
        os.write(writer, f"cannot start {argv[0]}: {error}".encode(errors="replace"))
    finally:
        os._exit(127)
