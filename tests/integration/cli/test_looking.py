from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit
from uuid import UUID

import click
import pytest

from habeas.cli.connection import connected
from habeas.sealing import FileKek, Protector, new_key_ring
from habeas_embedded.provision import Access, apply_roles, open_access
from tests.integration.cli.conftest import Owner, Run, parsed

REQUEST = UUID("01990c5e-7b1a-7c62-9f0e-3d6a5b1c2d3e")
SUBJECT = UUID("01990c5e-7b1a-7c62-9f0e-3d6a5b1c2d3f")
EVENT = UUID("01990c5e-7b1a-7c62-9f0e-3d6a5b1c2d40")
T0 = datetime(2026, 11, 24, 9, 12, 33, tzinfo=UTC)
SECRET = "ada@example.org"


def at(seconds: float) -> datetime:
    """So many seconds after the request was received."""
    return T0 + timedelta(seconds=seconds)


async def _add_request(owner: Owner, state: str = "completed", reason: str | None = None) -> None:
    await owner.execute("INSERT INTO request_intake.subjects VALUES ($1, sha256('a'), $2)", SUBJECT, T0)
    await owner.execute(
        """
        INSERT INTO request_intake.requests (request_id, subject_id, dsr_right, state, stuck_reason, regime, law_version, channel,
            received_at, due_on, legal_limit_on, is_verified, account, subject_ref, submission_digest, accepted_at, closed_at)
        VALUES ($1, $2, 'erasure', $4, $5, 'gdpr', '2016-679', 'account-settings', $3, '2026-12-24', '2026-12-24', true,
            's1.data.x', 'ref', 'd', $3, CASE WHEN $4 = 'completed' THEN $3::timestamptz + interval '7 seconds' END)
        """,
        REQUEST, SUBJECT, T0, state, reason,
    )  # fmt: skip


async def _add_inbox(
    owner: Owner,
    service: str,
    kind: str,
    received_at: datetime,
    *,
    key: bytes,
    topic: str,
    state: str,
    value: bytes | None,
) -> int:
    parked = state == "parked"
    return int(
        await owner.fetchval(
            f"""
            INSERT INTO {service}.inbox (event_id, topic, partition, record_offset, type, key, lane, event_at, value, digest, received_at,
                state, reason, field, next_attempt_at, handled_at)
            VALUES ($1, $2, 0, 41, $3, $4, 1, $5, $6, 'd', $5, $7, $8, $9, $5, $5::timestamptz + interval '250 milliseconds')
            RETURNING inbox_id
            """,
            EVENT, topic, kind, key, received_at, value, state,
            "wrong_value" if parked else None, "country" if parked else None,
        )
    )  # fmt: skip


async def _add_told(
    owner: Owner, service: str, kind: str, topic: str, created_at: datetime, took_ms: int | None, event_id: UUID = EVENT
) -> None:
    await owner.execute(
        f"""
        INSERT INTO {service}.outbox (created_on, event_id, lane, topic, key, type, subject, value, created_at, published_at)
        VALUES ($1::date, $2, 1, $3, $4, $5, $4, '', $6::timestamptz, $6::timestamptz + $7::integer * interval '1 millisecond')
        """,
        created_at.date(), event_id, topic, str(REQUEST), kind, created_at, took_ms,
    )  # fmt: skip


async def _add_logged(owner: Owner, service: str, action: str, outcome: str, seq: int, created_at: datetime) -> None:
    tail = f"time=x action={action} request={REQUEST.hex} subject=- outcome={outcome} count=- commitments=-"
    await owner.execute(
        f"INSERT INTO {service}.audit_lines (event_id, line, created_at, seq) VALUES ($1, $2, $3, $4)",
        EVENT, f"habeas-audit/1 producer=x epoch=1 seq={seq} prev=x {tail}".encode(), created_at, seq,
    )  # fmt: skip


