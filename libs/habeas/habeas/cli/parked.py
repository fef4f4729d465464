"""`habeas parked`: messages that wait for a person, and why. Their values are shown only with --reveal, which is audited."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import click

from habeas.cli.connection import OPERATOR_DSN, run
from habeas.cli.decisions import parse, resolve, retry
from habeas.cli.local_fleet import FleetOption
from habeas.cli.output import AS_JSON, age, say, write_facts, write_json, write_table

if TYPE_CHECKING:
    import asyncpg

_LIMIT: Final = 200


@click.group(name="parked")
def parked() -> None:
    """Look at messages that wait for a person, and decide about them."""


parked.add_command(retry)
parked.add_command(resolve)


@parked.command(name="list")
@OPERATOR_DSN
@click.option("--service", help="Only this service.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=_LIMIT, show_default=True, help="Per service.")
@AS_JSON
def list_(dsn: str, service: str | None, limit: int, *, as_json: bool) -> None:
    """List parked messages, oldest first: where they came from and what is wrong with them, never what they say."""
    from habeas.chassis.clock import SystemClock

    found = run(_list(dsn, service, limit))
    if as_json:
        write_json(found)
        return
    if not found:
        say("nothing is parked")
        return
    now = SystemClock().now()
    rows = [
        (each["id"], each["type"], each["reason"], each["field"], each["place"], age(each["received_at"], now))
        for each in found
    ]
    write_table("", ("id", "type", "reason", "field", "place", "age"), rows)


@parked.command(name="show")
@click.argument("message", metavar="ID")
@OPERATOR_DSN
@click.option(
    "--reveal", is_flag=True, help="Show the value too. Audited; needs a DSN that may write the service's log."
)
@click.option(
    "--kek-file",
    cls=FleetOption,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="HABEAS_KEK_FILE",
    help="Key ring, for messages of topics that are kept sealed.",
)
@AS_JSON
def show(message: str, dsn: str, kek_file: Path | None, *, reveal: bool, as_json: bool) -> None:
    """Show one parked message; ID is that of the list, such as request-intake/42. Exit code 1 when it is not parked."""
    ((service, (inbox_id,)),) = parse([message]).items()
    found = run(_reveal(dsn, service, inbox_id, kek_file) if reveal else _show(dsn, service, inbox_id))
    if found is None:
        raise click.ClickException(f"{message} is not parked")
    if as_json:
        write_json(found)
    else:
        write_facts(found)


async def _list(dsn: str, service: str | None, limit: int) -> list[dict[str, Any]]:
    from habeas.cli import store
    from habeas.cli.connection import connected

    if service is not None and service not in store.SERVICES:
        raise click.UsageError(f"services are {', '.join(store.SERVICES)}")
    found = []
    async with connected(dsn) as conn:
        for name in store.SERVICES if service is None else (service,):
            found += [_plain(name, row) for row in await store.find_parked(conn, name, limit)]
    return found


async def _show(dsn: str, service: str, inbox_id: int) -> dict[str, Any] | None:
    from habeas.cli import store
    from habeas.cli.connection import connected

    async with connected(dsn) as conn:
        row = await store.find_one_parked(conn, service, inbox_id)
    return None if row is None else _plain(service, row)


async def _reveal(dsn: str, service: str, inbox_id: int, kek_file: Path | None) -> dict[str, Any] | None:
    """Put into the audit log that the value was looked at, and only then look."""
    from habeas.cli import store
    from habeas.cli.audited import record
    from habeas.cli.connection import connected
    from habeas.contracts.audit import Action, AuditFact

    async with connected(dsn, store.schema_of(service), writes=True) as conn:
        row = await store.find_one_parked(conn, service, inbox_id)
        if row is None:
            return None
        await record(conn, AuditFact(Action.MESSAGE_REVEALED))
        value = await store.find_parked_value(conn, service, inbox_id)
    text = "" if value is None else _open(value, row["topic"], row["event_id"], kek_file).decode(errors="replace")
    return {**_plain(service, row), "value": text}


def _open(value: bytes, topic: str, event_id: UUID, kek_file: Path | None) -> bytes:
    from habeas.contracts.topics import CATALOGUE
    from habeas.sealing import KekSettings, Protector, SealingError, open_kek

    if not any(each.sealed for each in CATALOGUE if each.name == topic):
        return value
    if kek_file is None:
        raise click.UsageError("messages of this topic are kept sealed: give --kek-file")
    try:
        return Protector(open_kek(KekSettings(file=kek_file))).open(value, event_id.bytes)
    except SealingError:
        raise click.ClickException("the message does not open with this key ring") from None


def _plain(service: str, row: "asyncpg.Record") -> dict[str, Any]:
    found: Mapping[str, Any] = dict(row)
    place = f"{found['topic']} {found['partition']}/{found['record_offset']}"
    hidden = {"inbox_id", "topic", "partition", "record_offset"}
    rest = {name: value for name, value in found.items() if name not in hidden}
    return {"id": f"{service}/{found['inbox_id']}", "place": place, **rest}
