"""Entry point: `hamgr [-c FILE] [-d URL] [-k] COMMAND`. A command's module is loaded when it is used."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from pathlib import Path

import click

from hamgr.cli.context import Globals

COMMANDS = {
    "agent": ("hamgr.agent.launch:command", "Run a member: start this on every database host."),
    "list": ("hamgr.cli.commands_show:list_members", "Show the members of a cluster."),
    "topology": ("hamgr.cli.commands_show:topology", "Show the members as a tree."),
    "history": ("hamgr.cli.commands_show:history", "Show the changes of leader by timeline."),
    "version": ("hamgr.cli.commands_show:version", "Show versions, here and of each member."),
    "failovers": ("hamgr.cli.commands_failovers:failovers", "Show failover records with their stages."),
    "switchover": ("hamgr.cli.commands_switch:switchover", "Hand the lead over to a replica, planned."),
    "failover": ("hamgr.cli.commands_switch:failover", "Make a replica the leader when none leads."),
    "restart": ("hamgr.cli.commands_member:restart", "Restart members' servers."),
    "reload": ("hamgr.cli.commands_member:reload", "Reload members' configuration."),
    "reinit": ("hamgr.cli.commands_member:reinit", "Copy a replica's data from scratch."),
    "flush": ("hamgr.cli.commands_member:flush", "Cancel a scheduled switchover."),
    "pause": ("hamgr.cli.commands_pause:pause", "Turn automatic failover off."),
    "resume": ("hamgr.cli.commands_pause:resume", "Turn automatic failover on."),
    "show-config": ("hamgr.cli.commands_config:show_config", "Show the dynamic configuration."),
    "edit-config": ("hamgr.cli.commands_config:edit_config", "Change the dynamic configuration."),
    "explain": ("hamgr.cli.commands_explain:explain", "Say what holds a failover back, and what would free it."),
    "validate": ("hamgr.cli.commands_validate:validate", "Check a configuration file, show the failover budget."),
    "calibrate": (
        "hamgr.cli.commands_calibrate:calibrate",
        "Measure this environment, propose the shortest ttl for it.",
    ),
    "remove": ("hamgr.cli.commands_remove:remove", "Remove a cluster's keys from etcd."),
    "dsn": ("hamgr.cli.commands_dsn:dsn", "Print a connection string, to a member or to whoever has a role."),
    "query": ("hamgr.cli.commands_sql:query", "Run SQL on a member."),
    "demo": ("hamgr.drill.commands:demo", "Bring up a cluster here and fail it over."),
    "simulate": ("hamgr.sim.commands:simulate", "Say what a configuration will give; compare election protocols."),
    "drill": ("hamgr.drill.commands:drill", "Measure failovers on real clusters."),
}
"""Command -> (where it lives, its line in the help); held here so that help loads no command."""

NOT_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Where output goes to a file on a disk that takes no more."""


class LazyGroup(click.Group):
    """A group whose commands are imported only when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-c",
    "--config-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Configuration file; else $HAMGR_CONFIG, /etc/hamgr/hamgr.yml, ./hamgr.yml.",
)
@click.option("-d", "--dcs-url", "--dcs", help="etcd to use: etcd3://HOST:PORT[,HOST:PORT...][/NAMESPACE].")
@click.option("-k", "--insecure", is_flag=True, help="Do not check members' REST certificates.")
@click.pass_context
def cli(ctx: click.Context, config_file: Path | None, dcs_url: str | None, insecure: bool) -> None:
    """Keep a PostgreSQL cluster writable."""
    ctx.obj = Globals(config_file, dcs_url, insecure)


def main() -> None:
    """Run the command line; ends the process with the command's exit status, 1 where what it says cannot be written."""
    try:
        cli(prog_name="hamgr")
    except OSError as error:
        if error.errno not in NOT_WRITTEN:
            raise
        # What is left in the buffers would be written once more at the end, and fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        click.echo(f"Error: cannot write the output: {error.strerror}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
