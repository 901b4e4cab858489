"""Debian hosts under systemd, as containers, set up by the README's own words."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[2]
BASE_IMAGE = "debian:bookworm-slim"
BASE_PYTHON = (3, 11)
README_NETWORK = "10.0.0."
IN_CHECKOUT = ("hamgr", "config", "pyproject.toml", "README.md", "LICENSE")

Seen = TypeVar("Seen")


def wait_until(what: str, look: Callable[[], Seen], timeout_s: float = 60.0) -> Seen:
    """What `look` returned as soon as that was true. AssertionError with `what` and the last look after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}; last seen: {seen!r}"
        time.sleep(0.05)
    return seen


def docker(*arguments: str, timeout_s: float = 120.0) -> str:
    """What `docker ARGUMENTS` printed. Raises CalledProcessError, which shows its output, unless it exits with 0."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode != 0:
        print(f"docker {' '.join(arguments)}: {done.stdout}{done.stderr}", file=sys.stderr)
    done.check_returncode()
    return done.stdout.strip()


def why_not() -> str:
    """Why there can be no such hosts here; empty if there can."""
    if shutil.which("docker") is None:
        return "Docker is not installed"
    answer = subprocess.run(["docker", "image", "inspect", BASE_IMAGE], capture_output=True, text=True, check=False)
    if answer.returncode != 0 and "no such image" not in answer.stderr.lower():
        return f"no Docker engine answers: {answer.stderr.strip()}"
    if answer.returncode != 0:
        return f"no image {BASE_IMAGE}: docker pull it, or make it by scripts/base-images"
    if sys.version_info[:2] != BASE_PYTHON:
        return "wheels for the image's Python are built by this one, which is another version"
    return ""


def build_image(tag: str, directory: Path) -> None:
    """The image of a host on which nothing is installed yet, from this checkout. `directory`: for what goes into it."""
    context = directory / "context"
    checkout = context / "checkout"
    checkout.mkdir(parents=True)
    for name in IN_CHECKOUT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, checkout / name)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--wheel-dir", str(context / "wheels")]
    built = subprocess.run([*pip, str(checkout), "hatchling>=1.25"], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    shutil.copy(Path(__file__).with_name("Dockerfile"), context / "Dockerfile")
    docker("build", "--quiet", "--tag", tag, str(context), timeout_s=900)


def readme_blocks(section: str) -> list[str]:
    """The code blocks of a section of README.md, as a reader would copy them."""
    text = (ROOT / "README.md").read_text().split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    found = re.findall(r"^( *)```\w*\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return ["\n".join(line.removeprefix(indent) for line in block.splitlines()) + "\n" for indent, block in found]


@dataclass(slots=True)
class Host:
    """One container with systemd as its PID 1."""

    name: str
    container: str
    address: str

    def start(self, image: str, network: str) -> None:
        """It has booted. With the right to raise resource limits where this machine's root has that itself."""
        rights = ["--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", "--cgroupns", "private"]
        # Like a host of its own: what else this machine does should not decide what a test sees.
        rights += ["--security-opt", "apparmor=unconfined", "--cpu-shares", "8192"]
        limits = ["--cap-add", "SYS_RESOURCE"] if _root_may_raise_limits() else []
        places = ["--tmpfs", "/run", "--tmpfs", "/run/lock", "--network", network, "--ip", self.address]
        docker("run", "--detach", "--name", self.container, "--hostname", self.name, *rights, *limits, *places, image)
        self.wait_until_booted()

    def wait_until_booted(self) -> None:
        """All units that start at boot have been tried."""
        wait_until(
            f"{self.name} has booted",
            lambda: self.ask("systemctl is-system-running") in ("running", "degraded"),
        )

    def run(self, script: str, timeout_s: float = 300.0) -> str:
        """What the shell script printed. Raises CalledProcessError unless every command in it succeeds."""
        return docker("exec", "--workdir", "/root/hamgr", self.container, "bash", "-ec", script, timeout_s=timeout_s)

    def ask(self, script: str) -> str:
        """The same, whatever the exit status; empty from a host that is down."""
        argv = ["docker", "exec", "--workdir", "/root/hamgr", self.container, "bash", "-c", script]
        return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False).stdout.strip()

    def write(self, path: str, text: str) -> None:
        """The file holds that text; its mode stays."""
        argv = ["docker", "exec", "--interactive", "--workdir", "/root/hamgr", self.container]
        argv += ["sh", "-c", f"cat >{path}"]
        subprocess.run(argv, input=text, text=True, check=True, timeout=60)

    def show(self, name: str, unit: str = "hamgr") -> str:
        """A property of the unit."""
        return self.run(f"systemctl show --value -p {name} {unit}")

    @property
    def guard(self) -> int:
        """Pid of the service's main process; 0: there is none."""
        return int(self.show("MainPID"))

    @property
    def agent(self) -> int:
        """0: none."""
        return int(self.ask("pgrep -x hamgr-agent") or 0)

    @property
    def postmaster(self) -> int:
        """0: none."""
        return int(self.ask("head -n 1 /var/lib/postgresql/hamgr/data/postmaster.pid") or 0)

    @property
    def processes(self) -> list[str]:
        """All that run as the servers' user, which is all of guard, agent and server: pid and name."""
        return self.ask("ps -o pid=,comm= -u postgres").splitlines()

    def journal(self, since: str = "") -> list[dict[str, str]]:
        """Entries of `journalctl -u hamgr`, oldest first; from a cursor on."""
        after = f"--after-cursor='{since}'" if since else ""
        text = self.run(f"journalctl -u hamgr -o json --no-pager {after}")
        return [json.loads(line) for line in text.splitlines()]

    def cursor(self) -> str:
        """The last entry of `journalctl -u hamgr` as of now. Of another unit's it would skip the one that follows."""
        return (
            self.run("journalctl -u hamgr -n 1 -o json")
            .split('"__CURSOR":"', 1)[1]
            .split('"', 1)[0]
            .replace("\\/", "/")
        )


def _root_may_raise_limits() -> bool:
    """Whether CAP_SYS_RESOURCE (bit 24) is there to be given to a container."""
    status = Path("/proc/self/status").read_text()
    return bool(int(status.split("CapBnd:", 1)[1].split()[0], 16) >> 24 & 1)
