"""How an account id is spelled where several stores hold people."""

from typing import cast

import pytest

from habeas.datamap.postgres import PostgresStore
from request_intake.gateways import StoreIdentities

UPPER, LOWER = "0197F1C0-5B1E-7C11-8A39-0F6D2C4B9E01", "0197f1c0-5b1e-7c11-8a39-0f6d2c4b9e01"


class Store:
    """A store whose identity column has a type."""

    def __init__(self, kind: str) -> None:
        """Name the type."""
        self.kind = kind

    async def identity_type(self) -> str:
        """Tell it."""
        return self.kind


@pytest.mark.parametrize(
    ("kinds", "account_id", "spelled"),
    [
        (["text"], UPPER, UPPER),
        (["uuid"], UPPER, LOWER),
        (["uuid"], "acc_1", None),
        (["text", "uuid"], UPPER, LOWER),
        (["uuid", "text"], UPPER, LOWER),
        (["uuid", "text"], "acc_1", "acc_1"),
        (["text", "bigint"], "007", "7"),
        (["integer", "bigint"], "00000000003000000000", "3000000000"),
        (["integer"], "3000000000", None),
    ],
)
async def test_the_strictest_type_that_can_hold_an_id_spells_it(
    kinds: list[str], account_id: str, spelled: str | None
) -> None:
    """In whatever order the map names the stores: uuid and integers before text, which holds everything; None where no type can."""
    stores = cast("list[PostgresStore]", [Store(kind) for kind in kinds])
    spelling = await StoreIdentities(stores).spelling()
    assert spelling(account_id) == spelled
