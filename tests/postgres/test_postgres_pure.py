"""What needs no server: positions, histories, names, files."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from pglab import FakeGuard

from hamgr.core.server import Birth, DataDir
from hamgr.core.slotnames import slot_name
from hamgr.core.units import Lsn, Term, Timeline
from hamgr.postgres import births, clone, configuration, control, files, wal
from hamgr.postgres.config import Credentials, ServerConfig, option_arguments
from hamgr.postgres.disk import Disk
from hamgr.postgres.errors import ServerBroken, ServerRefused, ServerUnavailable
from hamgr.postgres.probe import host_and_port
from hamgr.postgres.server import open_server
from hamgr.settings.load import MANAGED

SEGMENT = wal.DEFAULT_SEGMENT


@pytest.mark.parametrize(
    ("lsn", "length", "end"),
    [
        ("0/1000028", 114, "0/10000A0"),
        ("0/1001FE0", 32, "0/1002000"),
        ("0/1001FE0", 40, "0/1002020"),
        ("0/1FFFFE0", 40, "0/2000030"),
        ("0/1000028", 8192 * 2, "0/1004058"),
    ],
)
def test_record_end_counts_page_headers(lsn: str, length: int, end: str) -> None:
    assert wal.record_end(Lsn.parse(lsn), length) == Lsn.parse(end)


def test_switch_record_ends_its_segment() -> None:
    line = "rmgr: XLOG        len (rec/tot):     24/    24, tx: 0, lsn: 0/0150A0D8, prev 0/0150A0A0, desc: SWITCH \n"
    assert wal.last_record_end(line) == Lsn.parse("0/2000000")


def test_listing_without_records_has_no_end() -> None:
    assert wal.last_record_end("") == 0


def test_slot_names_are_patronis() -> None:
    assert slot_name("PG-1.example") == "pg_1_example"
    assert slot_name("a b") == "au0032b"
    assert len(slot_name("x" * 80)) == 63


def test_values_are_quoted_for_postgresql_conf() -> None:
    assert configuration.quoted(r"a'b\c") == r"'a''b\\c'"
    assert "\n" not in configuration.quoted("a\nb")


def _config(pg_tmp: Path, **parameters: str | int) -> ServerConfig:
    role = Credentials("x", "secret")
    return ServerConfig("n", "s", pg_tmp, role, role, parameters=parameters)


def test_reserved_parameters_are_left_out_and_standby_minimums_kept(pg_tmp: Path) -> None:
    version = configuration.Version(15)
    text = configuration.rendered(_config(pg_tmp, port=1, max_connections=10), version, {"max_connections": 50})
    assert "port" not in text
    assert "max_connections = '50'" in text
    with pytest.raises(ServerRefused):
        configuration.rendered(_config(pg_tmp, **{"a b": 1}), version, {})


def test_unchanged_file_is_not_written_again(pg_tmp: Path) -> None:
    path = pg_tmp / "f"
    assert files.write_if_changed(path, "a")
    inode = path.stat().st_ino
    assert not files.write_if_changed(path, "a")
    assert path.stat().st_ino == inode
    assert files.write_if_changed(path, "b")
    assert os.listdir(pg_tmp) == ["f"]


def test_auto_conf_loses_only_what_would_override_the_upstream(pg_tmp: Path) -> None:
    path = pg_tmp / "postgresql.auto.conf"
    path.write_text("# head\nwork_mem = '1MB'\nprimary_conninfo = 'host=old'\nrecovery_target_lsn='0/1'\n")
    assert configuration.disarm_auto_conf(pg_tmp)
    assert path.read_text() == "# head\nwork_mem = '1MB'\n"
    assert not configuration.disarm_auto_conf(pg_tmp)


def test_passfile_escapes_what_libpq_splits_at(pg_tmp: Path) -> None:
    files.write_passfile(pg_tmp / "p", {"us:er": "a\\b:c", "peer": ""})
    assert (pg_tmp / "p").read_text() == "*:*:*:us\\:er:a\\\\b\\:c\n"


def test_passfile_comes_before_the_data_directory_it_stands_beside(pg_tmp: Path) -> None:
    """On a host that is to become a replica nothing is there yet."""
    path = pg_tmp / "hamgr" / "data.pgpass"
    files.write_passfile(path, {"replicator": "s"})
    assert path.read_text() == "*:*:*:replicator:s\n"


async def test_a_file_system_that_is_read_only_for_this_service_is_told_with_what_to_do() -> None:
    def refused() -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with pytest.raises(ServerBroken, match=r"cannot make it: .* Read-only") as caught:
        await Disk().run(refused, "make it")
    assert "ReadWritePaths" in caught.value.hint


def test_options_in_patronis_form_become_arguments() -> None:
    assert option_arguments(["data-checksums", {"encoding": "UTF8"}]) == ("--data-checksums", "--encoding=UTF8")


def test_upstream_is_read_from_a_connection_string() -> None:
    assert host_and_port("host=a port=5433 user=x") == "a:5433"
    assert host_and_port("") == ""
    assert host_and_port("not = a = conninfo") == ""


def _tree(path: Path) -> None:
    (path / "global").mkdir(parents=True)
    (path / "global" / "pg_control").write_text("c")
    (path / "PG_VERSION").write_text("15\n")
    path.chmod(0o700)


def test_copy_interrupted_while_being_moved_up_is_unfinished_and_removable(pg_tmp: Path) -> None:
    directory = pg_tmp / "d"
    _tree(directory)
    (directory / control.UNFINISHED).mkdir()
    assert control.inspect(directory, 15).state is DataDir.UNFINISHED
    clone.remove_unfinished(directory)
    assert control.inspect(directory, 15).state is DataDir.EMPTY


def test_complete_cluster_is_never_removed_as_unfinished(pg_tmp: Path) -> None:
    _tree(pg_tmp / "d")
    clone.remove_unfinished(pg_tmp / "d")
    assert control.inspect(pg_tmp / "d", 15).state is DataDir.VALID


def test_interrupted_rewind_is_unfinished(pg_tmp: Path) -> None:
    _tree(pg_tmp / "d")
    control.rewind_marker(pg_tmp / "d").write_text("")
    assert control.inspect(pg_tmp / "d", 15).state is DataDir.UNFINISHED


@pytest.mark.parametrize("text", ["", "8", "8 nine", "8 9 10", "-8 9", "\udcff 9", "9" * 5000 + " 9"])
def test_a_note_on_the_timeline_that_cannot_be_read_proves_nothing(pg_tmp: Path, text: str) -> None:
    (pg_tmp / births.NOTE).write_text(text, errors="surrogateescape")
    assert births.read(pg_tmp) == Birth()
    noted = Birth(Timeline(8), Term(9))
    assert births.note(pg_tmp, noted) == births.read(pg_tmp) == noted


def test_a_note_of_a_timeline_is_never_changed(pg_tmp: Path) -> None:
    births.note(pg_tmp, Birth(Timeline(8), Term(9)))
    assert births.note(pg_tmp, Birth(Timeline(8), Term(11))) == Birth(Timeline(8), Term(9))
    assert births.note(pg_tmp, Birth(Timeline(9), Term(11))) == births.read(pg_tmp) == Birth(Timeline(9), Term(11))


def test_only_the_newest_directories_are_kept_aside(pg_tmp: Path) -> None:
    directory = pg_tmp / "d"
    for stamp in ("1", "2", "3"):
        _tree(directory)
        place = clone.keep_aside(directory, stamp, keep=2)
        assert place is not None
        assert clone.keep_aside(directory, "9", keep=1) is None
        assert control.inspect(place, 15).state is DataDir.VALID
        assert control.inspect(directory, 15).state is DataDir.EMPTY
        directory.rmdir()
    assert sorted(path.name for path in pg_tmp.iterdir()) == ["d.diverged-2", "d.diverged-3"]


def test_directory_just_kept_aside_is_never_forgotten_though_the_clock_was_set_back(pg_tmp: Path) -> None:
    directory = pg_tmp / "d"
    for stamp in ("20260101T120000Z", "20260101T110000Z"):
        _tree(directory)
        place = clone.keep_aside(directory, stamp)
        directory.rmdir()
    assert list(pg_tmp.iterdir()) == [place]


def test_wal_that_lies_elsewhere_is_kept_aside_and_its_place_is_free_again(pg_tmp: Path) -> None:
    elsewhere = pg_tmp / "disk" / "wal"
    for stamp in ("1", "2"):
        _tree(pg_tmp / "d")
        elsewhere.mkdir(parents=True)
        (elsewhere / "segment").write_text(stamp)
        shutil.rmtree(pg_tmp / "d" / "pg_wal", ignore_errors=True)
        (pg_tmp / "d" / "pg_wal").symlink_to(elsewhere)
        place = clone.keep_aside(pg_tmp / "d", stamp, keep=1)
        assert place is not None
        assert (place / "pg_wal" / "segment").read_text() == stamp
        assert not elsewhere.exists()
        (pg_tmp / "d").rmdir()
    assert [path.name for path in (pg_tmp / "disk").iterdir()] == ["wal.diverged-2"]


def test_directory_behind_a_link_stays_behind_the_link(pg_tmp: Path) -> None:
    _tree(pg_tmp / "real")
    (pg_tmp / "link").symlink_to(pg_tmp / "real")
    place = clone.keep_aside(pg_tmp / "link", "1")
    assert place is not None
    assert (place / "PG_VERSION").exists()
    assert (pg_tmp / "link").is_symlink()
    assert control.inspect(pg_tmp / "link", 15).state is DataDir.EMPTY


def test_directory_that_cannot_be_renamed_is_kept_inside(pg_tmp: Path) -> None:
    directory = pg_tmp / "d"
    _tree(directory)
    pg_tmp.chmod(0o500)
    try:
        place = clone.keep_aside(directory, "1")
    finally:
        pg_tmp.chmod(0o700)
    assert place is not None
    assert place.parent == directory
    assert control.inspect(directory, 15).state is DataDir.EMPTY


async def test_hung_disk_is_an_error_in_time() -> None:
    reader, writer = os.pipe()
    disk = Disk(timeout_s=0.05)
    with pytest.raises(ServerUnavailable, match="no answer from the file system"):
        await disk.run(lambda: os.read(reader, 1), "read")
    os.close(writer)
    disk.close()


@pytest.mark.parametrize("says", ["postgres (PostgreSQL) 12.22 (Debian 12.22-1)", "postgres (PostgreSQL) 99devel"])
async def test_version_that_is_not_supported_is_named_with_those_that_are(pg_tmp: Path, says: str) -> None:
    program = pg_tmp / "bin" / "postgres"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    with pytest.raises(ServerRefused, match=r"PostgreSQL (12|99) is not supported") as refused:
        await open_server(replace(_config(pg_tmp), bin_dir=program.parent), FakeGuard(pg_tmp / "log"))
    assert refused.value.hint == "install one of 13 to 18"


async def test_no_thread_for_the_disk_is_a_passing_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(ServerUnavailable, match="cannot look: can't start new thread"):
        await Disk().run(lambda: 1, "look")


def test_all_socket_directories_are_the_servers_and_the_first_is_ours(pg_tmp: Path) -> None:
    config = _config(pg_tmp, unix_socket_directories=f"{pg_tmp}, /var/tmp ,")
    assert config.sockets == pg_tmp
    assert f"unix_socket_directories={pg_tmp},/var/tmp" in configuration.fixed_arguments(config)
    pinned = replace(config, socket_dir=Path("/run/former"))
    assert f"unix_socket_directories=/run/former,{pg_tmp},/var/tmp" in configuration.fixed_arguments(pinned)


def test_every_parameter_that_is_left_out_is_warned_of() -> None:
    assert configuration.RESERVED - {"unix_socket_directories"} == MANAGED


@pytest.mark.parametrize("stream", [1, 2])
async def test_a_control_file_whose_checksum_is_wrong_is_damaged_wherever_that_is_said(
    pg_tmp: Path, stream: int
) -> None:
    """Before PostgreSQL 17 on standard output, then on standard error; the status is 0 all the same."""
    program = pg_tmp / "bin" / "pg_controldata"
    program.parent.mkdir()
    words = "WARNING: Calculated CRC checksum" if stream == 1 else "pg_controldata: warning: calculated CRC checksum"
    program.write_text(f"#!/bin/sh\necho '{words} does not match value stored in control file' >&{stream}\n")
    program.chmod(0o755)
    with pytest.raises(ServerBroken, match="damaged"):
        await control.read_control(program.parent, pg_tmp)