async def test_status_of_an_empty_fleet(run: Run) -> None:
    """Nothing is asked, nothing waits: zeros for each of the six services."""
    seen = parsed(await run("status", "--json"))
    assert (seen["requests"], seen["work"]) == ([], [])
    assert len(seen["services"]) == 6
    assert {(each["waiting"], each["parked"], each["unpublished"], each["unlogged"]) for each in seen["services"]} == {
        (0, 0, 0, 0)
    }
    assert "no requests yet" in (await run("status")).stdout


async def test_status_counts_what_waits_and_what_is_stuck(run: Run, owner: Owner) -> None:
    """Requests by state, parked messages, unpublished events and stuck sweeps are all told, with how old the oldest is."""
    await _add_request(owner, "in_progress", "store_unavailable")
    await _add_inbox(
        owner,
        "erasure_executor",
        "request.verified",
        T0,
        key=b"k",
        topic="request-intake.requests.v1",
        state="parked",
        value=b"{}",
    )
    await _add_told(owner, "request_intake", "request.accepted", "request-intake.requests.v1", at(1), None)
    await owner.execute(
        "INSERT INTO retention_sweeper.ticks (tick_id, store, as_of, scope, state, stuck_reason, next_attempt_at)"
        " VALUES ($1, 'platform', $2, 'all', 'stuck', 'schema_mismatch', $2)",
        EVENT, T0,
    )  # fmt: skip
    seen = parsed(await run("status", "--json"))
    (request,) = seen["requests"]
    assert (request["state"], request["requests"], request["stuck"]) == ("in_progress", 1, 1)
    assert (request["oldest_at"], request["next_due_on"]) == ("2026-11-24T09:12:33Z", "2026-12-24")
    by_service = {each["service"]: each for each in seen["services"]}
    assert by_service["erasure-executor"]["parked"] == 1
    assert by_service["request-intake"]["unpublished"] == 1
    assert by_service["request-intake"]["oldest_unpublished_at"] == "2026-11-24T09:12:34Z"
    assert seen["work"] == [
        {"service": "retention-sweeper", "work": "tick", "state": "stuck", "reason": "schema_mismatch", "rows": 1}
    ]
    shown = (await run("status")).stdout
    assert "schema_mismatch" in shown
    assert "\x1b" not in shown


async def test_trail_in_the_order_of_time(run: Run, owner: Owner) -> None:
    """One request's way through services: taken, told, logged, finished, with the time that it took until it was published."""
    await _add_request(owner)
    await _add_told(owner, "request_intake", "request.verified", "request-intake.requests.v1", at(1), 40)
    await owner.execute("INSERT INTO erasure_executor.seen VALUES ($1, 'd', $2)", EVENT, at(2))
    await owner.execute(
        "INSERT INTO erasure_executor.erasures (request_id, subject_id, state, due_on, attempts, next_attempt_at, erased_at)"
        " VALUES ($1, $2, 'completed', '2026-12-24', 2, $3, $3)",
        REQUEST, SUBJECT, at(3),
    )  # fmt: skip
    await _add_logged(owner, "erasure_executor", "erasure.completed", "partly_kept", 42, at(4))
    await _add_told(
        owner, "erasure_executor", "erasure.completed", "erasure-executor.erasures.v1", at(5), None, event_id=SUBJECT
    )
    found = parsed(await run("trail", str(REQUEST), "--json"))
    assert (found["request"]["state"], found["open"]) == ("completed", [])
    assert [(line["at"], line["service"], line["what"], line["took"]) for line in found["trail"]] == [
        ("2026-11-24T09:12:33Z", "platform", "received the request (account-settings)", None),
        ("2026-11-24T09:12:34Z", "request-intake", "tells request.verified", 0.04),
        ("2026-11-24T09:12:35Z", "erasure-executor", "takes request.verified", None),
        ("2026-11-24T09:12:36Z", "erasure-executor", "erasure is completed, attempt 2", None),
        ("2026-11-24T09:12:37Z", "erasure-executor", "logs erasure.completed (partly_kept) as entry 42", None),
        ("2026-11-24T09:12:38Z", "erasure-executor", "tells erasure.completed", None),
    ]
    shown = (await run("trail", str(REQUEST))).stdout
    assert "7.0 s" in shown
    assert "2026-11-24 09:12:35.000Z" in shown
    assert "40 ms" in shown


