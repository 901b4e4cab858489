# ruff: noqa: ASYNC240 -- a test has the loop to itself
"""One server: made, started, seen, configured, stopped, crashed, adopted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from pglab import Lab, as_root, at, children, pid_reused, wait_until

from hamgr.core.actions import Upstream
from hamgr.core.server import DataDir, Phase
from hamgr.core.units import Lsn
from hamgr.postgres import process, source, wal
from hamgr.postgres.config import Credentials
from hamgr.postgres.errors import ServerBroken, ServerRefused
from hamgr.postgres.server import LocalServer, open_server


async def test_initdb_makes_a_cluster_whose_roles_log_in_with_scram_only(lab: Lab) -> None:
    server = await lab.server("one")
    assert (await server.probe()).data_dir is DataDir.EMPTY
    await server.initdb()
    view = await server.probe()
    assert (view.phase, view.data_dir) == (Phase.STOPPED, DataDir.VALID)
    await server.start_primary()
    await server.create_roles()
    rows = await server.query("SELECT rolname, rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL")
    assert {name for name, _ in rows} == {"postgres", "replicator", "rewinder"}
    assert all(password.startswith("SCRAM-SHA-256$") for _, password in rows)


async def test_passwords_are_in_the_passfile_alone(lab: Lab) -> None:
    server = await lab.primary()
    await server.stop(5.0)
    await server.start_standby(Upstream("gone", "127.0.0.1", 1))
    assert (server.config.passfile_path.stat().st_mode & 0o777) == 0o600
    readable = [*server.config.data_dir.glob("*.conf"), lab.root / "one.log"]
    arguments = Path(f"/proc/{server.identity.pid}/cmdline").read_bytes() if server.identity else b""
    for text in [*(path.read_text() for path in readable), arguments.decode(), repr(server.config)]:
        assert "s3cret" not in text


async def test_probe_of_a_primary_tells_what_decisions_need(lab: Lab) -> None:
    server = await lab.primary()
    view = await server.probe()
    assert view.is_primary
    assert view.timeline == 1
    assert view.written_lsn > 0
    assert view.server_version // 10000 == view.major_version
    assert len(view.system_identifier) > 10
    assert not view.is_read_only
    assert view.upstream == ""
    assert view.started_at


async def test_running_server_is_adopted_by_the_next_agent(lab: Lab) -> None:
    server = await lab.primary()
    fresh = await lab.again(server)
    assert await fresh.adopt() == server.identity
    assert (await fresh.probe()).is_primary


async def test_garbage_in_postmaster_pid_is_no_server(lab: Lab) -> None:
    server = await lab.primary()
    await server.stop(5.0)
    pid_file = server.config.data_dir / "postmaster.pid"
    for garbage in ("", "\0\0\0", "not a pid\n/x\n", "99999999999999\n/x\n", "-1\n"):
        pid_file.write_text(garbage)
        assert await server.adopt() is None
        assert (await server.probe()).phase is Phase.STOPPED


async def test_single_user_server_is_no_server(lab: Lab) -> None:
    """What pg_rewind runs to recover a crashed one: taken for a primary it would be killed in the middle."""
    server = await lab.primary()
    await server.stop(5.0)
    argv = [str(server.bin_dir / "postgres"), "--single", "-D", str(server.config.data_dir), "postgres"]
    single = await asyncio.create_subprocess_exec(*argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    try:
        assert single.stdout is not None
        await asyncio.wait_for(single.stdout.readuntil(b"backend>"), 20.0)
        assert int((server.config.data_dir / "postmaster.pid").read_text().split()[0]) == -single.pid
        assert await server.adopt() is None
        assert (await server.probe()).phase is Phase.STOPPED
    finally:
        single.terminate()
        await single.wait()


async def test_pid_that_now_belongs_to_another_process_is_no_server(lab: Lab) -> None:
    server = await lab.primary()
    await server.stop(5.0)
    other = await lab.primary("other")
    assert other.identity is not None
    for pid in (os.getpid(), other.identity.pid):
        (server.config.data_dir / "postmaster.pid").write_text(f"{pid}\n{server.config.data_dir}\n")
        assert (await server.probe()).phase is Phase.STOPPED
    assert (await server.stop(1.0)) is process.Ending.NOT_RUNNING
    assert (await other.probe()).is_primary


async def test_directory_of_another_user_is_unusable_and_says_what_to_do(lab: Lab) -> None:
    server = await lab.server("one")
    with as_root():
        server.config.data_dir.mkdir()
        (server.config.data_dir / "PG_VERSION").write_text("15\n")
    view = await server.probe()
    with as_root():
        shutil.rmtree(server.config.data_dir)
    assert view.data_dir is DataDir.UNUSABLE
    assert "chown" in view.problem


async def test_foreign_directories_are_unusable(lab: Lab) -> None:
    server = await lab.server("one")
    server.config.data_dir.mkdir(mode=0o700)
    (server.config.data_dir / "thesis.txt").write_text("precious")
    assert (await server.probe()).data_dir is DataDir.UNUSABLE
    with pytest.raises(ServerRefused):
        await server.initdb()
    assert (server.config.data_dir / "thesis.txt").exists()


async def test_other_major_version_and_open_permissions_are_unusable(lab: Lab) -> None:
    server = await lab.primary()
    await server.stop(5.0)
    directory = server.config.data_dir
    directory.chmod(0o755)
    assert "0700" in (await server.probe()).problem
    directory.chmod(0o700)
    (directory / "PG_VERSION").write_text("9\n")
    view = await server.probe()
    assert view.data_dir is DataDir.UNUSABLE
    assert "bin_dir" in view.problem


async def test_crash_is_an_event(lab: Lab) -> None:
    server = await lab.primary()
    assert server.identity is not None
    waiting = asyncio.ensure_future(server.wait_until_exit())
    await asyncio.sleep(0)
    os.kill(server.identity.pid, signal.SIGKILL)
    await asyncio.wait_for(waiting, 10)
    view = await server.probe()
    assert view.phase is Phase.CRASHED
    assert view.control is not None
    assert not view.control.was_shut_down_cleanly


async def test_stop_that_we_asked_for_is_no_crash(lab: Lab) -> None:
    server = await lab.primary()
    assert await server.stop(10.0) is process.Ending.CLEAN
    assert (await server.probe()).phase is Phase.STOPPED
    assert await server.shutdown_lsn() > 0


async def test_frozen_server_is_killed_within_the_stop_budget(lab: Lab) -> None:
    server = await lab.primary()
    assert server.identity is not None
    os.kill(server.identity.pid, signal.SIGSTOP)
    assert await server.stop(0.5) is process.Ending.KILLED
    assert not process.is_alive(server.identity)


@pytest.mark.parametrize("died", ["before", "meanwhile"])
async def test_a_stop_leaves_no_backend_of_a_postmaster_that_was_killed(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, died: str
) -> None:
    """They acknowledge on, and after a stop nothing is bound by a deadline any more."""
    server = await lab.primary()
    assert server.identity is not None
    guard, killed = lab.guard_of(server), []
    kill = guard.kill_tree

    async def kill_and_tell() -> int:
        killed.append(await kill())
        return killed[-1]

    monkeypatch.setattr(guard, "kill_tree", kill_and_tell)
    if died == "before":
        os.kill(server.identity.pid, signal.SIGKILL)
        await server.wait_until_exit()
        assert await server.stop(10.0) is process.Ending.NOT_RUNNING
    else:
        os.kill(server.identity.pid, signal.SIGSTOP)
        stopping = asyncio.create_task(server.stop(10.0))
        await asyncio.sleep(0.1)
        os.kill(server.identity.pid, signal.SIGKILL)
        assert await stopping is process.Ending.KILLED
    assert len(killed) == 1


async def test_frozen_server_gives_a_view_in_time(lab: Lab) -> None:
    server = await lab.primary()
    assert server.identity is not None
    assert (await server.probe()).answered
    pids = signalled([server.identity.pid, *children(server.identity.pid)], signal.SIGSTOP)
    try:
        started = time.monotonic()
        view = await server.probe(timeout_s=0.2)
        assert time.monotonic() - started < 5.0
        assert (view.phase, view.answered) == (Phase.RUNNING, False)
    finally:
        signalled(pids, signal.SIGCONT)
    await wait_until(lambda: _answers(server), "it answers again")


def signalled(pids: list[int], number: signal.Signals) -> list[int]:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    return pids


async def _answers(server: LocalServer) -> bool:
    return bool((await server.probe()).answered)


async def test_parameters_are_applied_live_and_what_needs_a_restart_is_named(lab: Lab) -> None:
    server = await lab.primary()
    parameters = {**server.config.parameters, "work_mem": "7MB", "max_connections": 33}
    assert await server.apply_config(parameters, None)
    assert not await server.apply_config(parameters, None)

    async def reloaded() -> bool:
        return (await server.query("SHOW work_mem"))[0][0] == "7MB"

    await wait_until(reloaded, "work_mem was reloaded")
    view = await server.probe()
    assert view.pending_restart
    assert view.pending_restart_reason["max_connections"] == {"old_value": "20", "new_value": "33"}


async def test_parameters_that_would_keep_the_server_from_starting_are_refused(lab: Lab) -> None:
    server = await lab.primary()
    before = (server.config.data_dir / "hamgr.conf").read_text()
    for wrong in ({"work_memory": "1MB"}, {"max_connections": "many"}, {"x'; drop": "1"}):
        with pytest.raises(ServerRefused):
            await server.apply_config({**server.config.parameters, **wrong}, None)
        assert (server.config.data_dir / "hamgr.conf").read_text() == before
    await server.restart(10.0, None)
    assert (await server.probe()).is_primary


async def test_our_settings_win_over_the_users_file_and_the_file_stays_theirs(lab: Lab) -> None:
    server = await lab.primary()
    await server.stop(5.0)
    path = server.config.data_dir / "postgresql.conf"
    path.write_text(path.read_text() + "work_mem = 3MB\nwal_receiver_timeout = 77s\nport = 1\n")
    await server.start_primary()
    assert "work_mem = 3MB" in path.read_text()
    assert path.read_text().count("include 'hamgr.conf'") == 1
    rows = await server.query("SELECT current_setting('work_mem'), current_setting('wal_receiver_timeout')")
    assert rows == [("3MB", "5s")]


async def test_pg_hba_is_written_with_our_own_way_in_first(lab: Lab) -> None:
    server = await lab.primary()
    await server.apply_config(server.config.parameters, ["local all all reject"])
    lines = (server.config.data_dir / "pg_hba.conf").read_text().splitlines()
    assert lines[-1] == "local all all reject"
    fresh = await lab.again(server)
    assert (await fresh.probe()).is_primary


async def test_start_that_fails_says_why(lab: Lab) -> None:
    server = await lab.primary()
    await server.stop(5.0)
    with (server.config.data_dir / "postgresql.conf").open("a") as conf:
        conf.write("no_such_parameter = 1\n")
    with pytest.raises(ServerBroken) as caught:
        await server.start_primary()
    assert "no_such_parameter" in caught.value.hint


async def test_wal_end_after_a_clean_stop_is_behind_the_shutdown_checkpoint(lab: Lab) -> None:
    server = await lab.primary()
    await server.query("INSERT INTO public.t SELECT generate_series(1, 20000)")
    await server.stop(10.0)
    end = await server.shutdown_lsn()
    view = await server.probe()
    assert view.control is not None
    assert view.control.checkpoint_lsn < end < view.control.checkpoint_lsn + 256


async def test_wal_end_is_found_where_the_directory_lists_an_empty_segment_first(lab: Lab) -> None:
    """A checkpoint makes segments ready, all zeros; after a crash one of them may be what a reader sees first."""
    server = await lab.primary()
    await server.query("INSERT INTO public.t VALUES (1)")
    await lab.guard_of(server).kill_tree()
    end = await server.wal_end()
    folder = server.config.data_dir / "pg_wal"
    names = (f"00000001000000000000{number:04X}" for number in range(0x100, 0x1000))
    while next(path for path in folder.iterdir() if len(path.name) == 24).stat().st_blocks:
        with (folder / next(names)).open("wb") as stream:
            stream.truncate(wal.DEFAULT_SEGMENT)
    assert await server.wal_end() == end


async def test_wal_end_after_a_kill_is_where_recovery_goes_on(lab: Lab) -> None:
    server = await lab.primary()
    assert server.identity is not None
    for size in (1, 100, 7777, 20000):
        await server.query("INSERT INTO public.t SELECT generate_series(1, %s)", (size,))
    await server.query("SELECT pg_switch_wal()")
    await server.query("INSERT INTO public.t VALUES (1)")
    written = (await server.probe()).written_lsn
    await lab.guard_of(server).kill_tree()
    end = await server.wal_end(written)
    assert end > written - 8192
    assert end == await server.wal_end(Lsn(0))
    await server.start_primary()
    log = (lab.root / "one.log").read_text()
    assert f"invalid record length at {end}" in log


async def test_server_starts_although_another_process_has_the_pid_of_the_one_that_was_killed(lab: Lab) -> None:
    server = await lab.primary()
    await lab.guard_of(server).kill_tree()
    with pid_reused(server):
        await server.start_primary()
    assert (await server.probe()).is_primary


async def test_pid_of_the_server_itself_counts_as_its_own(lab: Lab) -> None:
    server = await lab.primary()
    assert process.reused_pid(server.config.data_dir) is None
    await server.stop(10.0)
    assert process.reused_pid(server.config.data_dir) is None


async def test_slots_follow_the_members_and_foreign_slots_are_left_alone(lab: Lab) -> None:
    server = await lab.primary(member_slots_ttl_s=0.0)
    await server.query("SELECT pg_create_physical_replication_slot('barman', true)")
    await server.ensure_slots(["one", "Host-2.example", "three"])
    assert set((await server.probe()).slots) == {"barman", "host_2_example", "three"}
    fresh = await lab.again(server)
    await fresh.ensure_slots(["one", "three"])
    view = await fresh.probe()
    assert set(view.slots) == {"barman", "three"}
    assert all(view.slots.values())


async def test_slot_of_a_vanished_member_stays_for_its_time(lab: Lab) -> None:
    server = await lab.primary()
    await server.ensure_slots(["two", "three"])
    await server.ensure_slots(["two"])
    assert set((await server.probe()).slots) == {"two", "three"}


async def test_a_changed_password_is_set_once_and_lets_in(lab: Lab) -> None:
    server = await lab.primary()
    before = await _verifiers(server)
    await server.create_roles()
    assert await _verifiers(server) == before
    changed = replace(
        server.config, replication=Credentials("replicator", "n\u00e9w: $word"), rewind=Credentials("rewinder", "other")
    )
    again = await open_server(changed, lab.guard_of(server))
    lab.servers.append(again)
    lab.guards.append(lab.guard_of(server))
    await again.create_roles()
    after = await _verifiers(server)
    assert all(after[role] != before[role] for role in ("replicator", "rewinder"))
    await again.create_roles()
    assert await _verifiers(server) == after
    await source.ask(again.config, at(server))
    assert await source.tablespaces(again.config, at(server)) == []
    with pytest.raises(ServerBroken, match="password"):
        await source.ask(server.config, at(server))


async def _verifiers(server: LocalServer) -> dict[str, str]:
    return dict(await server.query("SELECT rolname::text, rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL"))


async def test_probe_during_and_after_a_kill_of_ours_sees_no_crash(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await lab.primary()
    guard = lab.guard_of(server)
    kill, seen = guard.kill_tree, []

    async def kill_and_look() -> int:
        seen.append((await server.probe()).phase)
        killed = await kill()
        seen.append((await server.probe()).phase)
        return killed

    with monkeypatch.context() as patch:
        patch.setattr(guard, "kill_tree", kill_and_look)
        assert await server.kill_tree() > 0
    seen.append((await server.probe()).phase)
    assert seen == [Phase.RUNNING, Phase.STOPPED, Phase.STOPPED]


async def test_kill_of_what_a_crash_left_leaves_it_a_crash(lab: Lab) -> None:
    server = await lab.primary()
    assert server.identity is not None
    os.kill(server.identity.pid, signal.SIGKILL)
    await server.wait_until_exit()
    await server.kill_tree()
    assert (await server.probe()).phase is Phase.CRASHED


@pytest.mark.parametrize("damage", ["emptied", "zeroed"])
async def test_a_damaged_control_file_is_named_and_left_to_a_person(lab: Lab, damage: str) -> None:
    server = await lab.server("one")
    await server.initdb()
    file = server.config.data_dir / "global" / "pg_control"
    file.write_bytes(b"" if damage == "emptied" else bytes(file.stat().st_size))
    view = await server.probe()
    assert view.data_dir is DataDir.UNUSABLE
    assert "move the data directory away" in view.problem
