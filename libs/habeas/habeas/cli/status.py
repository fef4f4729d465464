"""`habeas status`: how requests and their deadlines stand, what waits, is stuck, parked or paused. Counts only; nobody's data."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

import click

from habeas.cli.connection import OPERATOR_DSN, run
from habeas.cli.output import AS_JSON, age, say, write_json, write_table

_BOOTSTRAP: Final = "HABEAS_KAFKA_BOOTSTRAP"


@click.command(name="status")
@OPERATOR_DSN
@click.option(
    "--kafka", envvar=_BOOTSTRAP, show_envvar=True, help="Kafka brokers, to be asked for the lag of each service."
)
@click.option("--days", type=click.IntRange(0, 90), default=5, show_default=True, help="What counts as due soon.")
@click.option(
    "--old-s", type=click.FloatRange(1, 1e6), default=300.0, show_default=True, help="What counts as waiting long."
)
@click.option("--check", is_flag=True, help="Exit code 1 when anything is at risk.")
@AS_JSON
def status(dsn: str, kafka: str | None, days: int, old_s: float, *, check: bool, as_json: bool) -> None:
    """Say how requests and their deadlines stand, and what waits, is stuck, parked or paused."""
    from habeas.chassis.clock import SystemClock
    from habeas.cli import risks

    now = SystemClock().now()
    seen = run(_look(dsn, kafka, now, days))
    found = risks.find(seen, now, old_s)
    if as_json:
        write_json({"at": now, "healthy": not found, "risks": [risk.shown() for risk in found], **seen})
    else:
        _show(seen, found, now)
    if check and found:
        raise SystemExit(1)


async def _look(dsn: str, bootstrap: str | None, now: datetime, days: int) -> dict[str, Any]:
    """Look once; every count is of the same moment, but for the lag. Days are counted in UTC."""
    from habeas.cli import store
    from habeas.cli.connection import connected
    from habeas.cli.lag import ask

    async with connected(dsn) as conn, conn.transaction(isolation="repeatable_read", readonly=True):
        requests = [dict(row) for row in await store.count_requests(conn)]
        deadlines = [dict(row) for row in await store.count_deadlines(conn, now.date(), days)]
        work = [dict(row) for row in await store.count_work(conn)]
        services: list[dict[str, Any]] = []
        for service in store.SERVICES:
            counts = await store.count_delivery(conn, service)
            held = [dict(row) for row in await store.find_replicas(conn, service)]
            troubles = [dict(row) for row in await store.find_troubles(conn, service, now)]
            services.append(
                {"service": service, **(dict(counts) if counts else {}), "replicas": held, "troubles": troubles}
            )
        position = await store.find_ledger_position(conn)
    answer = await ask(bootstrap or None, {"audit-ledger": position})
    for each in services:
        each["lag"] = answer.lags.get(each["service"])
    return {
        "days": days,
        "kafka": answer.kafka,
        "topics": None if answer.seen is None else answer.seen.shown(),
        "rights": [asdict(each) for each in answer.lacking],
        "deadlines": deadlines,
        "requests": requests,
        "services": services,
        "work": work,
    }


def _show(seen: Mapping[str, Any], found: Sequence[Any], now: datetime) -> None:
    """Write one screen: what is at risk first, then how everything stands."""
    if found:
        rows: list[tuple[object, ...]] = [(each.service, each.count, each.said) for each in found]
        write_table("at risk", ("whose", "count", "what"), rows)
    else:
        say("nothing is at risk")
    say("")
    if seen["requests"]:
        _show_requests(seen["requests"], now)
    else:
        say("no requests yet")
    say("")
    _show_services(seen["services"], now)
    if seen["work"]:
        say("")
        rows = [tuple(each[name] for name in ("service", "work", "state", "reason", "rows")) for each in seen["work"]]
        write_table("unfinished work", ("service", "what", "state", "reason", "count"), rows)


def _show_requests(requests: Sequence[Mapping[str, Any]], now: datetime) -> None:
    rows = [
        (
            each["dsr_right"],
            each["state"],
            each["requests"],
            each["stuck"] or None,
            each["reasons"],
            age(each["oldest_at"], now),
            None if each["state"] == "completed" else each["next_due_on"],
            _answered(each),
        )
        for each in requests
    ]
    write_table("requests", ("right", "state", "requests", "stuck", "reasons", "oldest", "next due", "answered"), rows)


def _answered(requests: Mapping[str, Any]) -> str | None:
    """Say how people were answered, and how many could not be reached."""
    ways = {"by mail": "answered_by_mail", "by platform": "answered_by_platform", "not reachable": "not_reachable"}
    return ", ".join(f"{requests[column]} {way}" for way, column in ways.items() if requests[column]) or None


def _show_services(services: Sequence[Mapping[str, Any]], now: datetime) -> None:
    """Write what each service has to do and who does it; `lanes` are those of each replica."""
    rows = [
        (
            each["service"],
            len(each["replicas"]),
            "+".join(str(replica["lanes"]) for replica in each["replicas"]),
            "?" if each["lag"] is None else each["lag"],
            each["waiting"],
            age(each["oldest_waiting_at"], now),
            each["parked"],
            each["unpublished"] + each["unlogged"],
            age(each["oldest_unpublished_at"], now),
            _paused(each, now),
        )
        for each in services
    ]
    headings = ("service", "replicas", "lanes", "lag", "waiting", "oldest", "parked", "unsent", "oldest", "paused")
    write_table("services", headings, rows)


def _paused(service: Mapping[str, Any], now: datetime) -> str | None:
    if service["paused_at"] is not None:
        return f"for {age(service['paused_at'], now)}"
    return f"lanes {', '.join(map(str, service['paused_lanes']))}" if service["paused_lanes"] else None
