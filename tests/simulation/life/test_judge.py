"""The judge of lives finds what is broken: one that finds nothing proves nothing."""

from typing import Final

import pytest

from tests.simulation.field import Field
from tests.simulation.life.broken import BROKEN
from tests.simulation.life.play import LIVES
from tests.simulation.run import find

SCHEDULES_MAX: Final = 60
FROM: Final[dict[str, int]] = {}
"""Where to begin, so that a run need not pass so many good schedules; the limit is far enough off for these to move."""


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_service_is_found(name: str, ground: Field) -> None:
    """Each broken service breaks a promise within few schedules, and a smaller schedule still shows it."""
    first = FROM.get(name, 1)
    with BROKEN[name]():
        count, bad = await find(ground, range(first, first + SCHEDULES_MAX), play=LIVES, tries=3)
    assert bad is not None, f"{name} was not found in {count} schedules"
    assert bad.violations
