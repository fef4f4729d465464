"""Random rows that satisfy every constraint of a schema, with much sharing between people."""

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Final
from uuid import UUID

from tests.property.datamap.model import Content, Reference, Row, Schema, Table

OLD: Final = ("2020-02-03T04:05:06+00:00", "2025-06-01T00:00:00+00:00", "2025-12-31T23:59:59+00:00")
NEW: Final = ("2026-01-01T00:00:00+00:00", "2026-09-01T10:00:00+00:00")
MAYBE_NULL: Final = 0.25
DANGLES: Final = 0.15


def people(schema: Schema, count: int) -> list[str]:
    """Ids of as many people, of the type that the root has."""
    return [key(schema.tables[schema.root].columns[schema.identity].type, number) for number in range(1, count + 1)]


def key(kind: str, number: int) -> str:
    """Return the value of a key by its number; those of different tables are alike on purpose."""
    if kind == "integer":
        return str(number)
    return f"k{number}" if kind == "text" else str(UUID(int=number))


def rows_of(schema: Schema, rng: Random) -> Content:
    """Return rows for every table; the same state of `rng` gives the same."""
    return _Filling(schema, rng).content_of()


class _Filling:
    def __init__(self, schema: Schema, rng: Random) -> None:
        self.schema = schema
        self.rng = rng
        self.people = people(schema, rng.randint(2, 4))
        self.content: Content = {name: [] for name in schema.tables}
        self.taken: set[tuple[str, tuple[str, ...], tuple[str | None, ...]]] = set()
        self.number = 0
        self.places = {name: at for at, name in enumerate(schema.tables)}

    def content_of(self) -> Content:
        for table in self.schema.tables.values():
            if table.name == self.schema.root:
                for person in [*self.people, *([self.schema.ghost] if self.schema.ghost else [])]:
                    self._add(table, person)
            else:
                for _ in range(self.rng.choice((0, 2, 4, 6))):
                    self._add(table, None)
        for reference in self.schema.references:
            if self._is_later(reference):
                self._close(reference)
        return self.content

    def _is_later(self, reference: Reference) -> bool:
        """Whether the row referred to can be there only afterwards."""
        return self.places[reference.to_table] >= self.places[reference.table]

    def _add(self, table: Table, person: str | None) -> None:
        self.number += 1
        row: Row = {}
        for column in table.columns.values():
            row[column.name] = self._value(table, column.name)
        if person is not None:
            row[self.schema.identity] = person
        for reference in sorted(self.schema.of(table.name), key=lambda each: -len(each.columns)):
            if self._is_later(reference):
                row[reference.columns[-1]] = None
            elif not self._point(table, row, reference):
                return
        if self._is_free(table, row):
            self.content[table.name].append(row)

    def _point(self, table: Table, row: Row, reference: Reference) -> bool:
        """Let a row refer to another; False where none can be referred to."""
        own = reference.columns[-1]
        nullable = not table.columns[own].not_null
        if nullable and self.rng.random() < MAYBE_NULL:
            row[own] = None
            return True
        if not reference.enforced and self.rng.random() < DANGLES and not self._must_exist(table, reference):
            row[own] = key(table.columns[own].type, 77)
            return True
        shared = {
            column
            for other in self.schema.of(table.name)
            if other is not reference and len(other.columns) > 1
            for column in other.columns[:-1]
        } | ({table.columns[each].name for each in table.key[:-1]} if table.name == reference.to_table else set())
        fitting = [
            each
            for each in self.content[reference.to_table]
            if all(row[mine] == each[theirs] for mine, theirs in reference.pairs if mine in shared and mine != own)
        ]
        if not fitting:
            row[own] = None
            return nullable
        chosen = self.rng.choice(fitting)
        for mine, theirs in reference.pairs:
            row[mine] = chosen[theirs]
        return True

    def _must_exist(self, table: Table, reference: Reference) -> bool:
        """A co-owner who does not exist is a question that the language leaves open."""
        return table.co_owned or reference.to_table == self.schema.root

    def _close(self, reference: Reference) -> None:
        """Point rows at later ones, their own table's among them."""
        for row in self.content[reference.table]:
            fitting = [
                each
                for each in self.content[reference.to_table]
                if all(row[mine] == each[theirs] for mine, theirs in reference.pairs[:-1])
            ]
            if fitting and self.rng.random() > MAYBE_NULL:
                row[reference.columns[-1]] = self.rng.choice(fitting)[reference.to_columns[-1]]

    def _value(self, table: Table, name: str) -> str | None:
        column = table.columns[name]
        if name == "id":
            return key(column.type, self.rng.randint(1, 30))
        if not column.not_null and self.rng.random() < MAYBE_NULL:
            return None
        if name.endswith("tenant_id"):
            return self.rng.choice(("0", "1"))
        return self._scalar(table, name)

    def _scalar(self, table: Table, name: str) -> str:
        kind = table.columns[name].type
        made: dict[str, Callable[[], str]] = {
            "owner_type": lambda: self.rng.choice(("Account", "Account", "Team")),
            "kind": lambda: self.rng.choice(("a", "b", "c")),
            "email": lambda: self._address(table),
            "member_ids": lambda: (
                "{" + ",".join(self.rng.choices([*self.people, "NULL"], k=self.rng.randint(0, 4))) + "}"
            ),
            "settings": lambda: self._document(table),
        }
        if name in made:
            return made[name]()
        if kind == "timestamptz":
            return self.rng.choice((*OLD, *NEW))
        if name.endswith("_id"):
            return self.rng.choice(self.people) if kind == self._id_type else key(kind, self.rng.randint(1, 9))
        return f"{name} of {table.bare} {self.number}"

    @property
    def _id_type(self) -> str:
        return self.schema.tables[self.schema.root].columns[self.schema.identity].type

    def _address(self, table: Table) -> str:
        if table.name == self.schema.root:
            return f"Mail{self.number}@example.org"
        known = [row["email"] or "" for row in self.content[self.schema.root]]
        chosen = self.rng.choice([*known, "nobody@example.org"])
        return self.rng.choice((chosen, chosen.lower(), chosen.upper()))

    def _document(self, table: Table) -> str:
        way = next(way for way in table.ways if way.at)
        quote = "" if self._id_type == "integer" else '"'
        some = [f"{quote}{each}{quote}" for each in self.rng.choices(self.people, k=self.rng.randint(0, 3))]
        one = some[0] if some else "null"
        listed = ", ".join(f'{{"id": {each}}}' if way.at.endswith(".id") else each for each in some)
        return {
            "$.owner": f'{{"note": "x", "owner": {one}}}' if some else '{"note": "x"}',
            "$.team.lead": f'{{"team": {{"lead": {one}, "name": "x"}}}}',
        }.get(way.at, f'{{"note": null, "members": [{listed}]}}')

    def _is_free(self, table: Table, row: Row) -> bool:
        unique = [table.key, *table.uniques, *((each.name,) for each in table.columns.values() if each.unique)]
        values = [(table.name, columns, tuple(row[each] for each in columns)) for columns in unique if columns]
        values = [each for each in values if None not in each[2]]
        if self.taken.intersection(values):
            return False
        self.taken.update(values)
        return True


