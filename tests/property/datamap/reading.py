"""The words of a data map, read from its YAML by itself: links, references and treatments of each table, every default resolved."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, TypeAlias

import yaml

IDENTITY: Final = "account_id"
LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The one written in C reads ten times as fast, where it is there."""

Values: TypeAlias = list[Any]
Where: TypeAlias = dict[str, Values]


@dataclass(frozen=True)
class Stated:
    """A reference that the map states; `words` says per field what happens when the parent goes."""

    table: str
    columns: tuple[str, ...]
    to_table: str
    to_columns: tuple[str, ...]
    words: Mapping[str, Any]

    @property
    def word(self) -> str | None:
        """One of detach, delete, keep_parent."""
        word = next(iter(self.words.values()), None)
        return "detach" if isinstance(word, dict) else word

    @property
    def detached_to(self) -> dict[str, str | None]:
        """What a detached row gets: NULL or a constant, per field."""
        return {
            name: spelled(word["detach"]["to"]) if isinstance(word, dict) else None for name, word in self.words.items()
        }


@dataclass(frozen=True)
class Link:
    """A link with its treatments; `kind` is by, through, from or in."""

    table: str
    name: str
    kind: str
    columns: tuple[str, ...]
    role: str
    where: Where
    erasure: Any
    export: Any
    other: str = ""
    at: str = ""
    is_anywhere: bool = False
    """Whether it leads from rows too for which the table's own condition does not hold."""


@dataclass
class Told:
    """What the map says of one table."""

    name: str
    is_personal: bool
    fields: dict[str, dict[str, Any]]
    where: Where
    erasure: Any
    retention: str | None
    age: str | None
    links: list[Link] = field(default_factory=list)
    stated: list[Stated] = field(default_factory=list)

    def notes(self, name: str) -> dict[str, Any]:
        """What stands under `habeas:` of a field."""
        notes: dict[str, Any] = self.fields[name].get("habeas") or {}
        return notes

    def identity(self, name: str) -> str | None:
        """Kind of identity that a field holds."""
        kind: str | None = (self.fields[name].get("fides_meta") or {}).get("identity")
        return kind

    def anonymises(self, name: str) -> bool:
        """Whether a field says what it becomes."""
        return "anonymise" in self.notes(name)

    def stated_with(self, columns: tuple[str, ...]) -> Stated | None:
        """Return the reference over these columns."""
        exact = (each for each in self.stated if set(each.columns) == set(columns))
        part = (each for each in self.stated if set(columns) < set(each.columns))
        return next(exact, None) or next(part, None)


@dataclass
class Book:
    """A whole map of one store."""

    root: str
    identity: str
    tables: dict[str, Told]

    @cached_property
    def ghosts(self) -> set[str]:
        """Ids that the map writes where people are named: those of nobody."""
        found: set[str | None] = set()
        for told in self.tables.values():
            for name in told.fields:
                constant = told.notes(name).get("anonymise")
                if self.names_people(told.name, name) and not isinstance(constant, dict):
                    found.add(spelled(constant))
            for stated in told.stated:
                if stated.to_table == self.root and stated.word == "detach":
                    found |= set(stated.detached_to.values())
        return {each for each in found if each is not None}

    def names_people(self, table: str, column: str) -> bool:
        """Whether a field names a person: it holds the id, or refers to the root's."""
        told = self.tables[table]
        if told.identity(column) is not None and table != self.root:
            return True
        return any(
            each.to_table == self.root and (column, self.identity) in zip(each.columns, each.to_columns, strict=True)
            for each in told.stated
        )


