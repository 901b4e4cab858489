"""pg_rewind: bring a diverged, stopped server back onto the leader's history."""

from __future__ import annotations

import re
from pathlib import Path

from hamgr.core.actions import Upstream
from hamgr.core.units import Timeline
from hamgr.postgres import births, configuration, files, process, programs, source, sql
from hamgr.postgres.config import ServerConfig
from hamgr.postgres.control import rewind_marker
from hamgr.postgres.disk import Disk
from hamgr.postgres.errors import RewindFailed, ServerUnavailable
from hamgr.postgres.programs import Ended
from hamgr.postgres.versions import Version

REWIND_S = 3600.0
CHECKPOINT_WAIT_S = 30.0

WRITES_FROM = "need to copy"
"""With --progress pg_rewind says this just before it changes the first file."""


async def rewind(config: ServerConfig, version: Version, bin_dir: Path, disk: Disk, upstream: Upstream) -> bool:
    """The data directory continues `upstream`'s history with this member's own configuration files.

    False if it was on that history already. pg_rewind itself runs crash recovery where the server did not stop
    cleanly. Raises ServerUnavailable if the source cannot be reached or has not checkpointed since it was
    promoted (nothing was changed), RewindFailed with the tool's words.
    """
    if not version.rewind_knows_fresh_promotion:
        timeline = await _timeline(config, upstream)
        await source.wait_until_checkpointed(config, upstream, timeline, timeout_s=CHECKPOINT_WAIT_S)
    saved = await disk.run(lambda: configuration.snapshot(config.data_dir), "read the configuration files")
    marker = rewind_marker(config.data_dir)
    await disk.run(lambda: files.write_if_changed(marker, "pg_rewind\n"), "mark the rewind")
    # The single-user recovery that pg_rewind runs after a crash refuses to be a standby.
    await disk.run(lambda: configuration.role_signal(config, standby=False), "remove standby.signal")
    reused = await disk.run(lambda: process.reused_pid(config.data_dir), "read postmaster.pid")
    environ = {**programs.c_locale(), **process.told_of_reused_pid(reused)}
    ended = await programs.run(_argv(config, version, bin_dir, upstream), timeout_s=REWIND_S, environ=environ)
    touched = WRITES_FROM in ended.err
    if ended.status != 0:
        if not touched:
            await disk.run(lambda: files.remove(marker), "remove the rewind's mark")
        raise _failure(ended, touched)
    await disk.run(lambda: configuration.restore(config.data_dir, saved), "restore the configuration files")
    await disk.run(lambda: births.remove(config.data_dir), "remove the note on the timeline")
    await disk.run(lambda: files.remove(marker), "remove the rewind's mark")
    return touched


async def _timeline(config: ServerConfig, upstream: Upstream) -> Timeline:
    return (await source.ask(config, upstream)).position.timeline


def _argv(config: ServerConfig, version: Version, bin_dir: Path, upstream: Upstream) -> list[str]:
    conninfo = configuration.remote_conninfo(
        config, upstream, config.rewind_role, dbname=sql.DATABASE, application_name=f"{config.name} rewind"
    )
    argv = [str(bin_dir / "pg_rewind"), "-D", str(config.data_dir), f"--source-server={conninfo}", "--progress"]
    if config.parameters.get("restore_command"):
        argv.append("--restore-target-wal")
    if config.config_dir is not None and version.rewind_takes_config_file:
        argv.append(f"--config-file={config.config_dir / 'postgresql.conf'}")
    return argv


def _failure(ended: Ended, touched: bool) -> RewindFailed | ServerUnavailable:
    words = f"pg_rewind: {programs.last_words(ended)}"
    if not touched and re.search(r"connection to server .* failed|could not connect", ended.err):
        return ServerUnavailable(words)
    return RewindFailed(words, directory_touched=touched, hint="keep the directory aside and clone")