def broken(schema: Schema, content: Content) -> Iterator[str]:
    """References that the database enforces and that the rows break; none in what this module makes."""
    for reference in schema.references:
        if reference.enforced:
            there = {tuple(row[each] for each in reference.to_columns) for row in content[reference.to_table]}
            for row in content[reference.table]:
                held = tuple(row[each] for each in reference.columns)
                if None not in held and held not in there:
                    yield f"{reference.table}({', '.join(reference.columns)}) → {reference.to_table}"


def inserts(schema: Schema, content: Content, rng: Random) -> Iterator[str]:
    """Statements that put the rows in; foreign keys have to be out of the way."""
    for name, rows in content.items():
        table = schema.tables[name]
        if rows:
            names = ", ".join(f'"{column}"' for column in table.columns)
            halves: Sequence[tuple[str, list[Row]]] = [(table.sql, rows)]
            if table.has_heir:
                cut = rng.randint(0, len(rows))
                halves = [(table.sql, rows[:cut]), (f'"{table.schema}"."{table.bare}_heir"', rows[cut:])]
            for target, some in halves:
                if some:
                    values = ", ".join(f"({', '.join(_literal(row[each]) for each in table.columns)})" for row in some)
                    yield f"INSERT INTO {target} ({names}) VALUES {values}"


def _literal(value: str | None) -> str:
    return "NULL" if value is None else "'" + value.replace("'", "''") + "'"