def spelled(value: object) -> str | None:
    """Return a constant of the map as PostgreSQL writes it."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def read(text: str) -> Book:
    """Return what a map says."""
    datasets = yaml.load(text, Loader=LOADER)["dataset"]  # noqa: S506 -- it is a safe one
    home = next(each for each in datasets if "root" in each["habeas"])
    schema = home["habeas"].get("schema", "public")
    prefixes = {
        each["fides_key"]: "" if each["habeas"].get("schema", "public") == schema else f"{each['habeas']['schema']}."
        for each in datasets
    }
    tables: dict[str, Told] = {}
    for dataset in datasets:
        for collection in dataset["collections"]:
            told = _told(prefixes[dataset["fides_key"]], collection, prefixes)
            tables[told.name] = told
    root = home["habeas"]["root"]
    identity = next(name for name in tables[root].fields if tables[root].identity(name) == IDENTITY)
    book = Book(root, identity, tables)
    raw = {
        f"{prefixes[dataset['fides_key']]}{collection['name']}": collection.get("habeas") or {}
        for dataset in datasets
        for collection in dataset["collections"]
    }
    for told in tables.values():
        told.links = list(_links(book, told, raw[told.name]))
    return book


def _told(prefix: str, collection: dict[str, Any], prefixes: Mapping[str, str]) -> Told:
    notes = collection.get("habeas") or {}
    name = prefix + collection["name"]
    told = Told(
        name=name,
        is_personal=notes.get("personal", True),
        fields={each["name"]: each for each in collection["fields"]},
        where=_where(notes.get("where")),
        erasure=notes.get("on_erasure"),
        retention=notes.get("retention"),
        age=notes.get("age"),
    )
    told.stated = list(_stated(told, prefixes))
    return told


def _where(where: dict[str, Any] | None) -> Where:
    return {column: values if isinstance(values, list) else [values] for column, values in (where or {}).items()}


def _stated(told: Told, prefixes: Mapping[str, str]) -> Iterator[Stated]:
    """Return references: fields to different columns of one table are one; the same column again is another one."""
    groups: dict[tuple[str, str | None], list[tuple[str, str]]] = {}
    for name, each in told.fields.items():
        for reference in (each.get("fides_meta") or {}).get("references") or ():
            if reference.get("direction", "from") == "from":
                table, column = reference["field"].split(".")
                table = prefixes[reference["dataset"]] + table
                group = (table, told.notes(name).get("reference"))
                groups.setdefault(group, []).append((name, column))
    for (table, _), pairs in groups.items():
        columns = [column for _, column in pairs]
        parts = [pairs] if len(set(columns)) == len(columns) else [[pair] for pair in pairs]
        for part in parts:
            own, theirs = tuple(name for name, _ in part), tuple(column for _, column in part)
            words = {
                name: told.notes(name)["when_parent_goes"] for name in own if "when_parent_goes" in told.notes(name)
            }
            yield Stated(told.name, own, table, theirs, words)


def _links(book: Book, told: Told, notes: dict[str, Any]) -> Iterator[Link]:
    if not told.is_personal:
        return
    if told.name == book.root:
        yield Link(told.name, "itself", "by", (book.identity,), "owner", {}, told.erasure, None)
        return
    if "links" in notes:
        for name, link in notes["links"].items():
            yield _link(told, name, link)
        return
    own = _own_way(book, told, notes.get("path"))
    if own is None:
        return
    yield Link(told.name, "own", "by", own, "owner", {}, told.erasure, None)
    for name in told.fields:
        if book.names_people(told.name, name) and name not in own and told.anonymises(name):
            stated = told.stated_with((name,))
            columns = stated.columns if stated and not told.identity(name) else (name,)
            # As before there were links: who is mentioned in rows of others does not get these rows.
            yield Link(told.name, name, "by", columns, "accessor", {}, {"anonymise": [name]}, "none", is_anywhere=True)


def _link(told: Told, name: str, link: dict[str, Any]) -> Link:
    kind = next(each for each in ("by", "through", "from", "in") if each in link)
    value = link[kind]
    role = link.get("role", "co_owner" if kind == "from" else "owner")
    erasure = link.get("on_erasure", told.erasure if role != "accessor" else "remove" if kind == "in" else "none")
    columns: tuple[str, ...] = ()
    other = ""
    if kind in {"by", "in"}:
        columns = tuple(value) if isinstance(value, list) else (value,)
    elif kind == "from":
        other, column = value.rsplit(".", 1)
        columns = (column,)
    else:
        other = value
    return Link(
        told.name,
        name,
        kind,
        columns,
        role,
        _where(link.get("where")),
        erasure,
        link.get("on_export"),
        other,
        link.get("at", ""),
    )


def _own_way(book: Book, told: Told, choice: str | None) -> tuple[str, ...] | None:
    """Return the fields of the one way of the short form: the one that is named, else one that holds the id, else the only one."""
    if choice is not None:
        stated = told.stated_with((choice,))
        return stated.columns if stated is not None and told.identity(choice) is None else (choice,)
    direct = [name for name in told.fields if book.names_people(told.name, name)]
    if direct:
        stated = told.stated_with((direct[0],))
        return stated.columns if stated is not None and told.identity(direct[0]) is None else (direct[0],)
    onward = [each for each in told.stated if book.tables[each.to_table].is_personal and each.to_table != told.name]
    return onward[0].columns if onward else None
