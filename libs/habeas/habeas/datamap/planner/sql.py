"""Building blocks of SQL: quoted identifiers, literals, and the FROM and WHERE by which a table reaches a person.

Only names and constants of the data map are ever written into a statement; what comes with a request is a parameter.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from habeas.datamap.map.dataset import Constant, Template
from habeas.datamap.map.paths import SubjectPath, Where, Within

CASELESS: Final = "citext"
"""Text that is compared without regard to case."""

TEXT_TYPES: Final = frozenset({"text", "character varying", "character", CASELESS})
CAST_TYPES: Final = frozenset(
    {
        *("boolean", "smallint", "integer", "bigint", "numeric", "real", "double precision"),
        *("text", "character varying", "uuid", "json", "jsonb", "bytea", "xml"),
    }
)
"""Types whose cast to text is their output function and costs less than `format`, or says more: `true` instead of `t`, and `xml` with its
declaration."""

ISO_TYPES: Final = frozenset({"date", "timestamp without time zone", "timestamp with time zone"})
INTEGER_TYPES: Final = frozenset({"bigint", "integer", "smallint"})
ID_TYPES: Final = TEXT_TYPES | INTEGER_TYPES | {"uuid"}
"""Types in which an account id may be held."""


def quoted(*names: str) -> str:
    """A name, or several joined by dots, as SQL identifiers (PostgreSQL 4.1.1: double quotes, doubled inside)."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def literal(constant: Constant) -> str:
    """A constant of the data map as SQL; text relies on standard_conforming_strings, which the connector sets."""
    if constant is None:
        return "NULL"
    if isinstance(constant, bool):
        return "TRUE" if constant else "FALSE"
    if isinstance(constant, int | float):
        return repr(constant)
    return "'" + constant.replace("\x00", "").replace("'", "''") + "'"


RANDOM_DIGITS: Final = 32
"""Of a template's `{random}`: as many as a UUID of version 4 has."""


def written(constant: Constant | Template, kind: str, key: Sequence[str]) -> str:
    """What an anonymisation writes into a column of that type, for the row with the columns `key`."""
    if not isinstance(constant, Template):
        return literal(constant)
    parts = [part for part in re.split(r"(\{random\}|\{key\})", constant.template) if part]
    random = "pg_catalog.replace(pg_catalog.gen_random_uuid()::text, '-', '')"
    keys = " || '-' || ".join(f"{column}::text" for column in key)
    text = " || ".join({"{random}": random, "{key}": keys}.get(part, literal(part)) for part in parts)
    return f"({text})" if kind in TEXT_TYPES else f"({text})::{kind}"


def unwritten(column: str, constant: Constant | Template) -> str:
    """Condition that holds while a column is not anonymised yet; `IS NOT NULL` because some types have no equality."""
    if constant is None:
        return words(column, "IS NOT NULL")
    if not isinstance(constant, Template):
        return words(column, "IS DISTINCT FROM", literal(constant))
    pattern = "".join(
        {"{random}": f"[0-9a-f-]{{{RANDOM_DIGITS},36}}", "{key}": ".*"}.get(
            part, re.sub(r"([^A-Za-z0-9@_ -])", r"\\\1", part)
        )
        for part in re.split(r"(\{random\}|\{key\})", constant.template)
    )
    return words(f"{column}::text", "!~", literal(f"^{pattern}$"))


def spelled(column: str, base: str) -> str:
    """Return the expression of a value of any type as text that the type reads back as the same value; NULL for none.

    A cast would not do for every type: that of `character` cuts blanks off, that of `inet` adds a mask, and for a type that somebody
    made it may be anything. `IS DISTINCT FROM NULL` is about the value itself; a row of nulls `IS NULL` too.
    """
    if base in CAST_TYPES:
        return f"{column}::text"
    if base == "xml[]":
        return f"{column}::text[]::text"
    if base in ISO_TYPES:
        return f"pg_catalog.to_json({column}) #>> '{{}}'"
    return f"CASE WHEN {column} IS DISTINCT FROM NULL THEN pg_catalog.format('%s', {column}) END"


def words(*parts: str) -> str:
    """Parts of a statement, joined by single blanks; empty ones left out."""
    return " ".join(part for part in parts if part)


def alias(index: int) -> str:
    """Name of the table `index` joins away: t0 is the table itself."""
    return f"t{index}"


