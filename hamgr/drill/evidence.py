"""Everything that explains a run that went wrong, in one folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from hamgr.drill.base_cluster import BaseCluster
from hamgr.drill.errors import DrillError
from hamgr.drill.run import Outcome, records_of


def keep_evidence(folder: Path, cluster: BaseCluster | None, outcome: Outcome) -> Path:
    """`folder` holds the outcome, all logs, the client's rows, hamgr's records and etcd's keys. Returns it.

    What cannot be had any more is left out.
    """
    folder.mkdir(parents=True)
    _write(folder / "outcome.json", outcome.as_json())
    if cluster is not None:
        cluster.gather_logs()
        shutil.copytree(cluster.logs, folder / "logs")
        _write(folder / "members.json", {member.name: member.says() for member in cluster.members})
        _write(folder / "failovers.json", _records(cluster))
        _write(folder / "etcd.json", _keys(cluster))
    return folder


def _records(cluster: BaseCluster) -> list[dict[str, Any]]:
    """As the first member shows them that shows any."""
    return next((found for member in cluster.members if (found := records_of(member))), [])


def _keys(cluster: BaseCluster) -> dict[str, str]:
    try:
        return cluster.store.dump()
    except DrillError as error:
        return {"error": str(error)}


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, default=str) + "\n")
