"""What the bare database does for the same people: the limit that no erasure or export through it can pass."""

from collections.abc import Sequence
from typing import Final

import asyncpg

from habeas.chassis.clock import SystemClock

_CLOCK: Final = SystemClock()
_BATCH: Final = 250

_OF_TASKS: Final = "SELECT id FROM tasks WHERE account_id = ANY($1)"
_OF_STEPS: Final = f"SELECT id FROM task_steps WHERE task_id IN ({_OF_TASKS})"
_OF_TICKETS: Final = "SELECT id FROM support_tickets WHERE account_id = ANY($1)"

_ERASE: Final = (
    f"DELETE FROM task_contents WHERE step_id IN ({_OF_STEPS})",
    f"DELETE FROM task_steps WHERE task_id IN ({_OF_TASKS})",
    f"DELETE FROM ticket_messages WHERE ticket_id IN ({_OF_TICKETS})",
    "DELETE FROM quality_scores WHERE account_id = ANY($1)",
    "DELETE FROM tasks WHERE account_id = ANY($1)",
    "DELETE FROM sessions WHERE account_id = ANY($1)",
    "DELETE FROM api_keys WHERE account_id = ANY($1)",
    "DELETE FROM provider_keys WHERE account_id = ANY($1)",
    "DELETE FROM execution_logs WHERE account_id = ANY($1)",
    "DELETE FROM cookie_consents WHERE account_id = ANY($1)",
    "DELETE FROM support_tickets WHERE account_id = ANY($1)",
    "UPDATE credit_ledger SET account_id = NULL WHERE account_id = ANY($1)",
    "UPDATE invoices SET account_id = NULL, billing_name = NULL, billing_address = NULL WHERE account_id = ANY($1)",
    "DELETE FROM accounts WHERE id = ANY($1)",
)

_EXPORT: Final = (
    f"SELECT row_to_json(t)::text FROM task_contents AS t WHERE step_id IN ({_OF_STEPS})",
    f"SELECT row_to_json(t)::text FROM task_steps AS t WHERE task_id IN ({_OF_TASKS})",
    f"SELECT row_to_json(t)::text FROM ticket_messages AS t WHERE ticket_id IN ({_OF_TICKETS})",
    *(
        f"SELECT row_to_json(t)::text FROM {table} AS t WHERE account_id = ANY($1)"
        for table in (
            *("quality_scores", "tasks", "sessions", "api_keys", "provider_keys", "execution_logs", "cookie_consents"),
            *("support_tickets", "credit_ledger", "invoices"),
        )
    ),
    "SELECT row_to_json(t)::text FROM accounts AS t WHERE id = ANY($1)",
)


async def erasures_per_second(owner_dsn: str, accounts: Sequence[str]) -> float:
    """Erase these people by one statement per table for 250 of them, without reading again, telling or logging anything."""
    return await _rate(owner_dsn, accounts, _ERASE)


async def exports_per_second(owner_dsn: str, accounts: Sequence[str]) -> float:
    """Read these people's rows as JSON, without writing or encrypting anything."""
    return await _rate(owner_dsn, accounts, _EXPORT)


async def _rate(dsn: str, accounts: Sequence[str], statements: Sequence[str]) -> float:
    conn = await asyncpg.connect(dsn)
    try:
        begun = _CLOCK.monotonic()
        for first in range(0, len(accounts), _BATCH):
            batch = list(accounts[first : first + _BATCH])
            async with conn.transaction():
                for statement in statements:
                    await conn.fetch(statement, batch)
        return len(accounts) / (_CLOCK.monotonic() - begun)
    finally:
        await conn.close()
