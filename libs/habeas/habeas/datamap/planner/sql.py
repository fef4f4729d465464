"""Building blocks of SQL: quoted identifiers, literals, and the FROM and WHERE by which a table reaches a person.

Only names and constants of the data map are ever written into a statement; what comes with a request is a parameter.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from habeas.datamap.map.dataset import Constant
from habeas.datamap.map.paths import Join, SubjectPath, Where

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
class Reach:
    """How one statement gets from t0 to the account id in `subject`; `subject_type` is that column's own type."""

    schema: str
    table: str
    joins: tuple[Join, ...]
    subject_column: str
    subject_type: str
    where: Where = ()

    @classmethod
    def of(cls, schema: str, path: SubjectPath, subject_type: str) -> "Reach":
        """Give the reach along a path of the map."""
        return cls(schema, path.table, path.joins, path.subject_column, subject_type, path.where)

    @property
    def own(self) -> str:
        """The table itself, as t0."""
        return words(quoted(self.schema, self.table), "AS", alias(0))

    @property
    def others(self) -> tuple[str, ...]:
        """Joined tables, nearest first, as t1, t2, …."""
        return tuple(words(quoted(self.schema, join.table), "AS", alias(at)) for at, join in enumerate(self.joins, 1))

    @property
    def on(self) -> tuple[str, ...]:
        """Conditions of the joins, and of the rows in each table."""
        joined = (
            words(quoted(alias(at), join.column), "=", quoted(alias(at + 1), join.to_column))
            for at, join in enumerate(self.joins)
        )
        tables = (self.where, *(join.where for join in self.joins))
        return (*joined, *(each for at, where in enumerate(tables) for each in holds(alias(at), where)))

    @property
    def subject(self) -> str:
        """The column that holds the account id."""
        return quoted(alias(len(self.joins)), self.subject_column)

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


def ids(parameter: str, kind: str) -> str:
    """An array of account ids as a parameter; always sent as text, cast to the column's type so that its index serves.

    Whole numbers are compared as `bigint`, which indexes of the narrower types serve too: an id that such a column cannot hold is
    nobody's there, and no error.
    """
    if kind in TEXT_TYPES - {CASELESS}:
        return f"{parameter}::text[]"
    return f"{parameter}::text[]::{'bigint' if kind in INTEGER_TYPES else kind}[]"


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
