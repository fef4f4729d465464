"""What the log says when a store refuses."""

import json
from typing import Any, cast

import pytest

from erasure_executor.gateways import LoggedStores
from habeas.chassis import log
from habeas.datamap.errors import Rule, StoreRefused


class Refusing:
    """A store that refuses whatever it is asked to erase."""

    name = "shop"

    async def erase(self, *_: object) -> Any:  # noqa: ANN401 -- never returns
        """Refuse, by a foreign key."""
        raise StoreRefused("shop", "tasks", "23503", Rule("answers", "answered", is_foreign_key=True))


async def test_refusing_constraint_is_logged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Table and constraint stand in the log, once for all people and attempts; the error goes on to whoever asked."""
    lines: list[bytes] = []
    monkeypatch.setattr(log._log, "write", lines.append)
    stores = LoggedStores([cast("Any", Refusing())])

    async def guard() -> None: ...

    for person in ("acc_1", "acc_2"):
        with pytest.raises(StoreRefused):
            await stores.erase([person], guard)
    (told,) = map(json.loads, lines)
    assert told["event"] == "stores.refused"
    assert (
        told["why"]
        == "store shop refused (table tasks, SQLSTATE 23503, by the foreign key answered of the table answers)"
    )
