"""The laws find a product that is broken on purpose, in each of many ways, within some seeds."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.property.datamap.campaign import first_bad
from tests.property.datamap.mutants import MUTANTS, Mutant

SEEDS = 200


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
async def test_a_broken_product_is_found(mutant: Mutant, empty_database: str, tmp_path: Path) -> None:
    """Some seed goes wrong with what is broken, and well with the product as it is."""

    @contextmanager
    def broken() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            mutant.breaks(patch)
            yield

    found = await first_bad(empty_database, tmp_path, SEEDS, mutant.on, broken)
    assert found is not None, f"{SEEDS} seeds did not show what {mutant.name} does"