@dataclass(frozen=True)
class Names:
    """Names of a store's tables as SQL. `alone` are those whose inheriting tables are tables of the map by themselves."""

    schema: str
    alone: frozenset[str] = frozenset()

    def parts(self, name: str) -> tuple[str, str]:
        """Return schema and own name; tables of other schemas are called with theirs and a point before it."""
        schema, point, own = name.partition(".")
        return (schema, own) if point else (self.schema, name)

    def of(self, name: str) -> str:
        """Return the table as one reads and changes it."""
        plain = quoted(*self.parts(name))
        return words("ONLY", plain) if name in self.alone else plain


@dataclass(frozen=True)
class Reach:
    """How one statement gets from t0 to the account id in `subject`; `subject_type` is that column's own type."""

    names: Names
    path: SubjectPath
    subject_type: str
    letter: str = "t"
    """First letter of the joined tables' names, so that two ways fit into one statement."""
    is_json: bool = False
    """Whether the ids stand in a column of type `json`, which has no operators of its own."""

    def alias(self, index: int) -> str:
        """Name of the table so many joins away: t0 is the table itself."""
        return alias(0) if index == 0 else f"{self.letter}{index}"

    @property
    def own(self) -> str:
        """The table itself, as t0."""
        return words(self.names.of(self.path.table), "AS", alias(0))

    @property
    def others(self) -> tuple[str, ...]:
        """Joined tables, nearest first, as t1, t2, …."""
        joined = (words(self.names.of(join.table), "AS", self.alias(at)) for at, join in enumerate(self.path.joins, 1))
        return (*joined, *([self._elements] if self.path.within is not None else []))

    @property
    def own_value(self) -> str:
        """The subject column of the table itself, as `jsonb` where it is JSON."""
        column = quoted(alias(0), self.path.subject_column)
        return f"({column}::jsonb)" if self.is_json else column

    @property
    def _elements(self) -> str:
        """Everything that the subject column holds, one row each."""
        column, within = self.own_value, self.path.within
        name = f"{self.letter}1 (id)"
        if within is None or within.keys is None:
            return words("LATERAL", f"unnest({column})", "AS", name)
        if None not in within.keys:
            return words("LATERAL", f"(SELECT {at(column, within.keys)})", "AS", name)
        array, tail = split(within.keys)
        return words("LATERAL (SELECT", at("x.e", tail), "FROM", elements(column, array), "AS x (e) )", "AS", name)

    @property
    def on(self) -> tuple[str, ...]:
        """Conditions of the joins, and of the rows in each table."""
        joined = (
            equal(quoted(self.alias(at), own), quoted(self.alias(at + 1), theirs), is_caseless=join.is_caseless)
            for at, join in enumerate(self.path.joins)
            for own, theirs in join.on
        )
        tables = (self.path.where, *(join.where for join in self.path.joins))
        return (*joined, *(each for at, where in enumerate(tables) for each in holds(self.alias(at), where)))

    @property
    def subject(self) -> str:
        """The column that holds the account id."""
        if self.path.within is not None:
            return f"{self.letter}1.id"
        return quoted(self.alias(len(self.path.joins)), self.path.subject_column)

    @property
    def tables(self) -> str:
        """All tables, for FROM; their conditions stand in `on`."""
        return ", ".join((self.own, *self.others))

    @property
    def is_one_of(self) -> str:
        """Condition that the account id is in the array of texts that is parameter `$1`.

        As a join, not as `= ANY($1)`: over many small partitions the planner then hashes the ids, where it would compare each row with
        each id in turn (250 people, 120 partitions: 46 ms instead of 310). Where an index is the better way it still takes that.
        """
        return words(self.subject, "IN (SELECT", f"unnest({ids('$1', self.subject_type)}))")

    def is_any_of(self, parameter: str) -> str:
        """The same for an array that is mostly empty or short, in the midst of a larger condition."""
        return words(self.subject, "=", f"ANY({ids(parameter, self.subject_type)})")

    def leads_to_any_of(self, parameter: str) -> str:
        """Condition on t0 alone, never null: whether it leads to one of them."""
        found = conditions(self.on, self.is_any_of(parameter)).removeprefix("WHERE ")
        if self.path.direct:
            return f"(({found}) IS TRUE)"
        return words("EXISTS ( SELECT FROM", ", ".join(self.others), "WHERE", found, ")")


