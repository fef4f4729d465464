"""What must become of every row when people are erased or shown their data, in SQL written by hand beside each application's map.

Nothing of Habeas is asked. Every column of every table is read as text before and after; what changed is compared with `judge.toml`:

    [also]      name = a query that further conditions need, as `TABLE "gone_name"`
    [goes]      table = condition of the rows that go; `TABLE gone` holds the ids of the people, `TABLE gone_x` the keys of
                rows of `x` that go. A bare column name means that it holds one of the ids.
    [changes]   "table.column" = [condition, what it then holds: "null", "*" for anything else than before, or a text]
    [shown]     table = condition of the rows that an export shows, where that is something else than [goes]
    [stays]     "table.column" = why a name or an address may be found there after all
"""

import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from tests.schemas.filling import Connection, Person, Shape, read_shapes

Key: TypeAlias = tuple[str | None, ...]
Held: TypeAlias = dict[str, dict[Key, tuple[str | None, ...]]]

_WORD: Final = re.compile(r"\w+")
_ID_LENGTH_MIN: Final = 12


class Judge:
    """One judgement: `begin` before the erasure, `findings` after it."""

    def __init__(self, connection: Connection, root: str, rules: Mapping[str, Any]) -> None:
        self.connection = connection
        self.root = root
        self.rules = rules
        self.shapes: dict[str, Shape] = {}
        self.going: dict[str, set[Key]] = {}
        self.changing: dict[tuple[str, str], tuple[set[Key], str]] = {}
        self.before: Held = {}
        self.ids: Sequence[str] = ()

    async def begin(self, ids: Sequence[str]) -> None:
        """Read everything, and say beforehand what must become of it."""
        self.ids = ids
        self.shapes = await read_shapes(self.connection)
        self.before = await self._read()
        await self._foresee(ids)
        for name, (condition, wanted) in self.rules.get("changes", {}).items():
            table, column = name.rsplit(".", 1)
            keys = await self._keys(table, condition)
            self.changing[table, column] = (keys - self.going.get(table, set()), wanted)
        await self._forget()

    async def shown(self, account_id: str) -> Mapping[str, int]:
        """Rows of each table that an export of this person shows."""
        self.shapes = self.shapes or await read_shapes(self.connection)
        await self._foresee([account_id])
        counts = {table: len(keys) for table, keys in self.going.items()}
        for table, condition in self.rules.get("shown", {}).items():
            counts[table] = len(await self._keys(table, condition))
        await self._forget()
        return {table: count for table, count in counts.items() if count}

    async def findings(self, people: Iterable[Person]) -> list[str]:
        """Everything that is not as it must be."""
        after = await self._read()
        found = [each for table in self.before for each in self._compared(table, after[table])]
        return [*found, *[each async for each in self._left(after, people)]]

    async def unchanged(self) -> list[str]:
        """Whatever changed since the last look, to the row."""
        after = await self._read()
        return [f"again: {table} changed" for table in self.before if after[table] != self.before[table]]

    async def look_again(self) -> None:
        """Take what is there now for what was there before."""
        self.before = await self._read()

    async def _foresee(self, ids: Sequence[str]) -> None:
        await self._forget()
        self.going = {}
        shape = self.shapes[self._full(self.root)]
        key = self.rules.get("identity", "id")
        await self.connection.execute(
            f'CREATE TEMP TABLE gone AS SELECT "{key}" AS id FROM {shape.quoted} WHERE "{key}"::text IN '
            f"({', '.join(_literal(each) for each in ids)})"
        )
        for name, query in self.rules.get("also", {}).items():
            await self.connection.execute(f'CREATE TEMP TABLE "gone_{name}" AS {query}')
        for table, condition in self.rules["goes"].items():
            shape = self.shapes[self._full(table)]
            self.going[table] = await self._keys(table, condition)
            columns = ", ".join(f'"{name}"' for name in shape.key)
            if shape.key:
                await self.connection.execute(
                    f'CREATE TEMP TABLE "gone_{table.replace(".", "_")}" AS'
                    f" SELECT {columns} FROM {shape.quoted} AS t WHERE {_condition(condition)}"
                )

    async def _forget(self) -> None:
        for row in await self.connection.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = pg_my_temp_schema() AND relkind = 'r'"
        ):
            await self.connection.execute(f'DROP TABLE pg_temp."{row["relname"]}"')

    async def _keys(self, table: str, condition: str) -> set[Key]:
        shape = self.shapes[self._full(table)]
        columns = ", ".join(f't."{name}"::text' for name in shape.key or ["ctid"])
        rows = await self.connection.fetch(f"SELECT {columns} FROM {shape.quoted} AS t WHERE {_condition(condition)}")
        return {tuple(row.values()) for row in rows}

    def _full(self, table: str) -> str:
        return table if "." in table else f"public.{table}"

    async def _read(self) -> Held:
        held: Held = {}
        for shape in self.shapes.values():
            names = [*shape.columns, "ctid"]
            columns = ", ".join(f't."{name}"::text' for name in names)
            rows = await self.connection.fetch(f"SELECT {columns} FROM {shape.quoted} AS t")
            at = [names.index(name) for name in shape.key or ["ctid"]]
            held[shape.name.removeprefix("public.")] = {
                tuple(row[position] for position in at): tuple(row.values())[:-1] for row in rows
            }
        return held

    def _compared(self, table: str, after: Mapping[Key, tuple[str | None, ...]]) -> Iterator[str]:
        before, going = self.before[table], self.going.get(table, set())
        gone, new = before.keys() - after.keys(), after.keys() - before.keys()
        for count, what in (
            (len(gone - going), "rows of others are gone"),
            (len(going & after.keys()), "rows are still there"),
            (len(new), "rows are new"),
        ):
            if count:
                yield f"{table}: {count} {what}"
        columns = list(self.shapes[self._full(table)].columns)
        wrong: Counter[str] = Counter()
        for key in before.keys() & after.keys():
            for column, old, value in zip(columns, before[key], after[key], strict=True):
                keys, wanted = self.changing.get((table, column), (set[Key](), ""))
                if key in going:
                    continue
                if key in keys:
                    if not _is_wanted(old, value, wanted):
                        wrong[f"{table}.{column}: * rows that must change did not, or to something else"] += 1
                elif old != value:
                    wrong[f"{table}.{column}: * rows of others changed"] += 1
        yield from (text.replace("*", str(count), 1) for text, count in wrong.items())

    async def _left(self, after: Held, people: Iterable[Person]) -> AsyncIterator[str]:
        """Names, addresses, and ids that are no plain numbers, of the erased people in whatever column of whatever table."""
        names = [part for each in people for part in (each.first, each.last)]
        ids = [each for each in self.ids if len(each) > _ID_LENGTH_MIN]
        search = re.compile("|".join(map(re.escape, (*names, *ids))), re.IGNORECASE)
        stays = self.rules.get("stays", {})
        for table, rows in after.items():
            columns = list(self.shapes[self._full(table)].columns)
            left: Counter[str] = Counter()
            for row in rows.values():
                left.update(c for c, value in zip(columns, row, strict=True) if value and search.search(value))
            for column, count in left.items():
                if f"{table}.{column}" not in stays:
                    yield f"{table}.{column}: {count} rows still name somebody"


def _is_wanted(old: str | None, value: str | None, wanted: str) -> bool:
    if wanted == "*":
        return value != old
    return value is None if wanted == "null" else value == wanted


def _condition(condition: str) -> str:
    return f'"{condition}" IN (TABLE gone)' if _WORD.fullmatch(condition) else condition


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
