"""Nobody else is touched and nothing is left, whatever schema, map and rows a seed makes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.property.conftest import FIGURES
from tests.property.datamap.campaign import run
from tests.property.datamap.differences import differences
from tests.property.datamap.learnt import NOT_YET_REFUSED, ON
from tests.property.datamap.maps import written
from tests.property.datamap.model import Feature
from tests.property.datamap.oracle import Oracle
from tests.property.datamap.reading import read
from tests.property.datamap.rows import broken
from tests.property.datamap.trial import Case

ALONE = 300


@pytest.mark.timeout(20_000)  # of 20,000 seeds, on a slow machine
async def test_both_laws_hold_for_every_seed(
    pytestconfig: pytest.Config, empty_database: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Right maps pass the check and do to every row what they say; maps that are broken on purpose are refused."""
    count, first = int(pytestconfig.getoption("schemas")), int(pytestconfig.getoption("seed"))
    report = await run(empty_database, tmp_path, first, count, ON, NOT_YET_REFUSED)
    record_property(FIGURES, str(report))
    assert report.bad == [], "\n\n".join([*report.bad, str(report)])


def test_the_oracle_agrees_with_the_database_about_right_maps() -> None:
    """What the oracle leaves breaks no foreign key, with all features on: neither maps nor oracle are at odds with themselves."""
    for seed in range(ALONE):
        case = Case.of(seed, frozenset(Feature))
        assert list(broken(case.schema, case.content)) == []
        erased = Oracle(read(written(case.document)), case.schema, case.content).erase(case.people)
        assert list(broken(case.schema, erased.held())) == [], f"seed {seed}"


def test_a_seed_repeats_itself() -> None:
    """The same seed gives the same schema, map, rows and people."""
    assert str(Case.of(5, frozenset(Feature))) == str(Case.of(5, frozenset(Feature)))


def test_rows_that_differ_are_told() -> None:
    """A row too many, a row too few and a changed value are each said."""
    case = Case.of(3, ON)
    oracle = Oracle(read(written(case.document)), case.schema, case.content)
    expected = oracle.erase(()).content
    assert list(differences(expected, case.content)) == []
    less = {**case.content, "accounts": case.content["accounts"][1:]}
    changed = {
        **case.content,
        "accounts": [{**case.content["accounts"][0], "name": "other"}, *case.content["accounts"][1:]],
    }
    assert len(list(differences(expected, less))) == 1
    assert len(list(differences(expected, changed))) == 2
