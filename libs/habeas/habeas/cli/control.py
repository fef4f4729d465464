"""`habeas pause`, `resume` and `log-level`: what a supervisor sets while a service runs. Each change is put into the audit log with it."""

from typing import Final

import click

from habeas.cli.connection import SUPERVISOR_DSN, run
from habeas.cli.output import AS_JSON, say, write_json

_LEVELS: Final = (
    "debug",
    "info",
    "warning",
    "error",
)  # a test compares them with the chassis'; help must not import it
_LANES: Final = 16
_SERVICE: Final = click.argument("service")
_LANE: Final = click.option(
    "--lane", type=click.IntRange(0, _LANES - 1), help="Only this lane, and so the keys that belong to it."
)


@click.command(name="pause")
@_SERVICE
@_LANE
@SUPERVISOR_DSN
@AS_JSON
def pause(service: str, lane: int | None, dsn: str, *, as_json: bool) -> None:
    """Let a service, or one lane of it, stand still at once, after the batch in progress: it stores and publishes on, but handles nothing.

    A service that is paused as a whole does not sweep either. It stays so over restarts, until it is resumed.
    """
    _set_paused(dsn, service, lane, wanted=True, as_json=as_json)


@click.command(name="resume")
@_SERVICE
@_LANE
@SUPERVISOR_DSN
@AS_JSON
def resume(service: str, lane: int | None, dsn: str, *, as_json: bool) -> None:
    """Let a service, or one lane of it, go on. Lanes that were paused by themselves stay so when the service is resumed."""
    _set_paused(dsn, service, lane, wanted=False, as_json=as_json)


@click.command(name="log-level")
@_SERVICE
@click.argument("level", type=click.Choice(_LEVELS), required=False)
@click.option("--reset", is_flag=True, help="Log as configured again.")
@SUPERVISOR_DSN
@AS_JSON
def log_level(service: str, level: str | None, dsn: str, *, reset: bool, as_json: bool) -> None:
    """Change, at once and without a restart, which events a service logs: LEVEL and the more severe ones."""
    if reset is (level is not None):
        raise click.UsageError("give a level, or --reset")
    _check(service)
    changed = run(_log_level(dsn, service, level))
    _tell(
        f"{service} logs {'as configured' if level is None else f'from {level} on'}", changed=changed, as_json=as_json
    )


def _set_paused(dsn: str, service: str, lane: int | None, *, wanted: bool, as_json: bool) -> None:
    _check(service)
    changed = run(_pause(dsn, service, lane, wanted=wanted))
    what = service if lane is None else f"lane {lane} of {service}"
    _tell(f"{what} {'is paused' if wanted else 'goes on'}", changed=changed, as_json=as_json)


def _check(service: str) -> None:
    from habeas.cli import store

    if service not in store.SERVICES:
        raise click.UsageError(f"services are {', '.join(store.SERVICES)}")


def _tell(text: str, *, changed: bool, as_json: bool) -> None:
    if as_json:
        write_json({"changed": changed})
    else:
        say(text if changed else f"{text}, as before: nothing changed")


async def _pause(dsn: str, service: str, lane: int | None, *, wanted: bool) -> bool:
    from habeas.chassis.clock import SystemClock
    from habeas.chassis.ids import uuid7
    from habeas.cli import store
    from habeas.cli.connection import connected

    async with connected(dsn, store.schema_of(service), writes=True) as conn:
        return await store.set_paused(conn, service, uuid7(SystemClock()), lane, wanted=wanted)


async def _log_level(dsn: str, service: str, level: str | None) -> bool:
    from habeas.chassis.clock import SystemClock
    from habeas.chassis.ids import uuid7
    from habeas.cli import store
    from habeas.cli.connection import connected

    async with connected(dsn, store.schema_of(service), writes=True) as conn:
        return await store.set_log_level(conn, service, uuid7(SystemClock()), level)
