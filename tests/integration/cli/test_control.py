"""Pausing, resuming and log levels by command: what is set, what is put on record, and who may."""

import asyncpg
import pytest

from habeas.chassis.settings import LogLevel
from habeas.cli import control, store
from habeas.contracts.audit import Action, AuditFact, Producer, encode_entry, parse_entry
from habeas_embedded.provision import Access
from tests.integration.cli.conftest import Owner, Run, parsed


async def recorded(owner: Owner, schema: str) -> list[AuditFact]:
    """What a service's audit outbox holds, by the grammar's own parser."""
    rows = await owner.fetch(f"SELECT tail FROM {schema}.audit_outbox ORDER BY audit_id")
    lines = [encode_entry(Producer.AUDIT_LEDGER, 1, 1, "0" * 64, row["tail"]) for row in rows]
    return [parse_entry(line).fact for line in lines]


async def test_service_is_paused_and_resumed_on_record(run: Run, owner: Owner) -> None:
    """Pausing and resuming change the service's own row and leave one entry each; doing it again changes nothing."""
    for command, changes in (("pause", True), ("pause", False), ("resume", True), ("resume", False), ("pause", True)):
        assert parsed(await run(command, "export-builder", "--json")) == {"changed": changes}
    assert await owner.fetchval("SELECT paused_at IS NOT NULL FROM export_builder.control")
    assert not await owner.fetchval("SELECT paused_at IS NOT NULL FROM erasure_executor.control")
    assert await recorded(owner, "export_builder") == [
        AuditFact(Action.SERVICE_PAUSED),
        AuditFact(Action.SERVICE_RESUMED),
        AuditFact(Action.SERVICE_PAUSED),
    ]
    assert "as before" in (await run("pause", "export-builder")).stdout


async def test_lane_is_paused_by_itself(run: Run, owner: Owner) -> None:
    """A lane is paused without the others, and stays so when the service as a whole is resumed."""
    parsed(await run("pause", "erasure-executor", "--lane", "0", "--json"))
    parsed(await run("pause", "erasure-executor", "--lane", "15", "--json"))
    parsed(await run("resume", "erasure-executor", "--json"))
    parsed(await run("resume", "erasure-executor", "--lane", "0", "--json"))
    rows = await owner.fetch("SELECT lane FROM erasure_executor.lanes WHERE paused_at IS NOT NULL")
    assert [row["lane"] for row in rows] == [15]
    assert await recorded(owner, "erasure_executor") == [
        AuditFact(Action.LANE_PAUSED, count=0),
        AuditFact(Action.LANE_PAUSED, count=15),
        AuditFact(Action.LANE_RESUMED, count=0),
    ]


async def test_log_level_is_set_and_given_back(run: Run, owner: Owner) -> None:
    """Every level can be set, and taken back; each change is on record with its level."""
    for level in control._LEVELS:
        parsed(await run("log-level", "audit-ledger", level, "--json"))
    assert await owner.fetchval("SELECT log_level FROM audit_ledger.control") == "error"
    assert parsed(await run("log-level", "audit-ledger", "--reset", "--json")) == {"changed": True}
    assert parsed(await run("log-level", "audit-ledger", "--reset", "--json")) == {"changed": False}
    assert await owner.fetchval("SELECT log_level FROM audit_ledger.control") is None
    facts = await recorded(owner, "audit_ledger")
    assert [(fact.action, fact.outcome) for fact in facts] == [
        *((Action.LOG_LEVEL_SET, level) for level in LogLevel),
        (Action.LOG_LEVEL_RESET, None),
    ]


@pytest.mark.parametrize(
    "command",
    [
        ("pause", "nobody"),
        ("resume", "nobody"),
        ("pause", "export-builder", "--lane", "16"),
        ("log-level", "export-builder"),
        ("log-level", "export-builder", "loud"),
        ("log-level", "export-builder", "debug", "--reset"),
        ("log-level", "nobody", "debug"),
    ],
)
async def test_wrong_use_is_refused(run: Run, command: tuple[str, ...]) -> None:
    """A service, lane or level that does not exist, or two wishes at once, are exit code 2; the audit log's lane cannot be paused."""
    assert (await run(*command)).exit_code == 2


