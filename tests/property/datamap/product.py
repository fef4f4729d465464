"""The product, as the laws ask it: check a map, erase, export, purge. The one file here that knows its interface."""

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

from habeas.datamap.errors import SchemaMismatch
from habeas.datamap.map.loading import load_datamap
from habeas.datamap.policy.model import Policy, load_policy
from habeas.datamap.postgres import PostgresStore, StoreOptions
from habeas.datamap.source import ConfigurationError
from tests.property.datamap.maps import POLICY
from tests.property.datamap.model import Row

OPTIONS: Final = StoreOptions(connections_max=1, lock_timeout_s=60.0, drop_lock_timeout_s=60.0)
ROWS: Final = 1000


class Refused(Exception):
    """The check refuses a map: what it found, in its own words."""

    def __init__(self, findings: Iterable[object]) -> None:
        self.findings = [str(each) for each in findings]
        super().__init__("\n".join(self.findings) or "refused without a finding")


class Workshop:
    """Where maps are written, and the policy beside them."""

    def __init__(self, directory: Path, dsn: str) -> None:
        self.directory = directory
        self.dsn = dsn
        (directory / "policy.yaml").write_text(POLICY, encoding="utf-8")
        self.policy: Policy = load_policy(directory / "policy.yaml")

    @asynccontextmanager
    async def checked(self, text: str) -> AsyncIterator["Product"]:
        """Return the product with a map that it accepts; raises Refused."""
        path = self.directory / "map.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            store_map = load_datamap(path, self.policy).store("platform")
        except ConfigurationError as error:
            raise Refused(problem.what for problem in error.problems) from None
        async with PostgresStore(store_map, self.policy, self.dsn, OPTIONS) as store:
            try:
                await store.check()
            except SchemaMismatch as error:
                raise Refused(problem.what for problem in error.problems) from None
            yield Product(store)


class Product:
    """A store of the product whose map was accepted."""

    def __init__(self, store: PostgresStore) -> None:
        self.store = store

    async def erase(self, people: Collection[str]) -> None:
        """Erase them, in one batch."""
        await self.store.erase(people)

    async def export(self, people: Sequence[str]) -> dict[str, dict[str, list[Row]]]:
        """Return the rows that each gets, by table."""
        found: dict[str, dict[str, list[Row]]] = {person: {} for person in people}
        async with aclosing(self.store.export(people)) as pieces:
            async for piece in pieces:
                rows = [dict(zip(piece.source.columns, row, strict=True)) for row in piece.rows]
                found[piece.account_id].setdefault(piece.source.table, []).extend(rows)
        return found

    async def purge(self, cutoff: str, held: Collection[str]) -> AsyncIterator[str]:
        """Sweep one rule after another, but for rows of those people; yields the table of each."""
        for rule in await self.store.purge_rules():
            while (await self.store.purge(rule, datetime.fromisoformat(cutoff), ROWS, held)).rows:
                pass
            yield rule.table
