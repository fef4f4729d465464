"""What services show of their tables: each figure from rows written by hand, and nothing once the rows are gone."""

import re
from collections.abc import AsyncIterator
from datetime import date, timedelta
from functools import partial
from zoneinfo import ZoneInfo

import asyncpg
import pytest_asyncio

import audit_ledger.sweeps
import erasure_executor.sweeps
import export_builder.sweeps
import notification_mailer.sweeps
import request_intake.sweeps
import retention_sweeper.sweeps
from habeas.chassis import gauges, metrics
from habeas.chassis.clock import FakeClock
from habeas.chassis.control import Control
from habeas.chassis.database import Database
from habeas.chassis.sweep import Sweep, Swept
from habeas_embedded.provision import Access
from tests.support.delivery import CONSUMER, NOON, Delivery, new_id, settings

BERLIN = ZoneInfo("Europe/Berlin")
TODAY = date(2026, 11, 24)


@pytest_asyncio.fixture
async def owner(database: Access) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """Everybody's tables, to write into."""
    conn = await asyncpg.connect(database.owner_dsn)
    yield conn
    await conn.close()


def samples(name: str) -> dict[str, float]:
    """What Prometheus would read, without what is nothing."""
    found = re.findall(rf"^{name}(?:\{{(.*?)\}})? (\S+)$", metrics.render().decode(), re.MULTILINE)
    return {labels: float(value) for labels, value in found if float(value)}


async def nothing() -> Swept:
    """A sweep that has nothing to do."""
    return Swept(0)


async def opened(access: Access, service: str) -> Database:
    """A service's slice, by its own role and at noon."""
    return await Database.open(settings(access.dsn(service)), service.replace("-", "_"), FakeClock(NOON))


