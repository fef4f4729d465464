"""`habeas status` over a real database: deadlines, replicas and lanes, what is paused, and the exit code of --check."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from habeas.chassis.clock import SystemClock
from tests.integration.cli.conftest import Owner, Run, parsed
from tests.support.delivery import new_id

KEYS = {"at", "healthy", "risks", "days", "kafka", "topics", "rights", "deadlines", "requests", "services", "work"}
SERVICE_KEYS = {
    "service", "waiting", "parked", "oldest_waiting_at", "unpublished", "unlogged", "oldest_unpublished_at",
    "paused_at", "log_level", "paused_lanes", "free_lanes", "replicas", "lag", "troubles",
}  # fmt: skip
RECEIVED = datetime(2026, 11, 24, 9, tzinfo=UTC)


async def add_request(
    owner: Owner, due_on: date, limit_on: date, *, right: str = "access", state: str = "in_progress", stuck: str | None = None,
    reach: str | None = None,
) -> None:  # fmt: skip
    """Add a request of a new person."""
    subject = new_id()
    await owner.execute(
        "INSERT INTO request_intake.subjects VALUES ($1, sha256($2), $3)", subject, subject.bytes, RECEIVED
    )
    await owner.execute(
        """
        INSERT INTO request_intake.requests (request_id, subject_id, dsr_right, state, stuck_reason, regime, law_version, channel,
            received_at, due_on, legal_limit_on, is_verified, account, subject_ref, submission_digest, reach)
        VALUES ($1, $2, $3, $4, $5, 'gdpr', '2016-679', 'web', $6, $7, $8, true, 's1.data.x', 'ref', 'd', $9)
        """,
        new_id(), subject, right, state, stuck, RECEIVED, due_on, limit_on, reach,
    )  # fmt: skip


async def add_replica(owner: Owner, schema: str, instance: int, lanes: range, left_s: float = 60) -> None:
    """Let a replica live for so long, and hold lanes for so long."""
    holder: UUID = new_id()
    await owner.execute(
        f"INSERT INTO {schema}.replicas VALUES ($1, $2, now() + $3 * interval '1 second')", holder, instance, left_s
    )
    await owner.execute(
        f"UPDATE {schema}.lanes SET holder = $1, token = token + 1, expires_at = now() + $3 * interval '1 second'"
        " WHERE lane = ANY($2::smallint[])",
        holder, list(lanes), left_s,
    )  # fmt: skip


async def healthy(owner: Owner) -> None:
    """Let every service have one replica with all lanes."""
    for schema in (
        "request_intake",
        "erasure_executor",
        "export_builder",
        "retention_sweeper",
        "notification_mailer",
        "audit_ledger",
    ):
        await add_replica(owner, schema, 0, range(17))


def of(seen: dict[str, Any], service: str) -> dict[str, Any]:
    """What is shown of one service."""
    (found,) = [each for each in seen["services"] if each["service"] == service]
    return dict(found)


async def test_keys_are_those_that_are_documented(run: Run) -> None:
    """Programs read the JSON: its keys are these."""
    seen = parsed(await run("status", "--json"))
    assert set(seen) == KEYS
    assert {frozenset(each) for each in seen["services"]} == {frozenset(SERVICE_KEYS)}
    assert set(seen["risks"][0]) == {"risk", "service", "count", "said"}
    assert seen["kafka"] == "not_asked"


async def test_check_tells_a_healthy_fleet_from_one_at_risk(run: Run, owner: Owner) -> None:
    """Exit code 0 while all is well, 1 as soon as something is at risk, and without --check it is always 0."""
    await healthy(owner)
    well = await run("status", "--check")
    assert (well.exit_code, "nothing is at risk" in well.stdout) == (0, True)
    await run("pause", "export-builder")
    assert (await run("status")).exit_code == 0
    ill = await run("status", "--check")
    assert (ill.exit_code, "is paused" in ill.stdout) == (1, True)
    assert (await run("status", "--check", "--json")).exit_code == 1


async def test_deadlines_by_right_and_reason(run: Run, owner: Owner) -> None:
    """Open requests are counted as due soon, late beyond the promise, and late beyond the law; on the day itself nothing is late."""
    today = SystemClock().now().date()

    def in_days(days: int) -> date:
        return today + timedelta(days=days)

    await add_request(owner, in_days(6), in_days(9))
    await add_request(owner, in_days(0), in_days(9))
    await add_request(owner, in_days(5), in_days(9))
    await add_request(owner, in_days(-1), in_days(0))
    await add_request(owner, in_days(-9), in_days(-1), stuck="store_unavailable")
    await add_request(owner, in_days(-9), in_days(-1), state="completed")
    await add_request(owner, in_days(1), in_days(2), right="erasure", state="awaiting_identity")
    rows = {(row["dsr_right"], row["reason"]): row for row in parsed(await run("status", "--json"))["deadlines"]}
    counts = {key: (row["due_soon"], row["overdue"], row["past_limit"]) for key, row in rows.items()}
    assert counts == {
        ("access", "in_progress"): (2, 1, 0),
        ("access", "store_unavailable"): (0, 0, 1),
        ("erasure", "awaiting_identity"): (1, 0, 0),
    }
    later = parsed(await run("status", "--json", "--days", "6"))["deadlines"]
    assert {(row["dsr_right"], row["reason"], row["due_soon"]) for row in later} >= {("access", "in_progress", 3)}
    shown = (await run("status")).stdout
    assert "access (store_unavailable): past the legal limit" in shown
    assert "erasure (awaiting_identity): due within 5 days" in shown


async def test_replicas_lanes_and_what_is_paused(run: Run, owner: Owner) -> None:
    """Replicas that are alive are shown with their lanes, dead ones are not; lanes of a dead one are free; pauses are shown."""
    await add_replica(owner, "export_builder", 0, range(9))
    await add_replica(owner, "export_builder", 1, range(9, 15))
    await add_replica(owner, "export_builder", 2, range(15, 17), left_s=-1)
    await run("pause", "export-builder", "--lane", "4")
    await run("pause", "audit-ledger")
    await run("log-level", "audit-ledger", "debug")
    seen = parsed(await run("status", "--json"))
    builder, ledger = of(seen, "export-builder"), of(seen, "audit-ledger")
    assert builder["replicas"] == [{"instance": 0, "lanes": 9}, {"instance": 1, "lanes": 6}]
    assert (builder["free_lanes"], builder["paused_lanes"], builder["paused_at"]) == (2, [4], None)
    assert (ledger["replicas"], ledger["log_level"], ledger["paused_at"] is not None) == ([], "debug", True)
    assert ("lanes_free", "export-builder", 2) in {(r["risk"], r["service"], r["count"]) for r in seen["risks"]}
    (line,) = [
        line
        for line in (await run("status")).stdout.splitlines()
        if line.startswith("export-builder ") and "9+6" in line
    ]
    assert "lanes 4" in line


async def test_kafka_that_does_not_answer_is_a_risk(run: Run, owner: Owner) -> None:
    """The lag is unknown, not zero, when Kafka is asked and silent."""
    await healthy(owner)
    result = await run("status", "--json", "--kafka", "127.0.0.1:9")
    seen = parsed(result)
    assert (seen["kafka"], seen["risks"][0]["risk"]) == ("unreachable", "kafka_unreachable")
    assert {each["lag"] for each in seen["services"]} == {None}


async def test_how_people_were_answered_is_counted(owner: Owner, run: Run) -> None:
    """Completed requests say by which way; those that nobody could answer stand out. What is open is not counted as answered."""
    due = SystemClock().now().date() + timedelta(days=9)
    for reach in ("mail", "mail", "platform", "not_reachable", None):
        await add_request(owner, due, due, state="completed", reach=reach)
    await add_request(owner, due, due, state="answering", reach="mail")
    ways = ("answered_by_mail", "answered_by_platform", "not_reachable")
    counted = {each["state"]: [each[way] for way in ways] for each in parsed(await run("status", "--json"))["requests"]}
    assert counted == {"completed": [2, 1, 1], "answering": [0, 0, 0]}
    assert "2 by mail, 1 by platform, 1 not reachable" in " ".join((await run("status")).stdout.split())


async def test_work_that_is_begun_again_and_again_without_a_reason_is_a_risk(run: Run, owner: Owner) -> None:
    """In progress for ever is seen: erasures, exports, ticks and sweeps after more than three beginnings, mails after the second."""
    await healthy(owner)
    for claims in (3, 4):
        await owner.execute(
            "INSERT INTO erasure_executor.erasures (request_id, subject_id, state, due_on, next_attempt_at, attempts)"
            " VALUES ($1, $1, 'erasing', '2026-12-24', $2, $3)",
            new_id(), RECEIVED, claims,
        )  # fmt: skip
        await owner.execute(
            "INSERT INTO export_builder.exports (export_id, request_id, subject_id, dsr_right, state, due_on, next_attempt_at, attempts)"
            " VALUES ($1, $1, $1, 'access', 'building', '2026-12-24', $2, $3)",
            new_id(), RECEIVED, claims,
        )  # fmt: skip
        tick = new_id()
        await owner.execute(
            "INSERT INTO retention_sweeper.ticks (tick_id, store, as_of, scope, state, next_attempt_at, claims)"
            " VALUES ($1, 'shop', $2, 'all', 'sweeping', $2, $3)",
            tick, RECEIVED, claims,
        )  # fmt: skip
        await owner.execute(
            "INSERT INTO retention_sweeper.sweeps (tick_id, store, table_name, retention, position, as_of, state, next_attempt_at, claims)"
            " VALUES ($1, 'shop', 'tasks', 'execution', 0, $2, 'sweeping', $2, $3)",
            tick, RECEIVED, claims,
        )  # fmt: skip
        await owner.execute(
            "INSERT INTO notification_mailer.messages (mail_id, kind, state, request_id, attempt, next_attempt_at, queued_at)"
            " VALUES ($1, 'acknowledgement', 'queued', $1, $2, $3, $3)",
            new_id(), claims - 2, RECEIVED,
        )  # fmt: skip
    found = parsed(await run("status", "--json"))["risks"]
    assert [(each["service"], each["count"], each["said"]) for each in found] == [
        ("erasure-executor", 1, "erasure is erasing (unexplained)"),
        ("export-builder", 1, "export is building (unexplained)"),
        ("notification-mailer", 1, "mail is queued (mail_postponed)"),
        ("retention-sweeper", 1, "sweep is sweeping (unexplained)"),
        ("retention-sweeper", 1, "tick is sweeping (unexplained)"),
    ]
