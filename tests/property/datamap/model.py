"""What a random schema consists of, and the features that a seed may use."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Any, Final, TypeAlias

Row: TypeAlias = dict[str, str | None]
"""One row, every value as the text that PostgreSQL writes for it."""

Content: TypeAlias = dict[str, list[Row]]
"""Rows of every table."""

Document: TypeAlias = dict[str, Any]
"""A data map file, as YAML reads it."""

NO_ACTION: Final = "NO ACTION"
RESTRICT: Final = "RESTRICT"
CASCADE: Final = "CASCADE"
SET_NULL: Final = "SET NULL"
SET_DEFAULT: Final = "SET DEFAULT"
LOOSENS: Final = frozenset({SET_NULL, SET_DEFAULT})


class Feature(StrEnum):
    """A part of the language, or of what databases have, that a seed may use."""

    NOBODYS = auto()  # tables of nobody, referred to by those of people
    MENTIONS = auto()  # columns that name somebody else than the one whose row it is
    WHERE = auto()  # conditions on collections
    KEEP = auto()  # rows kept under a ground
    LINKS = auto()  # the long form
    COMPOSITE = auto()  # keys and references over several columns
    SELF_REFERENCE = auto()
    EDGES = auto()  # two people in the key: follower, followed
    POLYMORPHIC = auto()
    ARRAYS = auto()
    JSON = auto()
    GHOST = auto()
    PARTITIONS = auto()  # partitioned tables
    PARTITION_KEYS = auto()  # foreign keys declared on partitions alone
    TWO_SCHEMAS = auto()
    CASCADES = auto()  # ON DELETE CASCADE
    DEFERRED = auto()
    CO_OWNER = auto()  # a row of two people
    PARENTS_SIDE = auto()  # accounts.address_id
    HOLDER_WORDS = auto()  # a reference that makes a row shared has a word as well
    MEMBERSHIPS = auto()
    DETACH = auto()
    DELETE_WITH_PARENT = auto()
    KEEP_PARENT = auto()
    NOBODYS_CHILD = auto()  # a table of nobody that refers to one of people
    MATCH = auto()  # identity: email
    CASELESS = auto()  # match: case_insensitive
    TEMPLATES = auto()
    CYCLES = auto()  # references in a circle over two tables
    INHERITANCE = auto()
    NAMES = auto()  # words of SQL, capitals and hyphens as names


@dataclass
class Column:
    """A column with its type as SQL has it; `default` is SQL too."""

    name: str
    type: str
    not_null: bool = False
    unique: bool = False
    default: str | None = None


@dataclass(frozen=True)
class Reference:
    """`columns` of `table` hold the values of `to_columns` of `to_table`; the database knows of it where `enforced`."""

    table: str
    columns: tuple[str, ...]
    to_table: str
    to_columns: tuple[str, ...]
    enforced: bool = True
    on_delete: str = NO_ACTION
    deferred: bool = False
    on_parts: bool = False

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Own column and column referred to."""
        return tuple(zip(self.columns, self.to_columns, strict=True))


@dataclass(frozen=True)
class Way:
    """How rows of a table lead to people: what a map has to say, without how.

    `kind`: `reference` (to the root or to another table), `identity` (the id, or the mail address, without a reference), `through` and
    `from` (another table refers here), `in` (an array, or a JSON document at `at`). `role` is what it is meant as.
    """

    name: str
    kind: str
    columns: tuple[str, ...] = ()
    role: str = "owner"
    where: tuple[tuple[str, str], ...] = ()
    other: str = ""
    at: str = ""
    identity: str = "account_id"


@dataclass
class Table:
    """One table, with the ways from its rows to people; `name` is `schema.table` in the second schema."""

    name: str
    columns: dict[str, Column] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    uniques: list[tuple[str, ...]] = field(default_factory=list)
    ways: list[Way] = field(default_factory=list)
    partition: tuple[str, str] | None = None
    has_heir: bool = False
    is_nobodys: bool = False
    co_owned: bool = False

    @property
    def schema(self) -> str:
        """The schema's name."""
        return self.name.split(".")[0] if "." in self.name else "public"

    @property
    def bare(self) -> str:
        """The table's name without its schema."""
        return self.name.split(".")[-1]

    @property
    def sql(self) -> str:
        """The table as SQL names it."""
        return f'"{self.schema}"."{self.bare}"'

    def add(self, name: str, kind: str, *, not_null: bool = False, unique: bool = False) -> Column:
        """Add a column."""
        self.columns[name] = Column(name, kind, not_null=not_null, unique=unique)
        return self.columns[name]

    def parts(self) -> list[str]:
        """Names of its partitions."""
        return [f"{self.bare}_p0", f"{self.bare}_p1"] if self.partition else []


