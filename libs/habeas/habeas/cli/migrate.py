"""`habeas migrate`: the schemas of all services and their topics, brought to what this version needs."""

from pathlib import Path

import click

from habeas.cli.connection import ADMIN_DSN, run
from habeas.cli.output import AS_JSON, say, write_json


@click.command(name="migrate")
@ADMIN_DSN
@click.option("--topics/--no-topics", default=True, show_default=True, help="Make the topics too (HABEAS_KAFKA_…).")
@AS_JSON
def migrate(dsn: str, *, topics: bool, as_json: bool) -> None:
    """Bring the schemas of all services and their topics forward. Running it again changes nothing."""
    applied = run(_migrate(dsn))
    made = run(_make_topics(dsn)) if topics else None
    if as_json:
        write_json({"applied": applied, "topics_made": made})
        return
    for schema, count in applied.items():
        say(f"{schema}: {count} applied" if count else f"{schema}: up to date")
    if made is not None:
        say(f"topics: {made} made" if made else "topics: all there")


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


async def _make_topics(dsn: str) -> int:
    """Make the topics that are missing. Raises ClickException when one is that was published to before: then Kafka lost it.

    Made here, it would take what is new before what it lost, so that has to be `habeas replay`.
    """
    from habeas.cli import store
    from habeas.cli.brokers import make_missing_topics, missing_topics
    from habeas.cli.connection import connected

    missing = await missing_topics(dsn)
    if not missing:
        return 0
    async with connected(dsn) as conn:
        lost = await store.find_published_topics(conn, missing)
    if lost:
        raise click.ClickException(
            f"{len(lost)} topics are gone that were published to, such as {lost[0]}: Kafka lost its data; run `habeas replay`"
        )
    return await make_missing_topics(dsn)
