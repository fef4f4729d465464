"""The program, invoked in this process, against a migrated database with rows that are written by hand."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import asyncpg
import pytest
import pytest_asyncio
from click.testing import CliRunner, Result

from habeas.cli.main import habeas
from habeas_embedded.provision import Access

Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Run: TypeAlias = Callable[..., Awaitable[Result]]


@pytest_asyncio.fixture
async def owner(database: Access) -> AsyncIterator[Owner]:
    """Everybody's tables, to write into and to look at."""
    conn = await asyncpg.connect(database.owner_dsn)
    yield conn
    await conn.close()


@pytest.fixture
def run(database: Access) -> Run:
    """Run a command as an operator of the test's database would."""

    async def invoke(*arguments: str, **env: str) -> Result:
        variables = {
            "HABEAS_OPERATOR_DATABASE_DSN": database.operator_dsn,
            "HABEAS_SUPERVISOR_DATABASE_DSN": database.supervisor_dsn,
            "HABEAS_ENVIRONMENT": "development",
            **env,
        }
        # In a thread of its own: a command makes its own event loop.
        return await asyncio.to_thread(CliRunner().invoke, habeas, list(arguments), env=variables)

    return invoke


def parsed(result: Result) -> Any:  # noqa: ANN401 -- whatever a command writes
    """Give the JSON that a command wrote; its exit code must be 0."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)
