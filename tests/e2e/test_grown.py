"""What is over stays out of the way: no statement of a service reads more rows because of all the requests that there once were."""

import asyncio
import json
import os
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any, Final

import asyncpg
import pytest
import pytest_asyncio
from pydantic import HttpUrl

from habeas.contracts.platform import PolicyChanged
from habeas.contracts.vocabulary import Right
from habeas_embedded.provision import SERVICES
from tests.support.stage import Stage, raised

pytestmark = pytest.mark.asyncio(loop_scope="session")

COPIES: Final = 5_000  # of each finished thing
STATEMENTS_MIN: Final = 200  # else the plans are not where they are looked for
READ_MAX: Final = 2_000  # rows that one node of a plan may look at

# Each finished row again and again: ids and fingerprints become others, the same everywhere for the same one, all else stays.
COLUMNS: Final = """
    SELECT a.attname AS name, format_type(a.atttypid, NULL) AS type
      FROM pg_attribute AS a
     WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attidentity = '' AND a.attgenerated = ''
     ORDER BY a.attnum
"""
GROWING: Final = (
    "request_intake.subjects",
    "request_intake.requests",
    "erasure_executor.erasures",
    "erasure_executor.tombstones",
    "export_builder.exports",
    "export_builder.erased_subjects",
    "notification_mailer.messages",
    "sealing.subject_keys",
    "retention_sweeper.ticks",
    "retention_sweeper.sweeps",
    *(f"{service.replace('-', '_')}.{table}" for service in SERVICES for table in ("seen", "outbox")),
)
KEPT: Final = {"campaign_id"}  # there are few campaigns, each with many mails

EXPLAINED: Final = """
    ALTER DATABASE habeas SET session_preload_libraries = 'auto_explain';
    ALTER DATABASE habeas SET auto_explain.log_min_duration = 0;
    ALTER DATABASE habeas SET auto_explain.log_analyze = on;
    ALTER DATABASE habeas SET auto_explain.log_timing = off;
    ALTER DATABASE habeas SET auto_explain.log_format = 'json';
"""
PLAN: Final = re.compile(r"@habeas LOG:  duration: [\d.]+ ms  plan:\n(.*?\n\t\})\n", re.DOTALL)


@pytest_asyncio.fixture(loop_scope="session")
async def stage() -> AsyncIterator[Stage]:
    """A fleet of its own: its history is made up afterwards."""
    async with raised(f"tests-grown-{os.getpid()}", database_settings=EXPLAINED) as stage:
        yield stage


async def play(stage: Stage, version: str) -> None:
    """Have a few requests of both kinds answered, data swept and a policy change mailed."""
    now = stage.clock.now()
    reader = stage.take_one()
    await stage.publisher.tick(now)
    await stage.publisher.policy_change(
        PolicyChanged(
            change_id=version,
            material=True,
            published_at=now,
            effective_on=(now + timedelta(days=40)).date(),
            version=version,
            summary={"en": "Something changes."},
            url=HttpUrl("https://example.org/privacy"),
        )
    )
    asked = [
        await stage.ask(right, person)
        for right, person in zip((Right.ERASURE, Right.ACCESS) * 2, stage.take(4), strict=True)
    ]
    await stage.completed(*asked)
    await stage.until(lambda: "policy_change" in stage.mail_kinds(reader.email), "the mail of a policy change")
    await stage.idle()


async def grow(stage: Stage, table: str) -> None:
    """Copy each row of a table."""
    columns = await stage.habeas.fetch(COLUMNS, table)
    names = [row["name"] for row in columns]
    values = [_other(row["name"], row["type"]) for row in columns]
    await stage.habeas.execute(
        f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(values)} FROM {table} AS t, generate_series(1, {COPIES}) AS n"
    )


def _other(name: str, kind: str) -> str:
    if kind == "uuid" and name not in KEPT:
        return f"md5(t.{name}::text || n)::uuid"
    if kind == "bytea" and name == "account_fingerprint":
        return f"sha256(t.{name} || int4send(n))"
    return f"t.{name}"


def scans(plan: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The tables that a plan reads, each with how many rows it looked at there."""
    if "Relation Name" in plan:
        rows = sum(
            plan.get(name, 0.0) for name in ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
        )
        yield plan["Relation Name"], rows * plan["Actual Loops"]
    for below in plan.get("Plans", ()):
        yield from scans(below)


def read_much(log: str) -> dict[str, float]:
    """The statements that looked at many rows of one table, with how many."""
    found: dict[str, float] = defaultdict(float)
    for plan in map(json.loads, PLAN.findall(log)):
        for table, rows in scans(plan["Plan"]):
            if rows > READ_MAX and not table.startswith("pg_"):
                where = f"{table}: {' '.join(plan['Query Text'].split())[:160]}"
                found[where] = max(found[where], rows)
    return found


class PlanLog:
    """What the server has written about plans since it was asked last."""

    def __init__(self, stage: Stage) -> None:
        self._path = stage.run / "logs" / "postgres.log"
        self._read = 0

    def more(self) -> str:
        """Give what is new."""
        raw = self._path.read_bytes()[self._read :]
        self._read += len(raw)
        return raw.decode()


async def restart(stage: Stage) -> None:
    """Stop every service in order and start it again, with new connections."""
    await asyncio.gather(*(stage.fleet.stop_service(service) for service in SERVICES))
    await stage.fleet.start()


async def test_what_is_over_is_not_read(stage: Stage) -> None:
    """With thousands of finished requests, mails and messages, those that come are served without looking at them.

    Neither with plans that were made when tables were empty, nor with those that are made when they are full. What does look at them is
    found: last, a statement that counts all requests.
    """
    log = PlanLog(stage)
    await play(stage, "1")
    for table in GROWING:
        await grow(stage, table)
    log.more()
    await play(stage, "2")
    assert read_much(log.more()) == {}

    await stage.habeas.execute("ANALYZE")
    await restart(stage)
    log.more()
    await play(stage, "3")
    told = log.more()
    assert len(PLAN.findall(told)) > STATEMENTS_MIN
    assert read_much(told) == {}

    bad = "SELECT count(*) FROM request_intake.requests WHERE regime = 'gdpr'"
    explained = await asyncpg.connect(stage.access.admin_dsn)
    await explained.fetchval(bad)
    await explained.close()
    assert f"requests: {bad}" in read_much(log.more())
