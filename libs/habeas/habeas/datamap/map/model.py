"""The data map as Habeas works with it: every table with its path, its categories and what an erasure does to it.

`load_datamap` reads a directory of dataset files (see `habeas.datamap.map.dataset` for the format), resolves defaults and
names against the policy, and refuses what is not whole. Nothing here looks at a database: see `habeas.datamap.catalogue.schema`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from habeas.contracts.vocabulary import KeepGround
from habeas.datamap.explain import PathPart
from habeas.datamap.map.dataset import Action, Constant, Contact, Export, Portable
from habeas.datamap.map.paths import Edge, SubjectPath
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
    constant: Constant
    contact: Contact | None
    place: Place


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
class Table:
    """One table of a store.

    `path` is None only where `erasure` is Action.NONE or the table is not personal. `blanked` are the columns that an
    erasure overwrites with their constants, the rows staying. `mentions` are columns that name another person than the
    one whose row it is; they are blanked when that other person is erased.
    """

    name: str
    personal: bool
    category: str | None
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    path: SubjectPath | None
    erasure: Action | Kept
    blanked: tuple[Column, ...]
    mentions: tuple[Column, ...]
    retention: str | None
    age: Age | None
    partitioned: bool
    edges: tuple[Edge, ...]
    place: Place

    def column(self, name: str) -> Column | None:
        """Give the column of that name, if the map lists it."""
        return next((column for column in self.columns if column.name == name), None)


@dataclass(frozen=True)
class StoreMap:
    """One store: where it is, where a person begins in it, and its tables by name in the order of the file.

    `root` and `identity` are empty in a store that has no table of people.
    """

    name: str
    connection: str
    schema: str
    root: str
    identity: str
    tables: Mapping[str, Table]
    place: Place

    @property
    def has_root(self) -> bool:
        """Whether people begin in this store; otherwise its rows hold ids of accounts that other stores know."""
        return self.root != ""

    @property
    def personal(self) -> Iterator[Table]:
        """Tables whose rows lead to a person."""
        return (table for table in self.tables.values() if table.path is not None)

    @property
    def edges(self) -> Iterator[Edge]:
        """Every reference that the map states, in all tables."""
        return (edge for table in self.tables.values() for edge in table.edges)

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
