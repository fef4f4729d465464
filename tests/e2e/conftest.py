"""Servers for the journeys, and one fleet on them for the whole session."""

import os
from collections.abc import AsyncIterator

import pytest_asyncio

from habeas_demo.histories import Size
from tests.support.stage import Stage, raised

_MANY = Size(accounts=1_350, logs_each=3, tasks_each=2)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stage() -> AsyncIterator[Stage]:
    """The fleet that all journeys share, on servers of its own: nobody kills these."""
    async with raised(f"tests-stage-{os.getpid()}", size=_MANY) as stage:
        yield stage
