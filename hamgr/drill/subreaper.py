"""Parent of everything that runs on one drill host: a program of its own, standard library only.

Started as `python -I -S subreaper.py [--netns]`. It makes itself the reaper of all its descendants (also of
those that called setsid), so that the death of any of them is known at once and the whole host can be killed
or frozen together. With --netns it first moves into a fresh network namespace, which vanishes with it.

Requests are JSON lines on stdin, answers and notices JSON lines on stdout:
  {"id", "do": "spawn", "argv", "env", "cwd", "log", "uid", "gid"}  -> {"id", "pid"} or {"id", "error"}
  {"id", "do": "signal_all", "signal"}                              -> {"id", "count"}
  {"id", "do": "keep"}                                              -> {"id"}
  notice: {"exited": pid, "status": wait status, "at_ns": CLOCK_MONOTONIC}
End of file on stdin kills every descendant and ends, so that nothing outlives a drill that was itself killed;
after `keep` only SIGTERM does.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time
from typing import Any

_PR_SET_CHILD_SUBREAPER = 36
_CLONE_NEWNET = 0x40000000
_DEAD_STATES = ("Z", "X")


def _call_libc(name: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def _processes() -> dict[int, tuple[int, bool]]:
    """pid -> parent's pid, and whether it lives, of every process of this machine."""
    found: dict[int, tuple[int, bool]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as stat:
                # The command is in parentheses and may hold spaces and parentheses itself.
                state, parent = stat.read().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        found[int(entry)] = int(parent), state not in _DEAD_STATES
    return found


def descendants(root: int) -> list[int]:
    """Living descendants of `root`, parents before their children.

    Also those below a zombie: while other threads of it are still ending it is their parent.
    """
    processes = _processes()
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in processes.items():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    queue = [root]
    while queue:
        below = children.get(queue.pop(0), [])
        found += below
        queue += below
    return [pid for pid in found if processes[pid][1]]


def signal_all(number: int) -> int:
    """Send signal `number` to all descendants, parents first; SIGKILL is repeated until none lives.

    Parents first, because a parent that still runs would replace the child. Returns how many were signalled.
    """
    count = 0
    while True:
        living = descendants(os.getpid())
        for pid in living:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
                count += 1
        if number != signal.SIGKILL or not living:
            return count


def _become(request: dict[str, Any]) -> None:
    """In the child: log, session, user and directory, then the program. Does not return."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if request.get("uid") is not None:
        os.setgroups([request["gid"]])
        os.setgid(request["gid"])
        os.setuid(request["uid"])
    os.chdir(request["cwd"])
    os.execvpe(request["argv"][0], request["argv"], request["env"])


def _spawn(request: dict[str, Any]) -> dict[str, Any]:
    """Start one program. A failure to execute is an answer, not a silent death."""
    report_read, report_write = os.pipe()  # closed by a successful exec
    pid = os.fork()
    if pid == 0:
        try:
            _become(request)
        except OSError as error:
            os.write(report_write, str(error).encode())
        finally:
            os._exit(127)
    os.close(report_write)
    with open(report_read, "rb") as report:
        failure = report.read().decode(errors="replace")
    return {"error": failure} if failure else {"pid": pid}


class Reaper:
    """The loop: requests, deaths of children, end of file."""

    def __init__(self) -> None:
        self.kept = False
        self.ending = False
        self.unread = b""
        self.awake, wake = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(self.awake, False)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._end)
        # Ctrl-C goes to the whole foreground group: the drill decides what it means, not its reapers.
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)

    def _end(self, *_: object) -> None:
        self.ending = True

    def tell(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # nobody reads any more after `keep`
            os.write(1, json.dumps(message).encode() + b"\n")

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.tell({"exited": pid, "status": status, "at_ns": time.monotonic_ns()})

    def answer(self, line: bytes) -> None:
        request = json.loads(line)
        answer: dict[str, Any] = {}
        if request["do"] == "spawn":
            answer = _spawn(request)
        elif request["do"] == "signal_all":
            answer = {"count": signal_all(request["signal"])}
        elif request["do"] == "keep":
            self.kept = True
        # The answer goes out before the notice of an exit that it explains.
        self.tell({"id": request["id"], **answer})

    def read_requests(self) -> bool:
        """Answer what is there; False at end of file."""
        piece = os.read(0, 65536)
        *lines, self.unread = (self.unread + piece).split(b"\n")
        for line in lines:
            self.answer(line)
        return bool(piece)

    def run(self) -> None:
        inputs = [0, self.awake]
        self.tell({"ready": os.getpid()})
        while not self.ending:
            readable, _, _ = select.select(inputs, [], [])
            if self.awake in readable:
                with contextlib.suppress(BlockingIOError):
                    os.read(self.awake, 4096)
            self.reap()
            if 0 in readable and not self.read_requests():
                inputs.remove(0)
                self.ending = not self.kept
        signal_all(signal.SIGKILL)


if __name__ == "__main__":
    _call_libc("prctl", _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if "--netns" in sys.argv:
        _call_libc("unshare", _CLONE_NEWNET)
    Reaper().run()