async def test_deadlines_and_stuck_requests(database: Access, owner: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Open requests are shown by right and state; due soon, overdue and past the limit by reason; on its day nothing is late."""
    for right, state, stuck, due, limit in (
        ("access", "in_progress", None, 6, 9),
        ("access", "in_progress", None, 0, 9),
        ("access", "in_progress", "store_refused", -1, 0),
        ("erasure", "answering", None, -9, -1),
        ("erasure", "completed", None, -9, -1),
    ):
        subject = new_id()
        await owner.execute(
            "INSERT INTO request_intake.subjects VALUES ($1, sha256($2), $3)", subject, subject.bytes, NOON
        )
        await owner.execute(
            """
            INSERT INTO request_intake.requests (request_id, subject_id, dsr_right, state, stuck_reason, regime, law_version, channel,
                received_at, due_on, legal_limit_on, is_verified, account, subject_ref, submission_digest)
            VALUES ($1, $2, $3, $4, $5, 'gdpr', '2016-679', 'web', $6, $7, $8, true, 's1.data.x', 'ref', 'd')
            """,
            new_id(), subject, right, state, stuck, NOON - timedelta(seconds=90), TODAY + timedelta(due), TODAY + timedelta(limit),
        )  # fmt: skip
    db = await opened(database, "request-intake")
    measure = partial(request_intake.sweeps.measure_deadlines, zone=BERLIN)
    try:
        await measure(db)
        assert samples("habeas_request_open_requests") == {
            'right="access",state="in_progress"': 3,
            'right="erasure",state="answering"': 1,
        }
        assert samples("habeas_request_due_soon_requests") == {'reason="in_progress",right="access"': 1}
        assert samples("habeas_request_overdue_requests") == {'reason="store_refused",right="access"': 1}
        assert samples("habeas_request_past_limit_requests") == {'reason="answering",right="erasure"': 1}
        assert samples("habeas_work_stuck_rows") == {'reason="store_refused",work="request"': 1}
        assert samples("habeas_work_oldest_stuck_age_s") == {'reason="store_refused",work="request"': 90}
        await owner.execute("UPDATE request_intake.requests SET state = 'completed', stuck_reason = NULL")
        await measure(db)
        for name in (
            "request_open_requests",
            "request_overdue_requests",
            "request_past_limit_requests",
            "work_stuck_rows",
        ):
            assert samples(f"habeas_{name}") == {}
    finally:
        await db.close()


async def test_stuck_work_rules_mails_and_the_log(
    database: Access, owner: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    """Stuck erasures, exports and sweeps, the age of rules, waiting mails and halted producers are each shown by their own service."""
    await owner.execute(
        "INSERT INTO erasure_executor.erasures (request_id, subject_id, state, stuck_reason, due_on, next_attempt_at)"
        " VALUES ($1, $1, 'stuck', 'not_erased', $2, $3)", new_id(), TODAY, NOON,
    )  # fmt: skip
    await owner.execute(
        "INSERT INTO export_builder.exports (export_id, request_id, subject_id, dsr_right, state, stuck_reason, due_on, next_attempt_at)"
        " VALUES ($1, $1, $1, 'access', 'stuck', 'artefact_unwritable', $2, $3)", new_id(), TODAY, NOON,
    )  # fmt: skip
    await owner.execute(
        "INSERT INTO retention_sweeper.ticks (tick_id, store, as_of, scope, state, stuck_reason, next_attempt_at)"
        " VALUES ($1, 'shop', $2, 'all', 'stuck', 'schema_mismatch', $2)", new_id(), NOON - timedelta(hours=2),
    )  # fmt: skip
    await owner.execute(
        "INSERT INTO retention_sweeper.rules (store, table_name, retention, reached_at) VALUES ('shop', 'Tasks', 'execution', $1)",
        NOON - timedelta(hours=40),
    )  # fmt: skip
    await owner.execute(
        "INSERT INTO notification_mailer.messages (mail_id, kind, state, request_id, next_attempt_at, queued_at)"
        " VALUES ($1, 'outcome', 'queued', $1, $2, $2)", new_id(), NOON - timedelta(seconds=45),
    )  # fmt: skip
    await owner.execute(
        "INSERT INTO audit_ledger.producers (producer, state, epoch, seq, hash, halted_offset, halted_reason, expected_seq, found_seq,"
        " halted_at) VALUES ('request-intake', 'halted', 1, 3, repeat('0', 64), 7, 'gap', 4, 6, $1)", NOON - timedelta(seconds=30),
    )  # fmt: skip
    for service, measure, stuck in (
        ("erasure-executor", erasure_executor.sweeps.measure_stuck, {'reason="not_erased",work="erasure"': 1}),
        ("export-builder", export_builder.sweeps.measure_stuck, {'reason="artefact_unwritable",work="export"': 1}),
        ("retention-sweeper", retention_sweeper.sweeps.measure_rules, {'reason="schema_mismatch",work="tick"': 1}),
        ("audit-ledger", audit_ledger.sweeps.measure_log, {'reason="gap",work="producer"': 1}),
    ):
        db = await opened(database, service)
        try:
            await measure(db)
            assert samples("habeas_work_stuck_rows") == stuck
        finally:
            await db.close()
    assert samples("habeas_retention_reached_age_s") == {'rule="shop.tasks.execution"': 40 * 3600}
    assert samples("habeas_work_oldest_stuck_age_s") == {'reason="gap",work="producer"': 30}
    assert samples("habeas_audit_unsigned_age_s") == {}
    db = await opened(database, "notification-mailer")
    try:
        await notification_mailer.sweeps.measure_waiting(db)
    finally:
        await db.close()
    assert samples("habeas_mail_waiting_messages") == {'kind="outcome"': 1}
    assert samples("habeas_mail_oldest_waiting_age_s") == {'kind="outcome"': 45}


async def test_lanes_replicas_pool_and_pauses(database: Access) -> None:
    """A replica shows its lanes, those that nobody holds, who lives, how full its pool is, and what is paused."""
    delivery = await Delivery.open(database)
    try:
        lanes = await delivery.lanes()
        worker = delivery.worker(lanes, {})
        worker.halted = True
        sweep = Sweep("a_sweep", 1.0, nothing, delivery.clock, ended_at=delivery.clock.monotonic() - 12)
        await gauges.show(delivery.database, lanes, worker, None, [sweep])
        assert samples("habeas_lane_held_lanes") == {"": 17}
        assert samples("habeas_lane_free_lanes") == {}
        assert samples("habeas_lane_live_replicas") == {"": 1}
        assert samples("habeas_inbox_halted_workers") == {"": 1}
        assert samples("habeas_pool_limit_connections") == {"": 8}
        assert samples("habeas_sweep_last_run_age_s")['sweep="a_sweep"'] == 12
        await delivery.look(
            f"UPDATE {CONSUMER.replace('-', '_')}.lanes SET holder = NULL, paused_at = now() WHERE lane < 3 RETURNING 1"
        )
        await gauges.show(delivery.database, lanes, worker, None, [])
        await Control(delivery.database, delivery.settings.log_level).look()
        assert samples("habeas_lane_free_lanes") == {"": 3}
        assert samples("habeas_lane_paused_lanes") == {"": 3}
    finally:
        await delivery.close()
