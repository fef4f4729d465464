"""What simulations share: a field of their own for each test, and the figures at the end of a run."""

from collections.abc import AsyncIterator
from typing import Final

import pytest
import pytest_asyncio

from habeas_embedded.provision import Access
from tests.simulation.field import Field
from tests.simulation.run import simulated

FIGURES: Final = "figures of a simulation"
"""The property of a test's report under which they come to whoever tells them, from any process."""


@pytest_asyncio.fixture
async def ground(database: Access) -> AsyncIterator[Field]:
    """Databases of the toy services, with false clocks; the memory broker stands in Kafka's place."""
    laid = await Field.lay(database)
    with simulated():
        yield laid
    await laid.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which schedules ran, so that they can be run again."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, line in getattr(report, "user_properties", ()):
                if name == FIGURES and report.when == "call":
                    terminalreporter.write_line(line)
