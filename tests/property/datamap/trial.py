"""One seed: a schema, a map and rows, put before the product and before the oracle."""

import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum, auto
from random import Random
from typing import Final, TypeAlias

import asyncpg
from typing_extensions import override

from habeas.datamap.errors import StoreError
from tests.property.datamap.differences import differences
from tests.property.datamap.maps import map_of, written
from tests.property.datamap.model import LOOSENS, Content, Document, Feature, Row, Schema
from tests.property.datamap.oracle import Oracle
from tests.property.datamap.product import Product, Refused, Workshop
from tests.property.datamap.reading import Book, read
from tests.property.datamap.rows import broken, inserts, rows_of
from tests.property.datamap.schemas import schema_of

Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

CUTOFF: Final = "2026-01-01T00:00:00+00:00"


class Kind(StrEnum):
    """What came of a seed."""

    GOOD = auto()
    FALSE_ALARM = auto()  # the check refuses a right map
    STOPPED = auto()  # the check passes, and the erasure fails
    WRONG = auto()  # what is there after an erasure is not what the map says
    EXPORT = auto()  # somebody gets other rows than the map says
    PURGE = auto()  # rows go too early, or stay
    UNSOUND = auto()  # the generator's own fault: a map that it calls right breaks a foreign key
    OVERLOOKED = auto()  # the check passes a map that is broken on purpose


@dataclass(frozen=True)
class Verdict:
    """What came of a seed, in words."""

    kind: Kind
    words: tuple[str, ...] = ()

    def is_like(self, other: "Verdict") -> bool:
        """Whether the same is wrong, perhaps with other rows."""
        if self.kind in {Kind.FALSE_ALARM, Kind.STOPPED}:
            said = {re.sub("`[^`]*`", "`…`", words) for words in other.words}
            return self.kind is other.kind and bool(
                said & {re.sub("`[^`]*`", "`…`", words) for words in self.words[:1]}
            )
        return self.kind is other.kind

    @override
    def __str__(self) -> str:
        return "\n  ".join((self.kind.value, *self.words))


@dataclass(frozen=True)
class Case:
    """Everything that one seed makes; small enough to be printed, once it is shrunk."""

    seed: int
    schema: Schema
    document: Document
    content: Content
    people: tuple[str, ...]

    @classmethod
    def of(cls, seed: int, on: Collection[Feature]) -> "Case":
        """Return the case of a seed."""
        rng = Random(seed)
        schema = schema_of(rng, on)
        document = map_of(schema, rng, on)
        content = rows_of(schema, rng)
        people = everybody(schema, content)
        return cls(seed, schema, document, content, tuple(rng.sample(people, rng.randint(1, len(people)))))

    def with_document(self, document: Document) -> "Case":
        """Return the same with another map."""
        return replace(self, document=document)

    @override
    def __str__(self) -> str:
        rows = "\n".join(inserts(self.schema, self.content, Random(0)))
        return f"-- seed {self.seed}; erased: {', '.join(self.people)}\n{self.schema.ddl()}\n{rows}\n{written(self.document)}"


def everybody(schema: Schema, content: Content) -> list[str]:
    """Ids of all people."""
    return [row[schema.identity] or "" for row in content[schema.root] if row[schema.identity] != schema.ghost]


