"""The guard's start: arguments, the lock that makes it the only one, then the loop."""

from __future__ import annotations

import fcntl
import os

from hamgr.guard.host import lock_memory, raise_priority, say, take_name
from hamgr.guard.layout import PAGE_NAME, SharedPage
from hamgr.guard.loop import Guard
from hamgr.guard.processes import read_process

EXIT_USAGE = 2
EXIT_SECOND_GUARD = 3
_OPTIONS = ("runtime-dir", "data-dir", "agent-timeout", "stop-timeout", "kill-budget")


def parse(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Options by name and the agent's command line. Raises ValueError with what is wrong.

    By hand: argparse costs more memory than the guard.
    """
    if "--" not in arguments:
        raise ValueError("the agent's command line is missing (after --)")
    split = arguments.index("--")
    options, agent_argv = {}, arguments[split + 1 :]
    for argument in arguments[:split]:
        name, equals, value = argument.removeprefix("--").partition("=")
        if not equals or name not in _OPTIONS:
            raise ValueError(f"unknown argument {argument}")
        options[name] = value
    missing = [name for name in _OPTIONS if name not in options]
    if missing:
        raise ValueError(f"missing argument --{missing[0]}=")
    if not agent_argv or not os.path.isabs(agent_argv[0]):
        raise ValueError("the agent's command line must begin with an absolute path")
    return options, agent_argv


def _nanoseconds(options: dict[str, str], name: str) -> int:
    try:
        return int(float(options[name]) * 1_000_000_000)
    except (ValueError, OverflowError):
        raise ValueError(f"--{name} takes seconds, not {options[name]}") from None


def _lock(runtime_dir: str) -> bool:
    """Lock the page for as long as this process lives; False when another guard has it.

    On a descriptor of its own: a mapping would carry the lock into a child that hangs before its exec.
    """
    file_no = os.open(os.path.join(runtime_dir, PAGE_NAME), os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(file_no, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file_no)
        return False
    return True


def main(arguments: list[str]) -> int:
    """Run the guard to its end; the exit status."""
    try:
        options, agent_argv = parse(arguments)
        timeouts = [_nanoseconds(options, name) for name in _OPTIONS[2:]]
    except ValueError as error:
        say(str(error))
        return EXIT_USAGE
    take_name()
    try:
        page = SharedPage.open(options["runtime-dir"])
    except OSError as error:
        say(f"cannot open the page in {options['runtime-dir']}: {error.strerror}")
        return EXIT_USAGE
    if not _lock(options["runtime-dir"]):
        say(f"another guard, pid {page.guard_pid}, holds {options['runtime-dir']}")
        return EXIT_SECOND_GUARD
    own = read_process(os.getpid())
    page.guard_start_ticks = own.start_ticks if own else 0
    page.guard_pid = os.getpid()
    for complaint in (raise_priority(), lock_memory()):
        if complaint:
            say(complaint)
    try:
        guard = Guard(page, options["runtime-dir"], options["data-dir"], agent_argv, *timeouts)
    except OSError as error:
        say(f"cannot listen in {options['runtime-dir']}: {error}")
        return EXIT_USAGE
    return guard.run()
