"""A directory and a cluster for as long as drills run, and nothing left afterwards."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from hamgr.drill.accounts import server_account
from hamgr.drill.cluster import Cluster, Plan
from hamgr.drill.errors import DrillError
from hamgr.drill.programs import missing_programs


@dataclass(slots=True)
class Session:
    """One run of `demo` or `drill`. `keep_files`: the directory stays, because somebody asked or must look."""

    directory: Path
    keep_files: bool
    cluster: Cluster | None = None
    built: int = 0

    def need_cluster(self, plan: Plan) -> Cluster:
        """The cluster, formed anew in a fresh directory if there is none. Raises DrillError."""
        if self.cluster is None:
            self.built += 1
            self.cluster = Cluster(replace(plan, directory=self.directory / f"cluster-{self.built}"))
            self.cluster.start()
        return self.cluster

    def drop_cluster(self) -> None:
        """End the cluster, if there is one; its files stay until the session ends."""
        if self.cluster is not None:
            self.cluster.close()
            self.cluster = None


@contextmanager
def open_session(directory: Path | None) -> Iterator[Session]:
    """A session in `directory`, which then stays, or in a temporary one, which goes unless told otherwise.

    SIGTERM ends it as orderly as Ctrl-C. Raises DrillError when programs are missing.
    """
    missing = missing_programs()
    if missing:
        raise DrillError(f"missing: {', '.join(missing)}; on Debian and Ubuntu: apt install {' '.join(missing)}")
    room = _empty_directory(directory)
    session = Session(room.resolve(), keep_files=directory is not None)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield session
    finally:
        session.drop_cluster()
        signal.signal(signal.SIGTERM, before)
        if not session.keep_files:
            shutil.rmtree(room, ignore_errors=True)


def _empty_directory(wanted: Path | None) -> Path:
    """The wanted directory, which must be empty or not there yet, or a temporary one.

    A new one lets the servers' account pass through it; what is secret below has modes of its own.
    """
    if wanted is not None and wanted.is_dir():
        if any(wanted.iterdir()):
            raise DrillError(f"{wanted} is not empty")
        return wanted
    if wanted is None:
        room = Path(tempfile.mkdtemp(prefix="hamgr-drill-"))
    else:
        room = wanted
        room.mkdir(parents=True)
    room.chmod(0o755)
    return room


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def plan_for(session: Session, *, on_netns: bool, ttl_s: int, store_members: int) -> Plan:
    """What to build in a session; as root the servers run as an unprivileged user."""
    return Plan(
        directory=session.directory,
        account=server_account(),
        on_netns=on_netns,
        ttl_s=ttl_s,
        store_members=store_members,
    )
