"""`habeas replay`: a Kafka that lost its data is filled again from the outboxes, by the relays themselves.

All kept rows become unpublished again, and the relays send them in their order under the same ids: there is no second way of publishing.
Consumers drop what they have by its id. The topics are made only after every publication that was begun before has run out, so that
nothing new gets in front of what is old.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click

from habeas.cli.connection import ADMIN_DSN, run
from habeas.cli.output import AS_JSON, say, write_json, write_table

_PROGRESS_S: Final = 2.0
_SETTLE_S: Final = 25.0  # longer than a relay holds on to a batch whose sending it cannot finish


@click.command(name="replay")
@ADMIN_DSN
@click.option("--service", "services", multiple=True, help="Only this service's events and entries; may be repeated.")
@click.option(
    "--since", type=click.DateTime(), help="Only events since then (UTC); audit entries are always sent whole."
)
@click.option(
    "--settle-s",
    type=click.FloatRange(0, 600),
    default=_SETTLE_S,
    show_default=True,
    help="Wait before topics are made, so that publications begun before have run out; 0 when no service runs.",
)
@click.option(
    "--limit-s",
    type=click.FloatRange(0, 86_400),
    default=3600.0,
    show_default=True,
    help="How long to wait until everything is published; the relays go on in any case.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@AS_JSON
def replay(
    *,
    dsn: str,
    services: tuple[str, ...],
    since: datetime | None,
    settle_s: float,
    limit_s: float,
    yes: bool,
    as_json: bool,
) -> None:
    """Publish again what the outboxes keep, after Kafka (HABEAS_KAFKA_…) lost its data; makes missing topics. Audited.

    Running it again sends everything again, which changes nothing. Exit code 1 when not all is published within the limit.
    """
    from habeas.cli import store

    if unknown := set(services) - set(store.SERVICES):
        raise click.UsageError(f"no such service: {', '.join(sorted(unknown))}")
    chosen = services or store.SERVICES
    begin = None if since is None else since.replace(tzinfo=UTC)
    missing = run(_missing(dsn))
    kept = run(_count(dsn, chosen, begin))
    if not as_json:
        _show(kept, missing)
    if not yes:
        click.confirm("Publish all of this again?", abort=True)
    marked = run(_mark(dsn, chosen, begin))
    run(_make(dsn, missing, settle_s, quiet=as_json))
    left = run(_wait(dsn, chosen, limit_s, quiet=as_json))
    if as_json:
        write_json({"topics_made": missing, "marked": marked, "unpublished": left})
    else:
        say("everything is published" if not left else f"{left} rows are not published yet; the relays go on")
    raise SystemExit(1 if left else 0)


def _show(kept: Sequence[Mapping[str, Any]], missing: Sequence[str]) -> None:
    rows = [(each["service"], each["events"], each["entries"], each["oldest_at"]) for each in kept]
    write_table("to be published again", ("service", "events", "audit entries", "oldest"), rows)
    if missing:
        say(f"{len(missing)} topics are missing and will be made")
    else:
        say(
            "all topics are there: what was published since they were made may stand before older events of its key; "
            "an empty Kafka is better replayed before `habeas migrate`"
        )


async def _missing(dsn: str) -> list[str]:
    from habeas.cli.brokers import topics_seen

    return sorted((await topics_seen(dsn)).missing)


async def _count(dsn: str, services: Sequence[str], since: datetime | None) -> list[dict[str, Any]]:
    from habeas.cli import store
    from habeas.cli.connection import connected

    async with connected(dsn) as conn:
        return [{"service": each, **dict(await store.count_kept(conn, each, since))} for each in services]


async def _mark(dsn: str, services: Sequence[str], since: datetime | None) -> dict[str, int]:
    """Make rows unpublished again; for each service at once, so that its relay never meets a later part before an earlier one."""
    from habeas.cli import store
    from habeas.cli.audited import add
    from habeas.cli.connection import connected
    from habeas.contracts.audit import Action, AuditFact

    marked = {}
    for service in services:
        async with connected(dsn, store.schema_of(service), writes=True) as conn, conn.transaction():
            marked[service] = await store.unpublish(conn, service, since)
            await add(conn, AuditFact(Action.MESSAGES_REPLAYED, count=marked[service]))
    return marked


async def _make(dsn: str, missing: Sequence[str], settle_s: float, *, quiet: bool) -> None:
    from habeas.cli.brokers import make_topics

    if not missing:
        return
    if settle_s and not quiet:
        say(f"waiting {settle_s:.0f} s for publications that were begun before")
    await asyncio.sleep(settle_s)
    await make_topics(missing, dsn)


async def _wait(dsn: str, services: Sequence[str], limit_s: float, *, quiet: bool) -> int:
    """Wait until all is published, telling how much is left; gives what is left at the limit."""
    from habeas.chassis.clock import SystemClock
    from habeas.cli import store
    from habeas.cli.connection import connected

    clock = SystemClock()
    end = clock.monotonic() + limit_s
    async with connected(dsn) as conn:
        while True:
            left = sum([await store.count_unpublished(conn, service) for service in services])
            if not left or clock.monotonic() > end:
                return left
            if not quiet:
                say(f"{left} rows to be published")
            await asyncio.sleep(_PROGRESS_S)