@dataclass
class Schema:
    """Tables in an order in which each refers to earlier ones, but for those references that close a circle."""

    tables: dict[str, Table]
    references: list[Reference]
    root: str = "accounts"
    identity: str = "id"
    ghost: str | None = None
    is_caseless: bool = False
    """Whether mail addresses are unique without regard to case."""

    def of(self, table: str) -> list[Reference]:
        """References that a table has."""
        return [each for each in self.references if each.table == table]

    def to(self, table: str) -> list[Reference]:
        """References that lead to a table."""
        return [each for each in self.references if each.to_table == table]

    def by(self, table: str, columns: tuple[str, ...]) -> Reference | None:
        """Return the reference that starts with these columns."""
        return next((each for each in self.of(table) if each.columns == columns), None)

    def leading(self, table: str, columns: tuple[str, ...]) -> Reference | None:
        """Return the reference that a link over these columns, one of them perhaps, follows."""
        return next((each for each in self.of(table) if set(columns) <= set(each.columns)), None)

    def leads_to_root(self, table: str, column: str) -> bool:
        """Whether a column holds a person's id by a reference of its own."""
        return any(
            each.to_table == self.root and (column, self.identity) in each.pairs and len(each.columns) == 1
            for each in self.of(table)
        )

    def statements(self) -> Iterator[str]:
        """Return the DDL, statement by statement."""
        if any(table.schema != "public" for table in self.tables.values()):
            yield "CREATE SCHEMA crm"
        for table in self.tables.values():
            yield from _create(table)
        if self.is_caseless:
            yield f"CREATE UNIQUE INDEX ON {self.tables[self.root].sql} (lower(email))"
        for number, reference in enumerate(each for each in self.references if each.enforced):
            yield from _constraint(number, reference, self.tables)

    def ddl(self) -> str:
        """Return the whole as a script."""
        return "\n".join(f"{statement};" for statement in self.statements())


def quoted(names: tuple[str, ...]) -> str:
    """A list of names for SQL."""
    return ", ".join(f'"{name}"' for name in names)


def _create(table: Table) -> Iterator[str]:
    parts = []
    for column in table.columns.values():
        words = [f'"{column.name}" {column.type}']
        words += ["NOT NULL"] if column.not_null else []
        words += [f"DEFAULT {column.default}"] if column.default else []
        words += ["UNIQUE"] if column.unique else []
        parts.append(" ".join(words))
    parts += [f"PRIMARY KEY ({quoted(table.key)})"] if table.key else []
    parts += [f"UNIQUE ({quoted(columns)})" for columns in table.uniques]
    end = ""
    if table.partition:
        how, column_name = table.partition
        end = f' PARTITION BY {how} ("{column_name}")'
    yield f"CREATE TABLE {table.sql} ({', '.join(parts)}){end}"
    if table.has_heir:
        yield f'CREATE TABLE "{table.schema}"."{table.bare}_heir" () INHERITS ({table.sql})'
    if table.partition:
        bounds = (
            ("FOR VALUES IN (0)", "DEFAULT")
            if table.partition[0] == "LIST"
            else (
                "FOR VALUES FROM (MINVALUE) TO ('2026-01-01T00:00Z')",
                "FOR VALUES FROM ('2026-01-01T00:00Z') TO (MAXVALUE)",
            )
        )
        for part, bound in zip(table.parts(), bounds, strict=True):
            yield f'CREATE TABLE "{table.schema}"."{part}" PARTITION OF {table.sql} {bound}'


def _constraint(number: int, reference: Reference, tables: Mapping[str, Table]) -> Iterator[str]:
    table, parent = tables[reference.table], tables[reference.to_table]
    on = [f'"{table.schema}"."{part}"' for part in table.parts()] if reference.on_parts else [table.sql]
    tail = " DEFERRABLE INITIALLY DEFERRED" if reference.deferred else ""
    some = ""
    if reference.on_delete in LOOSENS and len(reference.columns) > 1:
        some = f" ({quoted(reference.columns[-1:])})"  # the tenant stays
    for at, name in enumerate(on):
        yield (
            f"ALTER TABLE {name} ADD CONSTRAINT fk_{number}_{at} FOREIGN KEY ({quoted(reference.columns)})"
            f" REFERENCES {parent.sql} ({quoted(reference.to_columns)}) ON DELETE {reference.on_delete}{some}{tail}"
        )
