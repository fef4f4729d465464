"""`habeas`, the command-line program. Exit codes: 0 done, 1 not true or failed, 2 wrong use.

A command imports what it needs when it runs, so that help answers at once; those of other distributions are looked for
only when they are called.
"""

from importlib import import_module
from inspect import cleandoc
from typing import Final

import click
from typing_extensions import override

from habeas.cli.audit import audit
from habeas.cli.control import log_level, pause, resume
from habeas.cli.datamap import datamap
from habeas.cli.erase import erase
from habeas.cli.export import export
from habeas.cli.keys import keys
from habeas.cli.migrate import migrate
from habeas.cli.parked import parked
from habeas.cli.policy import policy
from habeas.cli.recover import recover
from habeas.cli.replay import replay
from habeas.cli.request import request
from habeas.cli.status import status
from habeas.cli.trace import trace
from habeas.cli.trail import trail

_ELSEWHERE: Final = {
    "up": ("habeas_embedded.up", "up_command", "Start servers and fleet, and keep them until Ctrl-C."),
    "doctor": ("habeas_embedded.doctor", "doctor_command", "Say what is there, what is missing and how to get it."),
}
"""Commands of the distribution habeas-embedded, which a production image does not hold."""


class _Program(click.Group):
    """Knows the names of commands that live elsewhere, and fetches them when they are called."""

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Give a command; raises UsageError for one whose distribution is not installed."""
        if cmd_name not in _ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        module, name, _ = _ELSEWHERE[cmd_name]
        try:
            found: click.Command = getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != module.partition(".")[0]:
                raise
            raise click.UsageError(f"`habeas {cmd_name}` needs the distribution habeas-embedded") from None
        return found

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing those that live elsewhere."""
        rows = [(name, command.short_help or "") for name, command in sorted(self.commands.items())]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(name="habeas", cls=_Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="habeas")
def habeas() -> None:
    """Answer data subjects' requests, keep retention promises, and prove it."""


for _name, (_, _, _help) in _ELSEWHERE.items():
    habeas.add_command(click.Command(_name, help=_help))
for _command in (
    audit,
    datamap,
    erase,
    export,
    keys,
    log_level,
    migrate,
    parked,
    pause,
    policy,
    recover,
    replay,
    request,
    resume,
    status,
    trace,
    trail,
):
    habeas.add_command(_command)


def _tell_whole(command: click.Command) -> None:
    """Let the list of a group's commands hold the whole first sentence of each: click cuts it at the width of the terminal."""
    if command.short_help is None and command.help:
        command.short_help = " ".join(cleandoc(command.help).partition("\n\n")[0].split())
    for each in command.commands.values() if isinstance(command, click.Group) else ():
        _tell_whole(each)


_tell_whole(habeas)


def main() -> None:
    """Run the program; never returns."""
    habeas(prog_name="habeas")