async def test_trail_shows_what_is_open(run: Run, owner: Owner) -> None:
    """Work that has not ended stands below the way so far, with the reason why it does not."""
    await _add_request(owner, "in_progress")
    await owner.execute(
        "INSERT INTO erasure_executor.erasures (request_id, subject_id, state, stuck_reason, due_on, attempts, next_attempt_at)"
        " VALUES ($1, $2, 'stuck', 'store_refused', '2026-12-24', 3, $3)",
        REQUEST, SUBJECT, T0,
    )  # fmt: skip
    (work,) = parsed(await run("trail", str(REQUEST), "--json"))["open"]
    assert (work["what"], work["stuck_reason"], work["attempts"]) == ("erasure is stuck", "store_refused", 3)
    assert "erasure-executor: erasure is stuck (store_refused)" in (await run("trail", str(REQUEST))).stdout


async def test_trail_of_nothing(run: Run) -> None:
    """A request that nobody knows is exit code 1, something that is no id is 2."""
    assert (await run("trail", str(REQUEST))).exit_code == 1
    assert (await run("trail", "42")).exit_code == 2


async def test_parked_messages_without_their_values(run: Run, owner: Owner) -> None:
    """The list and a single message say where, what and why; what the message says is not in the output."""
    value = f'{{"account_id": "{SECRET}"}}'.encode()
    inbox_id = await _add_inbox(
        owner,
        "retention_sweeper",
        "retention.ticked",
        T0,
        key=b"k",
        topic="platform.retention-ticks.v1",
        state="parked",
        value=value,
    )
    listed = await run("parked", "list", "--json")
    (found,) = parsed(listed)
    assert found["id"] == f"retention-sweeper/{inbox_id}"
    assert (found["place"], found["reason"], found["field"]) == (
        "platform.retention-ticks.v1 0/41",
        "wrong_value",
        "country",
    )
    shown = await run("parked", "show", f"retention-sweeper/{inbox_id}", "--json")
    assert parsed(shown)["value_bytes"] == len(value)
    for result in (listed, shown, await run("parked", "list"), await run("parked", "show", found["id"])):
        assert result.exit_code == 0
        assert SECRET not in result.output


async def test_reveal_is_on_record_or_refused(run: Run, owner: Owner, database: Access) -> None:
    """The value is shown only to who can put that into the audit log; an operator cannot, and sees nothing."""
    value = f'{{"account_id": "{SECRET}", "filler": "{"x" * 300}"}}'.encode()
    inbox_id = await _add_inbox(
        owner,
        "erasure_executor",
        "request.verified",
        T0,
        key=b"k",
        topic="request-intake.requests.v1",
        state="parked",
        value=value,
    )
    refused = await run("parked", "show", f"erasure-executor/{inbox_id}", "--reveal")
    assert refused.exit_code == 1
    assert SECRET not in refused.output
    assert await owner.fetchval("SELECT count(*) FROM erasure_executor.audit_outbox") == 0
    dsn = database.dsn("erasure-executor")
    revealed = await run("parked", "show", f"erasure-executor/{inbox_id}", "--reveal", "--json", "--dsn", dsn)
    assert parsed(revealed)["value"] == value.decode()
    shown = await run("parked", "show", f"erasure-executor/{inbox_id}", "--reveal", "--dsn", dsn)
    assert value.decode() in shown.stdout.splitlines()[-1]
    tails = await owner.fetch("SELECT tail FROM erasure_executor.audit_outbox")
    assert [" action=message.revealed " in row["tail"] for row in tails] == [True, True]