async def test_a_halted_producer_of_the_log_is_let_go_on(run: Run, owner: Owner, database: Access) -> None:
    """The command asks audit-ledger once, which puts it on record; of one that is not halted it changes nothing; operators may not."""
    await owner.execute(
        "INSERT INTO audit_ledger.producers (producer, state, epoch, seq, hash, halted_offset, halted_reason, expected_seq, found_seq,"
        " halted_at) VALUES ('export-builder', 'halted', 1, 1, repeat('a', 64), 7, 'unproven', 2, 2, now())"
    )
    refused = await run("audit", "resume", "export-builder", "--dsn", database.dsn("habeas_operator"))
    assert (refused.exit_code, "may not do that" in refused.output) == (1, True)
    asked = "SELECT producer FROM audit_ledger.producers WHERE resume_asked_at IS NOT NULL AND resume_told_at IS NULL"
    assert await owner.fetch(asked) == []
    assert parsed(await run("audit", "resume", "export-builder", "--json")) == {"changed": True}
    assert [row["producer"] for row in await owner.fetch(asked)] == ["export-builder"]
    for options, wanted in (((), False), (("--new-seed",), True), ((), False)):
        parsed(await run("audit", "resume", "export-builder", *options, "--json"))
        new_seed = "SELECT resume_new_seed FROM audit_ledger.producers WHERE producer = 'export-builder'"
        assert await owner.fetchval(new_seed) is wanted
    assert parsed(await run("audit", "resume", "request-intake", "--json")) == {"changed": False}
    assert "not halted" in (await run("audit", "resume", "request-intake")).stdout
    assert (await run("audit", "resume", "nobody")).exit_code == 2


@pytest.mark.parametrize("role", ["habeas_operator", "request-intake"])
async def test_only_a_supervisor_or_the_service_itself_may(run: Run, owner: Owner, database: Access, role: str) -> None:
    """The operator's role and other services' roles change nothing, and nothing is on record; the service's own role may."""
    for command in (("pause", "export-builder"), ("log-level", "export-builder", "error")):
        refused = await run(*command, "--dsn", database.dsn(role))
        assert (refused.exit_code, "may not do that" in refused.output) == (1, True)
    assert await owner.fetchval("SELECT paused_at IS NULL AND log_level IS NULL FROM export_builder.control")
    assert await recorded(owner, "export_builder") == []
    own = await run("pause", "export-builder", "--json", "--dsn", database.dsn("export-builder"))
    assert parsed(own) == {"changed": True}


@pytest.mark.parametrize("service", store.SERVICES)
async def test_a_supervisor_can_do_nothing_but_on_record(database: Access, service: str) -> None:
    """The supervisor's role reads, and calls what records; it writes no table, no entry of its own, and makes nothing."""
    schema = store.schema_of(service)
    forbidden = (
        f"UPDATE {schema}.control SET paused_at = now()",
        f"UPDATE {schema}.lanes SET paused_at = now()",
        f"DELETE FROM {schema}.inbox",
        f"INSERT INTO {schema}.audit_outbox (event_id, tail, created_at) VALUES (gen_random_uuid(), 'x', now())",
        f"SELECT {schema}.record_supervision(gen_random_uuid(), 'service.paused', NULL, NULL)",
        f"SELECT {schema}.outbox_drop_partitions('2999-01-01')",
        "SELECT FROM sealing.subject_keys",
        "CREATE TEMPORARY TABLE control (paused_at timestamptz)",
        f"CREATE TABLE {schema}.mine (n integer)",
    )
    conn = await asyncpg.connect(database.supervisor_dsn)
    try:
        assert await conn.fetchval(f"SELECT count(*) FROM {schema}.control") == 1
        for statement in forbidden:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await conn.execute(statement)
        with pytest.raises(asyncpg.InvalidParameterValueError):
            await conn.fetchval(f"SELECT {schema}.supervise_pause(gen_random_uuid(), true, 16)")
    finally:
        await conn.close()
