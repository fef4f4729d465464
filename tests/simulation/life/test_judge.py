"""The judge of lives finds what is broken: one that finds nothing proves nothing."""

from typing import Final

import pytest

from tests.simulation.field import Field
from tests.simulation.life.broken import BROKEN
from tests.simulation.life.play import LIVES
from tests.simulation.run import find

SCHEDULES_MAX: Final = 60
LIVES_MIN: Final = 100
"""Whoever plays fewer is in a hurry: each broken service takes some seconds."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_service_is_found(name: str, ground: Field, pytestconfig: pytest.Config) -> None:
    """Each broken service breaks a promise within few schedules, and a smaller schedule still shows it."""
    if pytestconfig.getoption("lives") < LIVES_MIN:
        pytest.skip("runs with make test-sim")
    with BROKEN[name]():
        count, bad = await find(ground, range(1, 1 + SCHEDULES_MAX), play=LIVES, tries=3)
    assert bad is not None, f"{name} was not found in {count} schedules"
    assert bad.violations
