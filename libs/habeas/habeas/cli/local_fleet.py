"""The fleet that `habeas up` runs on this machine: commands that were told of no other speak to it, and say so.

The environment always wins: whoever names a fleet by a variable or an option is never given parts of another one.
"""

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource
from typing_extensions import override

__all__ = ["FleetOption", "adopt"]

_CHOICE: Final = "HABEAS_LOCAL_FLEET"
_PLACES: Final = ("_DATABASE_DSN", "HABEAS_KAFKA_BOOTSTRAP")
_OPTIONS: Final = ("dsn", "kafka")


class FleetOption(click.Option):
    """An option that a variable may give, and without one the fleet that runs here."""

    @override
    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        value = super().resolve_envvar_value(ctx)
        if value is None and not ctx.resilient_parsing and adopt(ctx):
            value = super().resolve_envvar_value(ctx)
        return value

    @override
    def process_value(self, ctx: click.Context, value: object) -> object:
        try:
            return super().process_value(ctx, value)
        except click.MissingParameter:
            what = (
                "No local fleet was started from this directory: run the command where `habeas up` runs, `source` the file that it names,"
                " or set the variable."
            )
            raise click.MissingParameter(what, ctx, self) from None


def adopt(ctx: click.Context | None) -> bool:
    """Take over the variables of the fleet that runs here, as a shell does that sources its file; False when that is not wanted.

    Raises UsageError when several run and none is chosen.
    """
    if _is_told(ctx):
        return False
    fleets = _find()
    chosen = os.environ.get(_CHOICE)
    if chosen:
        fleets = {file: values for file, values in fleets.items() if values.get(_CHOICE) == chosen}
    if len(fleets) > 1:
        names = ", ".join(values.get(_CHOICE, "?") for values in fleets.values())
        raise click.UsageError(f"several fleets run here ({names}): write {_CHOICE}=NAME")
    for file, values in fleets.items():
        for name, value in values.items():
            os.environ[name] = os.environ.get(name) or value
        click.echo(f"speaking to the local fleet {values.get(_CHOICE)} ({file.parent})", err=True)
    return bool(fleets)


def _is_told(ctx: click.Context | None) -> bool:
    if (os.environ.get("HABEAS_ENVIRONMENT") or "development") != "development":
        return True
    if any(value and name.endswith(_PLACES) for name, value in os.environ.items()):
        return True
    return ctx is not None and any(ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in _OPTIONS)


def _find() -> Mapping[Path, Mapping[str, str]]:
    """Ask the distribution habeas-embedded, which a production image does not hold."""
    try:
        embedded: Any = import_module("habeas_embedded.env_file")
    except ModuleNotFoundError:
        return {}
    found: Mapping[Path, Mapping[str, str]] = embedded.find_fleets()
    return found
