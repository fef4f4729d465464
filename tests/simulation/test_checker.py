"""The simulation finds what is broken: a checker that finds nothing proves nothing."""

import pytest

from tests.simulation.broken import BROKEN
from tests.simulation.field import Field
from tests.simulation.run import find

SCHEDULES_MAX = 400
FROM = {
    "a worker that ignores the fence": 62,
    "a worker that lets nobody wait": 54,
    "a relay that marks before the acknowledgement": 26,
    "a consumer that commits before it stored": 20,
}
"""Where to begin, so that a run need not pass so many good schedules; the limit is far enough off for these to move."""


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_core_is_found(name: str, ground: Field) -> None:
    """Each broken core breaks a promise within few schedules, and the smallest schedule still shows it."""
    first = FROM.get(name, 1)
    count, bad = await find(ground, range(first, first + SCHEDULES_MAX), BROKEN[name], tries=5)
    assert bad is not None, f"{name} was not found in {count} schedules"
    assert bad.violations
