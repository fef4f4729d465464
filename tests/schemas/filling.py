"""Rows for fifty people in a schema that nobody here designed: every table, every foreign key, much shared between people.

Parents are picked at random, so that almost everything hangs on several people at once: threads, memberships, reviewers, audit rows. What
the catalogue cannot tell (generic foreign keys, addresses in free columns, documents of JSON) stands in the application's `fill.toml`.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

import asyncpg

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

PEOPLE: Final = 50
_ROWS_OF_PEOPLE: Final = 90
_ROWS_OF_NOBODY: Final = 6
_TRIES: Final = 4
_NULL_SHARE: Final = 0.15
_ANYBODY_SHARE: Final = 0.7

_TABLES: Final = r"""
    SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, NULL) AS type, a.atttypmod, a.attnotnull,
           a.atthasdef OR a.attidentity <> '' AS has_default, a.attgenerated <> '' OR a.attidentity = 'a' AS is_made, y.typtype,
           (SELECT array_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum AS e WHERE e.enumtypid = y.oid) AS labels,
           coalesce(a.attnum = ANY ((SELECT i.indkey FROM pg_index AS i
                                      WHERE i.indrelid = c.oid AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL
                                      ORDER BY i.indisprimary DESC, i.indexrelid LIMIT 1)::int2[]), false) AS in_key,
           EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisunique AND a.attnum = ANY (i.indkey)) AS in_unique
      FROM pg_class AS c
      JOIN pg_namespace AS n ON n.oid = c.relnamespace
      JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      JOIN pg_type AS y ON y.oid = a.atttypid
     WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname NOT IN ('pg_catalog', 'information_schema')
       AND n.nspname NOT LIKE 'pg\_t%'
     ORDER BY 1, 2, a.attnum
"""
_REFERENCES: Final = """
    SELECT k.conrelid::regclass::oid::bigint, cn.nspname || '.' || c.relname AS child, pn.nspname || '.' || p.relname AS parent,
           (SELECT array_agg(a.attname ORDER BY x.ord) FROM unnest(k.conkey) WITH ORDINALITY AS x (num, ord)
              JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = x.num) AS columns,
           (SELECT array_agg(a.attname ORDER BY x.ord) FROM unnest(k.confkey) WITH ORDINALITY AS x (num, ord)
              JOIN pg_attribute AS a ON a.attrelid = k.confrelid AND a.attnum = x.num) AS to_columns
      FROM pg_constraint AS k
      JOIN pg_class AS c ON c.oid = k.conrelid AND NOT c.relispartition
      JOIN pg_namespace AS cn ON cn.oid = c.relnamespace
      JOIN pg_class AS p ON p.oid = k.confrelid
      JOIN pg_namespace AS pn ON pn.oid = p.relnamespace
     WHERE k.contype = 'f'
     ORDER BY 2, k.conname
"""
_CHOICES: Final = """
    SELECT n.nspname || '.' || c.relname AS name, a.attname, pg_get_constraintdef(k.oid) AS definition
      FROM pg_constraint AS k
      JOIN pg_class AS c ON c.oid = k.conrelid
      JOIN pg_namespace AS n ON n.oid = c.relnamespace
      JOIN pg_attribute AS a ON a.attrelid = c.oid AND k.conkey = ARRAY[a.attnum]
     WHERE k.contype = 'c'