def at(value: str, keys: Iterable[str | None]) -> str:
    """The text of what stands under those keys in a JSON value."""
    return f"({value} #>> {path(keys)})"


def path(keys: Iterable[str | None]) -> str:
    """Keys of a JSON value as PostgreSQL takes them."""
    return "ARRAY[" + ", ".join(literal(key) for key in keys) + "]::text[]"


def split(keys: Sequence[str | None]) -> tuple[Sequence[str | None], Sequence[str | None]]:
    """Divide the steps of a JSON path where it goes into every element of an array."""
    where = list(keys).index(None)
    return keys[:where], keys[where + 1 :]


def elements(column: str, keys: Sequence[str | None]) -> str:
    """Call that gives the elements of an array in a JSON value; none where something else stands there."""
    array = f"{column} #> {path(keys)}"
    return f"pg_catalog.jsonb_array_elements(CASE WHEN pg_catalog.jsonb_typeof({array}) = 'array' THEN {array} ELSE '[]' END)"


def without(column: str, within: Within, listed: str) -> str:
    """The value of a column without the ids in `listed`, an array of the elements' type (of texts for JSON)."""
    if within.keys is None:
        kept = words(
            "SELECT pg_catalog.array_agg(x.e ORDER BY x.n)", f"FROM unnest({column}) WITH ORDINALITY AS x (e, n)",
            f"WHERE (x.e = ANY({listed})) IS NOT TRUE",
        )  # fmt: skip
        return f"coalesce(({kept}), '{{}}')"
    if None not in within.keys:
        return f"{column} #- {path(within.keys)}"
    array, tail = split(within.keys)
    kept = words(
        "SELECT coalesce(pg_catalog.jsonb_agg(x.e ORDER BY x.n), '[]')", "FROM", elements(column, array),
        f"WITH ORDINALITY AS x (e, n) WHERE ({at('x.e', tail)} = ANY({listed})) IS NOT TRUE",
    )  # fmt: skip
    return f"pg_catalog.jsonb_set({column}, {path(array)}, ({kept}))" if array else f"({kept})"


def equal(one: str, other: str, *, is_caseless: bool = False) -> str:
    """Condition that two columns have the same value; with `is_caseless` as texts, without regard to case."""
    if is_caseless:
        return f"pg_catalog.lower({one}::text) = pg_catalog.lower({other}::text)"
    return words(one, "=", other)


def ids(parameter: str, kind: str) -> str:
    """An array of account ids as a parameter; always sent as text, cast to the column's type so that its index serves.

    Whole numbers are compared as `bigint`, which indexes of the narrower types serve too: an id that such a column cannot hold is
    nobody's there, and no error.
    """
    if kind in TEXT_TYPES - {CASELESS}:
        return f"{parameter}::text[]"
    return f"{parameter}::text[]::{'bigint' if kind in INTEGER_TYPES else kind}[]"


def listed(parameter: int, types: Iterable[str], columns: Iterable[str]) -> str:
    """Rows of values as a table `d`, numbered in `n`: arrays of texts from that parameter on, one for each column."""
    arrays = ", ".join(f"${at}::text[]::{_array_of(kind)}[]" for at, kind in enumerate(types, parameter))
    return words(f"unnest({arrays}) WITH ORDINALITY AS d", "(" + ", ".join([*columns, "n"]) + ")")


def _array_of(kind: str) -> str:
    """Return a type as the element of an array: these two alone would mean a single character or bit."""
    return {"character": "bpchar", "bit": "varbit"}.get(kind, kind)


def holds(name: str, where: Where) -> Iterator[str]:
    """Conditions that columns of the table called `name` have one of their values."""
    for column, values in where:
        listed = ", ".join(literal(value) for value in values if value is not None)
        either = [words(quoted(name, column), f"IN ({listed})")] if listed else []
        if None in values:
            either.append(words(quoted(name, column), "IS NULL"))
        yield any_of(either)


def conditions(*parts: str | Iterable[str]) -> str:
    """A WHERE clause of everything given, joined by AND; empty for nothing."""
    flat: list[str] = []
    for part in parts:
        flat += [part] if isinstance(part, str) else list(part)
    flat = [each for each in flat if each]
    return words("WHERE", " AND ".join(flat)) if flat else ""


def any_of(parts: Sequence[str]) -> str:
    """Parts joined by OR, in brackets."""
    return "(" + " OR ".join(parts) + ")"
