"""A field with the services' tables, a platform beside them, and watches on every step."""

from collections.abc import AsyncIterator

import pytest_asyncio

from habeas_embedded.provision import Access
from tests.simulation.field import Field
from tests.simulation.life.play import LIVES
from tests.simulation.run import simulated


@pytest_asyncio.fixture
async def ground(database: Access) -> AsyncIterator[Field]:
    """The databases of the services as they are, with false clocks."""
    laid = await Field.lay(database, LIVES.plot)
    with simulated():
        yield laid
    await laid.close()