"""
_CHOICE: Final = re.compile(r"CHECK \(\(\w+ = ANY \(ARRAY\[([0-9, ]+)\]\)\)\)")


class Person(NamedTuple):
    """Somebody whose names occur nowhere else, so that a search for them finds what is left of them and nothing else."""

    number: int

    @property
    def first(self) -> str:
        """The given name."""
        return f"Given{self.number:02}q"

    @property
    def last(self) -> str:
        """The family name."""
        return f"Family{self.number:02}q"

    @property
    def email(self) -> str:
        """The address of mail, in small letters."""
        return f"{self.first}.{self.last}@example.net".lower()

    def words(self) -> Mapping[str, str]:
        """What stands for this person in a template."""
        return {"first": self.first, "last": self.last, "name": f"{self.first} {self.last}", "email": self.email}


@dataclass
class Row:
    """A row that was written: columns that others may refer to, as text, and whose it is."""

    values: Mapping[str, str | None]
    person: Person | None


@dataclass(frozen=True)
class Reference:
    """A foreign key."""

    columns: tuple[str, ...]
    parent: str
    to_columns: tuple[str, ...]


@dataclass
class Shape:
    """One table as the catalogue has it."""

    name: str
    columns: dict[str, "asyncpg.Record"] = field(default_factory=dict)
    references: list[Reference] = field(default_factory=list)
    choices: dict[str, list[str]] = field(default_factory=dict)

    @property
    def key(self) -> list[str]:
        """Columns of the primary key, or of a unique index where there is none."""
        return [name for name, column in self.columns.items() if column["in_key"]]

    @property
    def quoted(self) -> str:
        """The table in SQL."""
        return ".".join(f'"{part}"' for part in self.name.split(".", 1))

    def needs(self, reference: Reference) -> bool:
        """Whether a row cannot be without this parent."""
        return all(self.columns[name]["attnotnull"] for name in reference.columns)


async def read_shapes(connection: Connection) -> dict[str, Shape]:
    """Every table by schema and name."""
    shapes: dict[str, Shape] = {}
    for each in await connection.fetch(_TABLES):
        name = f"{each['nspname']}.{each['relname']}"
        shapes.setdefault(name, Shape(name)).columns[each["attname"]] = each
    for each in await connection.fetch(_REFERENCES):
        reference = Reference(tuple(each["columns"]), each["parent"], tuple(each["to_columns"]))
        shapes[each["child"]].references.append(reference)
    for each in await connection.fetch(_CHOICES):
        if (listed := _CHOICE.fullmatch(each["definition"])) and each["name"] in shapes:
            shapes[each["name"]].choices[each["attname"]] = listed.group(1).split(", ")
    return shapes


class Filling:
    """One filling of one database; the same seed gives the same rows."""

    def __init__(self, connection: Connection, root: str, rules: Mapping[str, Any], seed: int = 12) -> None:
        self.connection = connection
        self.root = root
        self.templates: Mapping[str, str] = rules.get("columns", {})
        self.subjects: Mapping[str, str] = rules.get("subjects", {})
        self.counts: Mapping[str, int] = rules.get("rows", {})
        self.before: Sequence[str] = rules.get("before", ())
        self.anybody: Mapping[str, str] = rules.get("people", {})
        self.after: Sequence[str] = rules.get("after", ())
        self.same = frozenset(rules.get("same", ()))
        self.other = Person(0)
        self.people: dict[int, Row] = {}
        self.random = random.Random(seed)  # noqa: S311 -- rows are to be the same each time
        self.shapes: dict[str, Shape] = {}
        self.rows: dict[str, list[Row]] = {}
        self.failures: dict[str, str] = {}
        self.number = 0

    async def fill(self) -> None:
        """Write all rows, parents first, and then what refers to later tables."""
        for statement in self.before:
            await self.connection.execute(statement)
        self.shapes = await read_shapes(self.connection)
        reaching = self._reaching()
        for shape in self._order():
            await self._seeded(shape)
            seeded = len(self.rows[shape.name])
            count = self.counts.get(_short(shape.name))
            if count is None:
                is_personal = shape.name in reaching or self._is_anybodys(shape)
                count = PEOPLE if shape.name == self.root else _ROWS_OF_PEOPLE if is_personal else _ROWS_OF_NOBODY
                count = 0 if seeded and not is_personal else count
            for number in range(count):
                await self._write(shape, Person(number) if shape.name == self.root else None)
        await self._close_circles()
        for statement in self.after:
            await self.connection.execute(statement)

    def _reaching(self) -> set[str]:
        reached, grown = {self.root}, True
        while grown:
            more = {s.name for s in self.shapes.values() if any(r.parent in reached for r in s.references)} - reached
            reached |= more
            grown = bool(more)
        return reached

    def _order(self) -> Sequence[Shape]:
        """Tables behind those that their rows cannot be without; as many optional parents as can be had before."""
        done: dict[str, Shape] = {}
        left = dict(self.shapes)
        while left:
            ready = [
                shape
                for shape in left.values()
                if all(r.parent in done or r.parent == shape.name for r in shape.references if shape.needs(r))
                and (self.root in done or shape.name == self.root or not self._is_anybodys(shape))
                and self._named_in_templates(shape) <= done.keys()
            ]
            best = min(
                ready or left.values(),
                key=lambda s: (sum(r.parent not in done and r.parent != s.name for r in s.references), s.name),
            )
            done[best.name] = left.pop(best.name)
        return list(done.values())

    def _named_in_templates(self, shape: Shape) -> set[str]:
        """Tables that the queries in a table's templates read, but for itself."""
        queries = [text for name, text in self.templates.items() if name.rpartition(".")[0] == _short(shape.name)]
        named = {name for text in queries for name in re.findall(r"FROM \"?([\w.]+)", text) if text.startswith("sql:")}
        return {
            full for name in named if (full := name if "." in name else f"public.{name}") != shape.name
        } & self.shapes.keys()

    async def _seeded(self, shape: Shape) -> None:
        """Rows that the migrations themselves have written."""
        listed = ", ".join(f'"{name}"::text' for name in shape.columns)
        found = await self.connection.fetch(f"SELECT {listed} FROM {shape.quoted} LIMIT 200") if listed else []
        self.rows[shape.name] = [Row(dict(zip(shape.columns, each.values(), strict=True)), None) for each in found]

    async def _write(self, shape: Shape, person: Person | None) -> None:
        for _ in range(_TRIES):
            self.number += 1
            self.other = Person(self.random.randrange(PEOPLE))
            try:
                values, owner = self._parents(shape, person)
                for name, column in shape.columns.items():
                    template = self._template(shape, name)
                    if template is not None:
                        values[name] = self._filled(template, owner)
                    elif name not in values and not column["is_made"]:
                        values |= self._value(shape, name, column, owner)
                row = await self._insert(shape, values)
            except (asyncpg.PostgresError, LookupError) as error:
                self.failures[shape.name] = f"{type(error).__name__}: {error}"
                continue
            if row is not None:
                written = Row(row, owner)
                self.rows[shape.name].append(written)
                if person is not None:
                    self.people[person.number] = written
                return

    def _is_anybodys(self, shape: Shape) -> bool:
        """Whether fill.toml gives the rows of a table (`*`: of all tables) to anybody, where no foreign key does."""
        return _short(shape.name) in self.anybody or "*" in self.anybody

    def _template(self, shape: Shape, column: str) -> str | None:
        """What fill.toml has for a column of this table, or for those of its name in any (`*.name`)."""
        return self.templates.get(f"{_short(shape.name)}.{column}", self.templates.get(f"*.{column}"))

    def _parents(self, shape: Shape, person: Person | None) -> tuple[dict[str, str | None], Person | None]:
        """A row's foreign keys, and the person that its names and addresses are about."""
        values: dict[str, str | None] = {}
        owners: dict[str, Person | None] = {}
        later = [r for r in shape.references if f"{_short(shape.name)}.{r.columns[0]}" in self.same]
        for reference in sorted(shape.references, key=lambda each: (each in later, -len(each.columns))):
            if reference in later:
                continue
            options = self._options(reference, values)
            wanted = shape.needs(reference)
            if any(self._template(shape, name) is not None for name in reference.columns):
                continue
            if not wanted and (not options or self.random.random() < _NULL_SHARE):
                values |= {name: None for name in reference.columns if name not in values}
                continue
            parent = self.random.choice(options)
            values |= dict(zip(reference.columns, (parent.values[c] for c in reference.to_columns), strict=True))
            owners[reference.columns[0]] = parent.person
        chosen = self.subjects.get(_short(shape.name))
        direct = [r.columns[0] for r in shape.references if r.parent == self.root]
        told = [chosen] if chosen else [*direct, *owners]
        is_somebodys = self._is_anybodys(shape) and (
            self.anybody.get(_short(shape.name)) != "often" or self.random.random() < _ANYBODY_SHARE
        )
        somebody = Person(self.random.randrange(PEOPLE)) if is_somebodys else None
        owner = person or next((owners[name] for name in told if owners.get(name)), somebody)
        for reference in later:
            options = self._options(reference, values)
            own = [row for row in options if row.person == owner]
            is_own = bool(own) and self.random.random() > _ANYBODY_SHARE / 2
            options = own if is_own else [row for row in options if row.person is None]
            parent = self.random.choice(options) if options else Row({}, None)
            values |= {n: parent.values.get(to) for n, to in zip(reference.columns, reference.to_columns, strict=True)}
        return values, owner

    def _options(self, reference: Reference, values: Mapping[str, str | None]) -> list[Row]:
        pairs = list(zip(reference.columns, reference.to_columns, strict=True))
        return [
            row
            for row in self.rows.get(reference.parent, [])
            if all(row.values.get(to) is not None for _, to in pairs)
            and all(values.get(name) in {None, row.values[to]} for name, to in pairs)
        ]

    def _filled(self, template: str, person: Person | None) -> str | None:
        """A template of fill.toml: `%email%` of the row's person, `%other.email%` of another one, `%n%` a number of its own.

        `%third%` is 1, 2 or 3, the same in all columns of a row.
        """
        if template == "null":
            return None
        people = {"": person, "other.": self.other}
        words = {"n": str(self.number), "uuid": f"{self.random.getrandbits(128):032x}"}
        words["third"] = str(self.number % 3 + 1)
        for prefix, each in people.items():
            told = each.words() if each else dict.fromkeys(("first", "last", "name", "email"), "nobody")
            row = self.people.get(each.number) if each else None
            told = {**told, **({name: value or "" for name, value in row.values.items()} if row else {})}
            words |= {prefix + name: value for name, value in told.items() if name not in words or prefix}
        return re.sub(r"%([a-z_.]+)%", lambda match: words.get(match.group(1), ""), template)

    def _value(self, shape: Shape, name: str, column: "asyncpg.Record", person: Person | None) -> dict[str, str | None]:
        """A plausible value, or none where the database has its own."""
        kind, by_hand = column["type"], column["has_default"] and not column["in_unique"]
        if column["in_key"] and column["has_default"]:
            return {}
        if name in shape.choices:
            return {name: self.random.choice(shape.choices[name])}
        if column["labels"]:
            return {name: self.random.choice(column["labels"])}
        if kind in {"text", "character varying", "character", "citext"}:
            return {name: self._text(shape, name, column, person)}
        if by_hand:
            return {}
        return {name: _PLAIN.get(kind, _nothing)(self)}

    def _text(self, shape: Shape, name: str, column: "asyncpg.Record", person: Person | None) -> str | None:
        words = person.words() if person else {}
        told = next((words.get(word) for pattern, word in _NAMED if re.search(pattern, name)), None)
        unique = column["in_unique"]
        if told is None and person and name == "name" and shape.name == self.root:
            told = words["name"]
        if told is None or (unique and shape.name != self.root and "email" not in name):
            told = f"{self.random.choice(_WORDS)} {self.number}" if unique or self.random.random() < 0.5 else "words"
        length = column["atttypmod"] - 4
        if 0 < length < len(told):
            told = f"{self.number:x}"[-length:] if unique else told[:length]
        return told

    async def _insert(self, shape: Shape, values: Mapping[str, str | None]) -> dict[str, str | None] | None:
        columns = [name for name in values if name in shape.columns]
        taken: list[str | None] = []
        written = []
        for name in columns:
            value = values[name]
            if value is not None and value.startswith("sql:"):
                written.append(value.removeprefix("sql:"))
                continue
            taken.append(value)
            written.append(f"${len(taken)}::text::{shape.columns[name]['type']}")
        listed = ", ".join(f'"{name}"' for name in columns)
        given = ", ".join(f'"{name}"::text' for name in shape.columns)
        into = f"({listed}) VALUES ({', '.join(written)})" if columns else "DEFAULT VALUES"
        async with self.connection.transaction():
            row = await self.connection.fetchrow(
                f"INSERT INTO {shape.quoted} {into} ON CONFLICT DO NOTHING RETURNING {given}", *taken
            )
        return None if row is None else dict(zip(shape.columns, row.values(), strict=True))

    async def _close_circles(self) -> None:
        """References that were empty because their parents came later: half of them are set now."""
        for shape in self.shapes.values():
            key = shape.key
            for reference in shape.references:
                empty = [row for row in self.rows[shape.name] if row.values.get(reference.columns[0]) is None and key]
                parents = self._options(reference, {})
                filled = any(row.values.get(reference.columns[0]) for row in self.rows[shape.name])
                template = self._template(shape, reference.columns[0]) is not None
                if shape.needs(reference) or not parents or filled or template:
                    continue
                for row in empty[::2]:
                    parent = self.random.choice(parents)
                    await self._point(shape, key, row, reference, parent)

    async def _point(self, shape: Shape, key: list[str], row: Row, reference: Reference, parent: Row) -> None:
        new = [parent.values[name] for name in reference.to_columns]
        sets = ", ".join(
            f'"{name}" = ${at}::text::{shape.columns[name]["type"]}' for at, name in enumerate(reference.columns, 1)
        )
        where = " AND ".join(f'"{name}"::text = ${len(new) + at}' for at, name in enumerate(key, 1))
        try:
            async with self.connection.transaction():
                await self.connection.execute(
                    f"UPDATE {shape.quoted} SET {sets} WHERE {where}", *new, *(row.values[name] for name in key)
                )
        except asyncpg.PostgresError as error:
            self.failures[shape.name] = f"{type(error).__name__}: {error}"