async def test_reveal_of_a_sealed_message(
    run: Run, owner: Owner, database: Access, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A message of a sensitive topic opens with the key ring, and with no other."""
    files = []
    for name in ("right", "wrong"):
        file = tmp_path_factory.mktemp("keys") / name
        file.write_text(new_key_ring())
        file.chmod(0o600)
        files.append(file)
    right, wrong = files
    sealed = Protector(FileKek(right)).seal(SECRET.encode(), EVENT.bytes)
    inbox_id = await _add_inbox(
        owner,
        "request_intake",
        "dsr_request.submitted",
        T0,
        key=b"k",
        topic="platform.dsr-requests.v1",
        state="parked",
        value=sealed,
    )
    command = (
        "parked",
        "show",
        f"request-intake/{inbox_id}",
        "--reveal",
        "--json",
        "--dsn",
        database.dsn("request-intake"),
    )
    assert (await run(*command)).exit_code == 2
    assert (await run(*command, "--kek-file", str(wrong))).exit_code == 1
    assert parsed(await run(*command, "--kek-file", str(right)))["value"] == SECRET


async def test_parked_of_nothing(run: Run) -> None:
    """An empty list is good news; a message that is not parked is exit code 1, an id that is none is 2."""
    assert (await run("parked", "list")).stdout.strip() == "nothing is parked"
    assert (await run("parked", "show", "request-intake/1")).exit_code == 1
    assert (await run("parked", "show", "nobody/1")).exit_code == 2
    assert (await run("parked", "list", "--service", "nobody")).exit_code == 2


async def test_database_that_does_not_answer(run: Run, database: Access) -> None:
    """A wrong address or password is exit code 1 with a sentence that tells which, and the password is not in it."""
    server = urlsplit(database.operator_dsn)
    for place, told in (
        ("127.0.0.1:9", "--dsn: PostgreSQL at 127.0.0.1:9 refuses the connection"),
        (f"{server.hostname}:{server.port}", "does not accept the password of this role"),
    ):
        result = await run("status", "--dsn", f"postgresql://habeas_operator:hunter2@{place}{server.path}")
        assert result.exit_code == 1
        assert told in result.output
        assert "hunter2" not in result.output


async def test_database_without_tables(run: Run, empty_database: str) -> None:
    """A database that was never migrated is said to be so."""
    result = await run("status", "--dsn", empty_database)
    assert result.exit_code == 1
    assert "habeas migrate" in result.output


async def test_migrate_is_idempotent(run: Run, empty_database: str, postgres_template: Access) -> None:
    """With roles and grants in place all schemas are made; doing it again applies nothing; then status answers."""
    refused = await run("migrate", "--no-topics", "--dsn", empty_database)
    assert (refused.exit_code, "roles.sql" in refused.output) == (1, True)
    await apply_roles(open_access(empty_database, empty_database.rpartition("/")[2]), set_passwords=False)
    first = parsed(await run("migrate", "--no-topics", "--json", "--dsn", empty_database))
    assert set(first["applied"]) == {
        "sealing", "request_intake", "erasure_executor", "export_builder", "retention_sweeper", "notification_mailer", "audit_ledger",
    }  # fmt: skip
    assert all(count > 0 for count in first["applied"].values())
    again = parsed(await run("migrate", "--no-topics", "--json", "--dsn", empty_database))
    assert set(again["applied"].values()) == {0}
    assert parsed(await run("status", "--json", "--dsn", empty_database))["requests"] == []


async def test_nothing_is_written_by_who_only_looks(database: Access) -> None:
    """Connections of commands that look are read-only on the server's side, whatever the role may do."""
    with pytest.raises(click.ClickException, match="ReadOnly"):
        async with connected(database.owner_dsn) as conn:
            await conn.execute("DELETE FROM request_intake.requests")