async def lay(owner: Owner, case: Case) -> None:
    """Make the schema and put the rows in."""
    await owner.execute("DROP SCHEMA IF EXISTS crm CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    await owner.execute(case.schema.ddl())
    rows = "; ".join(inserts(case.schema, case.content, Random(case.seed)))
    await owner.execute(f"SET session_replication_role = replica; {rows}; SET session_replication_role = origin")


async def content_of(owner: Owner, schema: Schema) -> Content:
    """Read every table."""
    parts = []
    for table in schema.tables.values():
        columns = ", ".join(
            f"pg_catalog.to_json(\"{each.name}\") #>> '{{}}'" if each.type == "timestamptz" else f'"{each.name}"::text'
            for each in table.columns.values()
        )
        parts.append(f"SELECT '{table.name}' AS name, ARRAY[{columns}] AS held FROM {table.sql}")
    content: Content = {name: [] for name in schema.tables}
    for record in await owner.fetch(" UNION ALL ".join(parts)):
        content[record["name"]].append(dict(zip(schema.tables[record["name"]].columns, record["held"], strict=True)))
    return content


async def judge(owner: Owner, workshop: Workshop, case: Case) -> Verdict:
    """Put a case before the product, and compare what it does with what the oracle says."""
    text = written(case.document)
    book = read(text)
    oracle = Oracle(book, case.schema, case.content)
    unsound = list(broken(case.schema, oracle.erase(case.people).held()))
    if unsound:
        return Verdict(Kind.UNSOUND, tuple(unsound))
    await lay(owner, case)
    people = everybody(case.schema, case.content)
    try:
        async with workshop.checked(text) as product:
            wrong = _compared({person: oracle.export(person) for person in people}, await product.export(people))
            if wrong:
                return Verdict(Kind.EXPORT, tuple(wrong))
            try:
                left = case.content
                # Some of them first, and then some of those who are left, after whatever the first left behind.
                for some in (case.people, [each for each in people if each not in case.people][:2]):
                    expected = Oracle(book, case.schema, left).erase(some)
                    await product.erase([*some, *book.ghosts])
                    left = await content_of(owner, case.schema)
                    wrong = list(differences(expected.content, left))
                    if wrong:
                        return Verdict(Kind.WRONG, tuple(wrong))
            except StoreError as error:
                return Verdict(Kind.STOPPED, (type(error).__name__, str(error)))
            return await _swept(owner, product, case.schema, book, left)
    except Refused as refused:
        return Verdict(Kind.FALSE_ALARM, tuple(refused.findings))


async def judge_broken(workshop: Workshop, name: str, document: Document) -> Verdict | None:
    """Put a map that is broken on purpose before the check, over the schema that lies there; None where it is refused."""
    try:
        async with workshop.checked(written(document)):
            return Verdict(Kind.OVERLOOKED, (name,))
    except Refused:
        return None


async def _swept(owner: Owner, product: Product, schema: Schema, book: Book, left: Content) -> Verdict:
    """Let the sweep go over what an erasure left."""
    held = everybody(schema, left)[:1]
    try:
        async for table in product.purge(CUTOFF, held):
            after = await content_of(owner, schema)
            wrong = [
                *_hurried(schema, table, Oracle(book, schema, left), after, held),
                *(
                    f"{table}: still there {after[table][at]}"
                    for at in Oracle(book, schema, after).purgeable(table, CUTOFF, held)[1]
                ),
                *broken(schema, after),
            ]
            if wrong:
                return Verdict(Kind.PURGE, tuple(wrong))
            left = after
    except StoreError as error:
        return Verdict(Kind.PURGE, (type(error).__name__, str(error)))
    return Verdict(Kind.GOOD)


def _hurried(schema: Schema, swept: str, before: Oracle, after: Content, held: Collection[str]) -> Iterator[str]:
    """Return in words the rows that are gone too early, or from another table, or have other values than before."""
    for name, table in schema.tables.items():
        may = before.purgeable(name, CUTOFF, held)[0] if name == swept else set()
        loosened = {each.columns[-1] for each in schema.of(name) if each.enforced and each.on_delete in LOOSENS}
        left = {tuple(row[each] for each in table.key): row for row in after[name]}
        for at, row in before.rows(name):
            there = left.get(tuple(row[each] for each in table.key))
            if there is None:
                if at not in may:
                    yield f"{name}: too early {row}"
            elif not table.has_heir and any(row[each] != there[each] for each in row if each not in loosened):
                yield f"{name}: {row} became {there}"


def _bag(rows: Collection[Row]) -> Counter[tuple[tuple[str, str | None], ...]]:
    return Counter(tuple(sorted(row.items())) for row in rows)


def _compared(
    expected: dict[str, dict[str, list[Row]]], actual: dict[str, dict[str, list[Row]]]
) -> Iterator[str] | list[str]:
    """Return in words where an export is not what it should be; a column that is left out counts as NULL."""
    wrong = []
    for person, tables in expected.items():
        for table in sorted({*tables, *actual[person]}):
            wanted = tables.get(table, [])
            found = [
                {name: row.get(name) for name in (wanted[0] if wanted else row)}
                for row in actual[person].get(table, [])
            ]
            extra, missing = _bag(found) - _bag(wanted), _bag(wanted) - _bag(found)
            wrong += [f"{person} gets too much of {table}: {dict(row)}" for row in extra]
            wrong += [f"{person} lacks of {table}: {dict(row)}" for row in missing]
    return wrong