def _short(name: str) -> str:
    return name.removeprefix("public.")


def _nothing(_: Filling) -> None:
    return None


_WORDS: Final = ("harbour", "meadow", "copper", "lantern", "orchard", "granite", "willow", "amber")
_NAMED: Final = (
    (r"e?_?mail", "email"),
    (r"user_?name|login|nick", "email"),
    (r"first_?name|given_?name", "first"),
    (r"last_?name|family_?name|surname", "last"),
    (r"full_?name|display_?name|person_?name|author_?name|cardholder", "name"),
)
_PLAIN: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("integer", "bigint"), lambda filling: str(filling.number)),
    "smallint": lambda filling: str(filling.number % 30_000),
    **dict.fromkeys(("numeric", "real", "double precision"), lambda filling: str(filling.number % 90)),
    "boolean": lambda filling: filling.random.choice(("true", "false")),
    **dict.fromkeys(
        ("timestamp with time zone", "timestamp without time zone", "date"),
        lambda filling: f"2026-0{filling.number % 8 + 1}-{filling.number % 27 + 1:02} 10:00:00",
    ),
    **dict.fromkeys(("time without time zone",), lambda _: "10:00"),
    "interval": lambda _: "1 hour",
    "uuid": lambda filling: f"{filling.random.getrandbits(128):032x}",
    **dict.fromkeys(("json", "jsonb"), lambda filling: f'{{"n": {filling.number}}}'),
    "cidr": lambda filling: f"192.0.{filling.number % 250}.0/24",
    "inet": lambda filling: f"192.0.2.{filling.number % 250}",
    "bytea": lambda filling: f"\\x{filling.number:08x}",
    **dict.fromkeys(("integer[]", "bigint[]"), lambda filling: f"{{{filling.number}}}"),
    **dict.fromkeys(("text[]", "character varying[]"), lambda _: "{harbour}"),
    "tsvector": lambda _: "harbour",
}
