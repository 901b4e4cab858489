"""`calibrate`: measures, proposes, and leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_world import World, record

from hamgr.cli import commands_calibrate, measuring
from hamgr.cli.commands_calibrate import PROMOTION, RESTART, findings, past_durations, reasoning
from hamgr.cli.measuring import Measured
from hamgr.core.policy import Policy
from hamgr.core.stalls import tail_of
from hamgr.dcs.errors import LeaseExpired, StoreUnavailable

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
    empty.put("failovers/8", record(8, "a", "a"))
    result = empty.run("calibrate", "--for", "2s", "--needless", ANY_NUMBER, "-f", "json")
    assert result.exit_code == 0, result.output
    value = json.loads(result.output)
    names = {each["name"] for each in value["series"]}
    assert {"renewal, due until confirmed", "flush, data disk", "flush, WAL disk"} <= names
    assert {"promotion, past changes of leader", "restart of a server that led on"} <= names
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
        (("--needless", "nan"), "nan"),
        (("--needless", "inf"), "inf"),
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


class Etcd:
    """Stands still for `stalls_s` from the first renewal on. Time passes only here."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stalls_s: float, lease_lasts_s: float = float("inf")) -> None:
        self.now, self.stalls_s, self.lease_lasts_s, self.id = 0.0, stalls_s, lease_lasts_s, 1
        monkeypatch.setattr(measuring, "time", self)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def renew(self, lease_id: int, budget_s: float) -> None:
        assert lease_id == self.id
        left_s = self.stalls_s - self.now
        self.now += min(max(left_s, 0.001), budget_s)
        if left_s > budget_s:
            raise StoreUnavailable("no answer")
        if self.id == 1 and self.now > self.lease_lasts_s:
            raise LeaseExpired("gone")

    def take(self) -> None:
        self.id += 1

    def measured_for(self, seconds: float) -> Measured:
        measured = Measured(span_s=seconds)
        measuring._renew(self, self, measured, seconds, lambda: None)  # type: ignore[arg-type]
        return measured


def test_a_stall_is_measured_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = Etcd(monkeypatch, stalls_s=23.0).measured_for(60.0)
    assert max(measured.all_stalls_s) == pytest.approx(23.0)
    assert measured.unanswered == 4
    assert not measured.is_longest_unfinished


def test_a_lease_that_runs_out_is_replaced_and_measuring_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = Etcd(monkeypatch, stalls_s=70.0, lease_lasts_s=60.0).measured_for(100.0)
    assert max(measured.all_stalls_s) == pytest.approx(70.0)
    assert len(measured.stalls_s) > 1000


def test_a_stall_that_outlasts_the_measuring_is_said_to_be_longer_and_so_is_the_ttl(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured = Etcd(monkeypatch, stalls_s=60.0).measured_for(12.0)
    assert measured.unfinished_s >= 12.0
    measured.stalls_s = [0.002 + number * 1e-6 for number in range(2000)]
    tail = tail_of(measured.all_stalls_s, 60.0)
    value = findings(Policy(), 1e12, measured, tail, past_durations([]))
    assert value["proposed"]["room_s"] > 12.0
    words = "\n".join(reasoning(value))
    assert "the longest at least 15" in words
    assert " s or more" in words
    assert "restart" in words


def test_a_former_leader_that_wins_again_was_restarted_and_another_promoted() -> None:
    past = past_durations([record(7, "a", "b"), record(8, "a", "a"), {"stages": [{"name": "promote"}]}])
    assert past[PROMOTION] == [pytest.approx(0.04)]
    assert past[RESTART] == [pytest.approx(0.044)]
