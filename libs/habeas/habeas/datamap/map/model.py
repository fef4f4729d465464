"""The data map as Habeas works with it: every table with its path, its categories and what an erasure does to it.

`load_datamap` reads a directory of dataset files (see `habeas.datamap.map.dataset` for the format), resolves defaults and
names against the policy, and refuses what is not whole. Nothing here looks at a database: see `habeas.datamap.catalogue.schema`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from habeas.contracts.vocabulary import KeepGround
from habeas.datamap.explain import PathPart
from habeas.datamap.map.dataset import Action, Constant, Contact, Export, Portable, Role, Template, WhenParentGoes
from habeas.datamap.map.paths import Reference, SubjectPath
from habeas.datamap.source import Located, Problem


@dataclass(frozen=True)
class Place:
    """Where in which file something stands, so that every later problem can name file and line."""

    located: Located
    path: tuple[PathPart, ...]

    def problem(self, what: str, write: str, *below: PathPart) -> Problem:
        """Give a problem here, or at a part below."""
        return self.located.problem((*self.path, *below), what, write)

    def at(self, *below: PathPart) -> "Place":
        """Give the place of a part below."""
        return Place(self.located, (*self.path, *below))


@dataclass(frozen=True)
class Column:
    """One column of a table, every default resolved."""

    name: str
    category: str | None
    export: Export
    portable: Portable
    anonymises: bool
    constant: Constant | Template
    contact: Contact | None
    place: Place
    large_object: bool | None = None


@dataclass(frozen=True)
class Kept:
    """Rows that stay in spite of an erasure: the ground of Art. 17(3), and the table's retention class, by which they go."""

    ground: KeepGround
    until: str


@dataclass(frozen=True)
class Age:
    """The column from which a retention runs; `table` is the table itself or one on its path."""

    table: str
    column: str


@dataclass(frozen=True)
class Link:
    """One way in which rows of a table are people's, and what becomes of those rows.

    `paths` are never none. `blanked` are the columns that an erasure overwrites with their constants, the rows staying.
    """

    name: str
    role: Role
    paths: tuple[SubjectPath, ...]
    erasure: Action | Kept
    blanked: tuple[Column, ...]
    is_shown: bool
    is_reviewed: bool
    redacted: tuple[str, ...]
    place: Place

    @property
    def is_mention(self) -> bool:
        """Whether it only clears what names a person in rows of others, by one statement without looking further."""
        return self.role is Role.ACCESSOR and not any(path.has_down for path in self.paths)

    @property
    def deletes(self) -> bool:
        """Whether rows may be deleted because of it."""
        return self.erasure is Action.DELETE


@dataclass(frozen=True)
class Table:
    """One table of a store. `name` is its own for tables of the root's schema, with the schema and a point before it for others.

    `links` may be none where nothing is erased in it or the table is not personal. `erasure` is what the collection says for its
    links. `triggers` are those that somebody has looked at and found right. `materialised`: a materialised view, filled anew after an
    erasure; its rows count as nobody's own. `reason` is why nothing is erased, where the map says one.
    """

    name: str
    personal: bool
    category: str | None
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    links: tuple[Link, ...]
    erasure: Action | Kept
    retention: str | None
    age: Age | None
    partitioned: bool
    references: tuple[Reference, ...]
    place: Place
    triggers: tuple[str, ...] = ()
    materialised: bool = False
    reason: str | None = None

    def column(self, name: str) -> Column | None:
        """Give the column of that name, if the map lists it."""
        return next((column for column in self.columns if column.name == name), None)

    @property
    def owning(self) -> tuple[Link, ...]:
        """Links by which people own its rows, alone or with others."""
        return tuple(link for link in self.links if link.role is not Role.ACCESSOR)

    @property
    def path(self) -> SubjectPath | None:
        """The first way to a person, None where there is none."""
        return next((link.paths[0] for link in (*self.owning, *self.links)), None)

    @property
    def blanked(self) -> tuple[Column, ...]:
        """Columns that an erasure of an owner overwrites."""
        return tuple({column.name: column for link in self.owning for column in link.blanked}.values())

    @property
    def mentions(self) -> tuple[Column, ...]:
        """Columns that an erasure overwrites in rows of others."""
        others = (link for link in self.links if link.role is Role.ACCESSOR)
        return tuple({column.name: column for link in others for column in link.blanked}.values())

    @property
    def deletes(self) -> bool:
        """Whether an erasure may delete rows of it."""
        return any(link.deletes for link in self.links) or any(
            reference.when_parent_goes is WhenParentGoes.DELETE for reference in self.references
        )


@dataclass(frozen=True)
class StoreMap:
    """One store: where it is, where a person begins in it, and its tables by name in the order of the files.

    `schema` is that of the root, in which names stand without it. `root` and `identity` are empty in a store that has no table of people.

    `elsewhere` are the tables, as `schema.table`, that other stores of the map have over the same connection.
    """

    name: str
    connection: str
    schema: str
    root: str
    identity: str
    tables: Mapping[str, Table]
    place: Place
    elsewhere: frozenset[str] = frozenset()

    @property
    def has_root(self) -> bool:
        """Whether people begin in this store; otherwise its rows hold ids of accounts that other stores know."""
        return self.root != ""

    @property
    def personal(self) -> Iterator[Table]:
        """Tables whose rows lead to a person."""
        return (table for table in self.tables.values() if table.links)

    @property
    def references(self) -> Iterator[Reference]:
        """Every reference that the map states, in all tables."""
        return (reference for table in self.tables.values() for reference in table.references)

    @property
    def ghosts(self) -> frozenset[str]:
        """Ids that stand for nobody: what a reference to a person becomes when the person goes."""
        target = (self.root, self.identity)
        written: set[Constant | Template] = set()
        for table in self.tables.values():
            naming = {own for each in table.references for own, to in each.on if (each.to_table, to) == target}
            naming |= {path.subject_column for link in table.links for path in link.paths if path.direct}
            written |= {column.constant for column in table.columns if column.anonymises and column.name in naming}
            written |= {
                constant
                for each in table.references
                for column, constant in each.detached
                if (each.to_table, dict(each.on)[column]) == target
            }
        return frozenset(str(each) for each in written if isinstance(each, str | int) and not isinstance(each, bool))

    def contacts(self) -> Mapping[Contact, str]:
        """Columns of the root that a mail to the person needs; a store without a root has none."""
        if not self.has_root:
            return {}
        columns = self.tables[self.root].columns
        return {column.contact: column.name for column in columns if column.contact is not None}


@dataclass(frozen=True)
class DataMap:
    """All stores by name."""

    stores: Mapping[str, StoreMap]

    def store(self, name: str) -> StoreMap:
        """Give one store; KeyError for one that the map lacks."""
        return self.stores[name]


def yaml_files(directory: Path) -> Sequence[Path]:
    """Dataset files of a directory, in order of their names; a path to one file is that file."""
    if directory.is_file():
        return [directory]
    return sorted(path for path in directory.iterdir() if path.suffix in {".yaml", ".yml"} and path.is_file())


def names(words: Iterable[str]) -> str:
    """Names in a message: `a`, `b`."""
    return ", ".join(f"`{word}`" for word in words)
