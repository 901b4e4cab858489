"""`calibrate`: measures, proposes, and leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_world import World, record

from hamgr.cli import commands_calibrate, measuring

ANY_NUMBER = "1e10"
"""A machine that runs tests may stall so much that no ttl would do for less."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds, in which it measures as often as it can."""
    monkeypatch.setattr(commands_calibrate, "SHORTEST_S", 1.0)
    monkeypatch.setattr(measuring, "RENEW_PAUSE_S", 0.0)


@pytest.fixture
def data_dir(empty: World, tmp_path: Path) -> Path:
    """A data directory whose WAL is elsewhere."""
    data, wal = tmp_path / "disk" / "data", tmp_path / "waldisk" / "pg_wal"
    data.mkdir(parents=True)
    wal.mkdir(parents=True)
    (data / "pg_wal").symlink_to(wal)
    empty.write_config(postgresql={"data_dir": str(data)})
    return data


@pytest.mark.usefixtures("quick")
def test_a_proposal_follows_from_what_was_measured(empty: World, data_dir: Path) -> None:
    empty.put("config", {"ttl": 30})
    empty.put("failovers/7", record(7, "a", "b"))
    result = empty.run("calibrate", "--for", "2s", "--needless", ANY_NUMBER, "-f", "json")
    assert result.exit_code == 0, result.output
    value = json.loads(result.output)
    names = {each["name"] for each in value["series"]}
    assert {"renewal, due until confirmed", "flush, data disk", "flush, WAL disk"} <= names
    assert any(name.startswith("stage ") for name in names)
    assert value["present"]["ttl_s"] == 30
    assert 2 <= value["proposed"]["ttl_s"] <= 300
    assert value["proposed"]["needless_per_year"] <= value["wanted_per_year"]
    assert value["proposed"]["room_s"] > max(each["worst_s"] for each in value["series"] if "renewal" in each["name"])


@pytest.mark.usefixtures("quick")
def test_nothing_is_changed_and_nothing_left(empty: World, data_dir: Path) -> None:
    before, leases = empty.etcdctl("get", "--prefix", ""), empty.etcdctl("lease", "list")
    result = empty.run("calibrate", "--for", "2s", "--needless", ANY_NUMBER)
    assert result.exit_code == 0, result.output
    assert "Proposal: ttl" in result.output
    assert (empty.etcdctl("get", "--prefix", ""), empty.etcdctl("lease", "list")) == (before, leases)
    assert list(data_dir.parent.parent.rglob(".hamgr-calibrate*")) == []


@pytest.mark.usefixtures("quick")
def test_a_disk_that_cannot_be_written_is_said_and_the_rest_measured(empty: World, tmp_path: Path) -> None:
    empty.write_config(postgresql={"data_dir": str(tmp_path / "nowhere" / "data")})
    result = empty.run("calibrate", "--for", "2s")
    assert result.exit_code == 0, result.output
    assert "The disks were not measured" in result.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--for", "5s"), "at least 10 s"),
        (("--for", "soon"), "no duration"),
        (("--needless", "0"), "0"),
        (("--needless", "-1"), "-1"),
    ],
)
def test_what_cannot_be_measured_is_refused(empty: World, arguments: tuple[str, str], says: str) -> None:
    result = empty.run("calibrate", *arguments)
    assert result.exit_code == 2
    assert says in result.output


def test_etcd_that_does_not_answer_is_said(empty: World) -> None:
    result = empty.run("-d", "etcd3://127.0.0.1:1", "calibrate", empty.scope)
    assert result.exit_code == 3
    assert "127.0.0.1:1" in result.output
