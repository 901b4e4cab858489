"""What the guard was told on its command line. Read by hand: argparse costs more memory than the guard."""

from __future__ import annotations

import os

_SECONDS = ("agent-timeout", "stop-timeout", "kill-budget")
_REQUIRED = ("runtime-dir", "data-dir", *_SECONDS)
_WATCHDOG = "watchdog"
_STAND_IN = "--stand-in"


class Orders:
    """Settings of one guard; times in nanoseconds."""

    __slots__ = (
        "agent_argv",
        "agent_timeout_ns",
        "data_dir",
        "is_stand_in",
        "kill_budget_ns",
        "runtime_dir",
        "stop_timeout_ns",
        "watchdog",
    )

    def __init__(self, arguments: list[str]) -> None:
        """Raises ValueError with what is wrong."""
        options, self.agent_argv = _split(arguments)
        self.is_stand_in = options.pop(_STAND_IN, None) is not None
        """Started by the agent in place of a dead guard; makes room for one that the service manager starts."""
        self.watchdog = _watchdog(options.pop(_WATCHDOG, ""))
        """Seconds and path of the watchdog device, None without one."""
        missing = [name for name in _REQUIRED if name not in options]
        if missing:
            raise ValueError(f"missing argument --{missing[0]}=")
        self.runtime_dir, self.data_dir = options["runtime-dir"], options["data-dir"]
        self.agent_timeout_ns, self.stop_timeout_ns, self.kill_budget_ns = (
            _nanoseconds(options, name) for name in _SECONDS
        )


def _split(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    if "--" not in arguments:
        raise ValueError("the agent's command line is missing (after --)")
    split = arguments.index("--")
    options, agent_argv = {}, arguments[split + 1 :]
    for argument in arguments[:split]:
        name, equals, value = argument.removeprefix("--").partition("=")
        if argument == _STAND_IN:
            options[_STAND_IN] = ""
        elif not equals or name not in (*_REQUIRED, _WATCHDOG):
            raise ValueError(f"unknown argument {argument}")
        else:
            options[name] = value
    if not agent_argv or not os.path.isabs(agent_argv[0]):
        raise ValueError("the agent's command line must begin with an absolute path")
    return options, agent_argv


def _nanoseconds(options: dict[str, str], name: str) -> int:
    try:
        return int(float(options[name]) * 1_000_000_000)
    except (ValueError, OverflowError):
        raise ValueError(f"--{name} takes seconds, not {options[name]}") from None


def _watchdog(text: str) -> tuple[int, str] | None:
    timeout_s, _, device = text.partition(":")
    if not text:
        return None
    if not timeout_s.isdigit() or int(timeout_s) < 1 or not os.path.isabs(device):
        raise ValueError(f"--{_WATCHDOG} takes SECONDS:/DEVICE, not {text}")
    return int(timeout_s), device
