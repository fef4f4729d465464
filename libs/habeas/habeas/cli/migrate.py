"""`habeas migrate`: the schemas of all services and their topics, brought to what this version needs."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from habeas.cli.connection import ADMIN_DSN, run
from habeas.cli.output import AS_JSON, say, write_json

if TYPE_CHECKING:
    from habeas.chassis.drift import Seen


@click.command(name="migrate")
@ADMIN_DSN
@click.option("--topics/--no-topics", default=True, show_default=True, help="Make the topics too (HABEAS_KAFKA_…).")
@click.option(
    "--reset-topics", is_flag=True, help="Set the settings of topics that are there back to those of the catalogue."
)
@AS_JSON
def migrate(dsn: str, *, topics: bool, reset_topics: bool, as_json: bool) -> None:
    """Bring the schemas of all services and their topics forward. Running it again changes nothing.

    Exit code 1 when messages can be lost in a topic: then services do not start either.
    """
    if reset_topics and not topics:
        raise click.UsageError("--reset-topics and --no-topics exclude each other")
    applied = run(_migrate(dsn))
    made, seen = run(_topics(dsn, reset=reset_topics)) if topics else (None, None)
    differences = [] if seen is None else seen.differences
    if as_json:
        write_json({"applied": applied, "topics_made": made, "topics": None if seen is None else seen.shown()})
    else:
        for schema, count in applied.items():
            say(f"{schema}: {count} applied" if count else f"{schema}: up to date")
        if made is not None:
            say(f"topics: {made} made" if made else "topics: all there")
        for each in differences:
            say(f"topics: {each.said}")
        if seen is not None and seen.unread:
            say(f"topics: the settings of {len(seen.unread)} may not be read: give this user the right DescribeConfigs")
    if any(each.is_unfit for each in differences):
        raise SystemExit(1)


async def _migrate(dsn: str) -> dict[str, int]:
    """Run the migrations, the one of the keys first: others refer to nothing of it, but no service starts without it."""
    import asyncpg

    from habeas import sealing
    from habeas.chassis import migrations
    from habeas.chassis.connection import SessionShared
    from habeas.cli import store
    from habeas.cli.connection import refusal

    applied = {}
    try:
        applied["sealing"] = await migrations.migrate(dsn, "sealing", [Path(sealing.__path__[0]) / "migrations"])
        for service in store.SERVICES:
            schema = store.schema_of(service)
            applied[schema] = await migrations.migrate(dsn, schema, migrations.directories(service), role=schema)
    except migrations.MigrationError as error:
        raise click.ClickException(str(error)) from None
    except asyncpg.InsufficientPrivilegeError:
        raise click.ClickException(
            "habeas_owner may not make tables here: run deploy/postgres/roles.sql first"
        ) from None
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError, SessionShared) as error:
        raise click.ClickException(f"the schemas could not be brought forward: {refusal(error, dsn)}") from None
    return applied


async def _topics(dsn: str, *, reset: bool) -> "tuple[int, Seen]":
    """Make the topics that are missing, and look at them all. Raises ClickException when one is that was published to before.

    Kafka has lost it then. Made here, it would take what is new before what it lost, so that has to be `habeas replay`.
    """
    from habeas.cli import brokers, store
    from habeas.cli.connection import connected

    seen = await brokers.topics_seen(dsn)
    made = 0
    if seen.missing:
        async with connected(dsn) as conn:
            lost = await store.find_published_topics(conn, sorted(seen.missing))
        if lost:
            raise click.ClickException(
                f"{len(lost)} topics are gone that were published to, such as {lost[0]}: Kafka lost its data; run `habeas replay`"
            )
        made = await brokers.make_topics(seen.missing, dsn)
    if reset:
        await brokers.reset_topics(dsn)
        seen = await brokers.topics_seen(dsn)
    return made, seen
