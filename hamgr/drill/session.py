"""A directory and a cluster for as long as drills run, and nothing left afterwards."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

from hamgr.drill.base_cluster import BaseCluster
from hamgr.drill.cluster import Cluster
from hamgr.drill.compose_cluster import ComposeCluster
from hamgr.drill.errors import DrillError
from hamgr.drill.plan import Place, Plan
from hamgr.drill.programs import missing_programs

_CLUSTER = "cluster"


@dataclass(slots=True)
class Session:
    """One run of `demo` or `drill`. `keep_files`: the directory stays, because somebody asked or must look."""

    directory: Path
    keep_files: bool
    cluster: BaseCluster | None = None
    built: int = 0
    evidence: list[Path] = field(default_factory=list)
    """Folders that stay in any case."""

    def need_cluster(self, plan: Plan) -> BaseCluster:
        """The cluster, formed anew in a fresh directory if there is none. Raises DrillError."""
        if self.cluster is None:
            self.built += 1
            room = self.directory / f"{_CLUSTER}-{self.built}"
            kind = ComposeCluster if plan.place is Place.COMPOSE else Cluster
            self.cluster = kind(replace(plan, directory=room))
            self.cluster.start()
        return self.cluster

    def drop_cluster(self) -> None:
        """End the cluster, if there is one, and remove its files unless they are to stay."""
        if self.cluster is not None:
            ended, self.cluster = self.cluster, None
            ended.close()
            if not self.keep_files:
                shutil.rmtree(ended.plan.directory, ignore_errors=True)

    def new_evidence(self, name: str) -> Path:
        """A folder, not made yet, that outlives this session."""
        self.evidence.append(self.directory / "failed" / name)
        return self.evidence[-1]


@contextmanager
def open_session(directory: Path | None, place: Place = Place.LOOPBACK, **needs: bool) -> Iterator[Session]:
    """A session in `directory`, which then stays, or in a temporary one, which goes but for evidence of failures.

    `needs`: as for `missing_programs`.
    SIGTERM ends it as orderly as Ctrl-C. Raises DrillError when programs are missing.
    """
    missing = missing_programs(place, **needs)
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
            _remove(room, but_evidence=bool(session.evidence))


def _remove(room: Path, *, but_evidence: bool) -> None:
    for made in room.glob(f"{_CLUSTER}-*") if but_evidence else [room]:
        shutil.rmtree(made, ignore_errors=True)


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
