"""`habeas migrate`: the schemas of all services and their topics, brought to what this version needs."""

from pathlib import Path
from typing import Final

import click

from habeas.cli.connection import run
from habeas.cli.output import AS_JSON, say, write_json

_REPLICAS_MAX: Final = 3
_DESCRIBE_MS: Final = 10_000


@click.command(name="migrate")
@click.option(
    "--dsn",
    envvar="HABEAS_ADMIN_DATABASE_DSN",
    show_envvar=True,
    required=True,
    help="The fleet's database, as habeas_owner or an administrator.",
)
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
    from habeas.cli import store

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
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise click.ClickException(f"the schemas could not be brought forward: {type(error).__name__}") from None
    return applied


async def _make_topics(dsn: str) -> int:
    """Make the topics that are missing, each on three brokers or on as many as there are."""
    from aiokafka.admin import AIOKafkaAdminClient

    from habeas.chassis.kafka import KafkaError, make_topics
    from habeas.cli.brokers import client_options
    from habeas.contracts.topics import CATALOGUE

    options = client_options(dsn)
    admin = AIOKafkaAdminClient(request_timeout_ms=_DESCRIBE_MS, **options)
    try:
        try:
            await admin.start()
            brokers = len((await admin.describe_cluster())["brokers"])
        finally:
            await admin.close()
        return await make_topics(options, CATALOGUE, min(_REPLICAS_MAX, brokers))
    except (KafkaError, OSError, TimeoutError) as error:
        raise click.ClickException(f"the topics could not be made: {type(error).__name__}") from None
