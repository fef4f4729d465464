"""The work of one erasure inside its transaction: rows are looked for, let go of, deleted or overwritten, and counted again."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TypeAlias

from habeas.contracts.vocabulary import TableResult
from habeas.datamap.errors import NotErased
from habeas.datamap.planner import CollectPlan, LinkPlan, StorePlan, TablePlan
from habeas.datamap.postgres.collecting import Collection, Key, arrays_of, values_of
from habeas.datamap.postgres.connection import Connection, Link
from habeas.datamap.postgres.ids import AskedIds
from habeas.datamap.postgres.tally import Tally


@dataclass(frozen=True)
class Held:
    """Rows of one person in one table of which the same became, and the newest of their ages where the table has one."""

    rows: int
    newest: datetime | date | None = None


@dataclass
class Done:
    """What became of rows: by table and account what an erasure did to those that are the account's, and to those of others."""

    rows: dict[str, dict[str, dict[TableResult, Held]]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, table: str, account_id: str, result: TableResult, held: Held) -> None:
        """Add rows of one account; those without a row are nothing."""
        if not held.rows:
            return
        mine = self.rows[table].setdefault(account_id, {})
        before = mine.get(result)
        mine[result] = held if before is None else _together(before, held)

    def of(self, table: str, account_id: str) -> Mapping[TableResult, Held]:
        """Return what became of one account's rows of a table."""
        return self.rows[table].get(account_id, {})


def _together(one: Held, other: Held) -> Held:
    newest = None if one.newest is None or other.newest is None else max(one.newest, other.newest)
    return Held(one.rows + other.rows, newest)


Counts: TypeAlias = Mapping[str, int]


class Erasing:
    """One transaction's work, layer by layer, or table by table where an error is to name the table."""

    def __init__(self, link: Link, conn: Connection, plan: StorePlan, asked: AskedIds, tally: Tally) -> None:
        self._link = link
        self._conn = conn
        self._plan = plan
        self._asked = asked
        self._tally = tally
        self._done = Done()
        self._collection = Collection(plan, {}, {}, {})

    async def by_layers(self) -> Done:
        """Layer by layer; each statement also counts what the one before has left."""
        await self._collect()
        for layer in self._plan.layers:
            for table in layer.tables:
                if table.ground is not None and not table.is_collected:
                    with self._link.told(table.table):
                        await self._note_held(table)
            with self._link.told():
                rows = await self._conn.fetch(layer.sql, self._asked.parameter) if layer.sql else []
                for table in layer.tables:
                    await self._clear_mentions(table)
            changed = {table.table: table for table in layer.tables}
            for name, account_id, count in rows:
                if account_id is not None:
                    self._note(changed[name], {account_id: count})
                elif count:
                    raise NotErased(self._plan.store, name, count, committed=False)
            for table in layer.tables:
                if table.is_collected:
                    await self._erase_collected(self._plan.collected[table.table])
        return self._done

    async def by_tables(self) -> Done:
        """Table by table, and then what is left of it, while the rows by which its people are found still exist."""
        await self._collect()
        for table in self._plan.tables:
            with self._link.told(table.table):
                if table.ground is not None and not table.is_collected:
                    await self._note_held(table)
                if table.erase is not None:
                    self._note(table, await self._erase_counting(table))
                await self._clear_mentions(table)
                if table.is_collected:
                    await self._erase_collected(self._plan.collected[table.table])
                for verify in filter(None, (table.verify, *table.unmentioned)):
                    await self._require_none(table.table, verify, self._asked.parameter)
        return self._done

    async def _collect(self) -> None:
        if self._plan.collected:
            with self._link.told():
                self._collection = await Collection.collect(self._conn, self._plan, self._asked)

    async def _note_held(self, table: TablePlan) -> None:
        """Count rows that are to stay, before anything of them is overwritten."""
        for row in await self._conn.fetch(table.locate, self._asked.parameter):
            for given in self._asked.given(row["account_id"]):
                held = Held(row["rows"], row["newest"] if table.newest is not None else None)
                self._done.add(table.table, given, TableResult.KEPT, held)

    def _note(self, table: TablePlan, changed: Counts) -> None:
        rows = sum(changed.values())
        (self._tally.deleted if table.result is TableResult.ERASED else self._tally.updated)(table.table, rows)
        if table.ground is None and table.result is not None:
            for account_id, count in self._asked.by_asked(changed).items():
                self._done.add(table.table, account_id, table.result, Held(count))

    async def _erase_counting(self, table: TablePlan) -> Counts:
        asked = self._asked.parameter
        if table.erase_one is not None and len(asked) == 1:
            return {asked[0]: rows_of(await self._conn.execute(table.erase_one, asked))}
        rows = await self._conn.fetch(table.erase or "", asked)
        return {row["account_id"]: row["rows"] for row in rows}

    async def _clear_mentions(self, table: TablePlan) -> None:
        for mention in table.mentions:
            self._tally.updated(table.table, rows_of(await self._conn.execute(mention, self._asked.parameter)))

    async def _require_none(self, table: str, counting: str, *args: object) -> None:
        left = await self._conn.fetchval(counting, *args)
        if left:
            raise NotErased(self._plan.store, table, left, committed=False)

    async def _erase_collected(self, plan: CollectPlan) -> None:
        """Let rows of others go of those that go, delete these, and overwrite those that stay."""
        with self._link.told(plan.table):
            going = sorted(self._collection.going[plan.table])
            if going:
                await self._detach(plan, going)
                gone = rows_of(await self._conn.execute(plan.delete, *arrays_of(going, plan.key)))
                self._tally.deleted(plan.table, gone)
                if gone != len(going):
                    raise NotErased(self._plan.store, plan.table, len(going) - gone, committed=False)
            for link in plan.links if plan.kept is None else (plan.kept, *plan.links):
                await self._change(plan, link)
            for account_id, result, row in self._collection.results(plan.table):
                self._done.add(plan.table, account_id, result, Held(1, row.newest))

    async def _detach(self, plan: CollectPlan, going: Sequence[Key]) -> None:
        rows = [self._collection.rows[plan.table][key] for key in going]
        for detach in plan.detaches:
            with self._link.told(detach.child):
                given = values_of(rows, detach.of)
                if detach.child not in self._plan.collected:
                    changed = others = rows_of(await self._conn.execute(detach.sql, *given))
                else:
                    keys = [tuple(row) for row in await self._conn.fetch(detach.sql, *given)]
                    changed = len(keys)
                    others = sum(key not in self._collection.going[detach.child] for key in keys)
            self._tally.updated(detach.child, changed)
            self._note_others(detach.child, TableResult.DETACHED, others, plan, going)

    def _note_others(
        self, table: str, result: TableResult, rows: int, parent: CollectPlan, going: Iterable[Key]
    ) -> None:
        """Tell of rows of others once, with the account that it is told of first: they are nobody's of those asked for."""
        accounts = sorted({each for key in going for each in self._collection.accounts(parent.table, key)})
        if rows and accounts:
            self._done.add(table, accounts[0], result, Held(rows))

    async def _change(self, plan: CollectPlan, link: LinkPlan) -> None:
        keys = self._collection.keys(plan.table, link)
        if not keys:
            return
        if link.change is not None and link.left is not None:
            given = list(arrays_of(keys, plan.key))
            self._tally.updated(plan.table, rows_of(await self._conn.execute(link.change, *given)))
            await self._require_none(plan.table, link.left, *given)


def rows_of(status: str) -> int:
    """Return the number of rows in a command's tag (PostgreSQL's documentation, 54.7, CommandComplete)."""
    return int(status.rsplit(maxsplit=1)[-1])
