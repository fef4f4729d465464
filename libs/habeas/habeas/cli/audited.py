"""What an operator does with people's data is put into the audit log, through the outbox of the service that it belongs to."""

import asyncpg
import click

from habeas.chassis.clock import SystemClock
from habeas.chassis.ids import uuid7
from habeas.chassis.store import ADD_FACTS
from habeas.cli.connection import Connection
from habeas.contracts.audit import AuditFact, encode_fact


async def record(conn: Connection, fact: AuditFact) -> None:
    """Commit a fact; the service's relay gives it its place in the log. ``conn`` has the service's schema as search path.

    Raises ClickException when the role may not: then nothing may be opened, because it would not be on record.
    """
    try:
        async with conn.transaction():
            await add(conn, fact)
    except asyncpg.InsufficientPrivilegeError:
        raise click.ClickException(
            "this would have to be put into the audit log, which the role of this DSN may not: use the service's own"
        ) from None


async def add(conn: Connection, fact: AuditFact) -> None:
    """Put a fact into the outbox of the service whose schema is ``conn``'s search path, within a transaction that is open."""
    clock = SystemClock()
    now = clock.now()
    await conn.execute(ADD_FACTS, now, [uuid7(clock)], [encode_fact(fact, now)], [None])
