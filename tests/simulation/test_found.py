"""Every bug that a schedule found, as the smallest schedule that showed it; the name says what was wrong.

What a gate decides depends on how many gates were passed before, so a case may lose its point when the code around it changes. Each bug
therefore has a direct test too, named beside it.
"""

import pytest

from tests.simulation.field import Field
from tests.simulation.run import run
from tests.simulation.schedule import Schedule

FOUND = {
    # The direct test: test_offsets_whose_commit_failed_are_committed_later, with the inbox's.
    "offsets whose commit failed were never committed again": (
        '[146, [1, 1], 2, 0, 1, [["submit", 362567782], ["flow", 3473675705], ["flow", 2833408693], ["flow", 1433647849]]]'
    ),
}


@pytest.mark.parametrize("name", FOUND)
async def test_what_was_found_stays_mended(name: str, ground: Field) -> None:
    """The schedule that showed the bug goes well."""
    outcome = await run(Schedule.from_json(FOUND[name]), ground)
    assert outcome.is_good, str(outcome)
