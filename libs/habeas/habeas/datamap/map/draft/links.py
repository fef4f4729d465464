"""Links that a draft proposes where a row is several people's, or is a person's by something else than one reference."""

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from habeas.datamap.catalogue.schema import ForeignKey, LiveColumn, LiveTable
from habeas.datamap.map.dataset import REVIEW
from habeas.datamap.map.draft.names import PEOPLE, guess, words_of
from habeas.datamap.map.draft.ways import ACTING, OWNING, Reading, is_nullable

Links = dict[str, dict[str, Any]]

CONTACT: Final = frozenset({"user.contact.email", "user.contact.phone_number", "user.contact.address", "user.name"})
"""What makes a row that only others refer to a person's: their address in a table of its own."""

PERSONAL: Final = frozenset(
    {"user.contact.email", "user.contact.phone_number", "user.name", "user.device.ip_address"}
    | {"user.demographic.date_of_birth", "user.demographic.gender"}
)
"""What makes somebody look twice at a table from which nothing leads to a person."""

POLYMORPHIC: Final = frozenset(
    {
        "actor",
        "attachable",
        "commentable",
        "entity",
        "item",
        "object",
        "parent",
        "principal",
        "resource",
        "source",
        "subject",
        "taggable",
        "target",
    }
)
"""Words of an id that may be one of several tables', as the column of the same name with `_type` tells."""

_BELOW: Final = 6
"""How far from a person a row is that only a person's rows refer to."""

_WORDS_OF_PERSONS: Final = frozenset({*OWNING, *PEOPLE, *ACTING})


class Linking:
    """Links of every table that needs them spelled out; tables that only these bring to a person are added to the reading."""

    def __init__(self, reading: Reading, called: Callable[[str, str], str]) -> None:
        """``called`` gives the name of a table as another one's notes must spell it."""
        self.reading = reading
        self.called = called
        self.pairs: dict[str, dict[str, str]] = {}
        self._found: dict[str, Links] = {}
        if reading.root:
            self._find()

    def of(self, table: str) -> Links:
        """Return the links of a table, none where its path says all."""
        return self._found.get(table, {})

    def own(self, table: str) -> frozenset[str]:
        """Columns that name an owner by a link of their own."""
        links = self.of(table).values()
        return frozenset(
            str(each["by"]) for each in links if isinstance(each.get("by"), str) and each.get("role") != "accessor"
        )

    def _find(self) -> None:
        reading = self.reading
        tables = reading.live.tables
        for name, table in tables.items():
            if name != reading.root:
                self.pairs[name] = dict(self._polymorphic(table))
        unreached = [name for name in tables if name not in reading.reached]
        for name in unreached:
            if links := self._held(tables[name]) or self._by_login(tables[name]):
                self._found[name] = links
                reading.include(name)
        for name in list(tables):
            if name not in reading.reached and (links := self._from_elsewhere(tables[name])):
                self._found[name] = links
                reading.include(name, _BELOW)
        for name in tables:
            if name in reading.reached and name != reading.root and name not in self._found:
                self._spell(tables[name])

    def _spell(self, table: LiveTable) -> None:
        """Spell out what one path cannot say of a table that leads to a person by itself."""
        people = self.reading.people[table.name]
        if self.reading.is_edge(table.name):
            self._found[table.name] = {_link_name(column): {"by": column} for column in people}
            return
        more = {
            key: each for key, each in self._held(table).items() if "in" in each or self._is_a_persons(str(each["by"]))
        }
        way = self.reading.way(table.name)
        if way is None:
            return
        ambiguous = way.key is not None and any(
            way.column in each.columns for each in self.reading.keys[table.name] if each != way.key
        )
        if not more and not ambiguous:
            return
        by = self._by(way.key) if way.key is not None and ambiguous else way.column
        links: Links = {_link_name(way.column): {"by": by}}
        for column in people:
            if column != way.column:
                erasure: Any = {"anonymise": [column]} if is_nullable(table, (column,)) else REVIEW
                links[_link_name(column)] = {"by": column, "role": "accessor", "on_erasure": erasure}
        for key, each in more.items():
            links.setdefault(key, {**each, "role": "accessor", **({} if "in" in each else {"on_erasure": REVIEW})})
        self._found[table.name] = links

    def _by(self, key: ForeignKey) -> Any:  # noqa: ANN401 - a value of YAML
        """Return how a link says that it goes by this foreign key, whose columns others have too."""
        others = [each for each in self.reading.keys[key.table] if each != key]
        if not any(set(key.columns) <= set(each.columns) for each in others):
            return list(key.columns)
        return {"field": self.reading.telling(key), "to": self.called(key.to_table, key.table)}

    def _held(self, table: LiveTable) -> Links:
        """Links by arrays of keys and by pairs of an id and what it is of."""
        links: Links = {}
        for name, column in table.columns.items():
            if self._is_array_of_people(column):
                links[_link_name(name)] = {"in": name, "role": "accessor"}
        for name, kind in self.pairs.get(table.name, {}).items():
            links[_link_name(name)] = {"by": name, "where": {kind: REVIEW}}
        return links

    def _by_login(self, table: LiveTable) -> Links:
        """Links by columns that hold a login name: who looks after a table that nothing else leads from decides about each."""
        found = [name for name, column in table.columns.items() if self.reading.login(table, column)]
        return {
            _link_name(name): {"by": name, **({"role": "accessor", "on_erasure": REVIEW} if at else {})}
            for at, name in enumerate(found)
        }

    def _is_array_of_people(self, column: LiveColumn) -> bool:
        key = self.reading.live.column(self.reading.root, self.reading.identity)
        words = words_of(column.name)
        last = words[-2:-1] if words[-1:] == ["ids"] else words[-1:]
        return (
            key is not None
            and bool(column.element)
            and column.element == key.type
            and any(word.removesuffix("s") in _WORDS_OF_PERSONS for word in last)
        )

    def _polymorphic(self, table: LiveTable) -> Iterator[tuple[str, str]]:
        """Columns with an id, each with the column that tells of which table; those that a foreign key binds are plain."""
        bound = {column for key in self.reading.keys[table.name] for column in key.columns}
        key = self.reading.live.column(self.reading.root, self.reading.identity)
        for name, column in table.columns.items():
            if not name.endswith("_id") or name in bound or key is None or name in table.key:
                continue
            word = "".join(words_of(name.removesuffix("_id"))[-1:])
            if word not in POLYMORPHIC | _WORDS_OF_PERSONS and not word.endswith("able"):
                continue
            kinds = (
                f"{name.removesuffix('_id')}_type",
                *(("content_type_id", "content_type") if name == "object_id" else ()),
            )
            kind = next((each for each in kinds if each in table.columns), None)
            if kind and (column.base == key.base or column.base in {"text", "character varying", "bigint"}):
                yield name, kind

    @staticmethod
    def _is_a_persons(column: str) -> bool:
        return not _WORDS_OF_PERSONS.isdisjoint(words_of(column))

    def _from_elsewhere(self, table: LiveTable) -> Links:
        """Links by rows of others that refer to this table: an address that an account has, a group that has members."""
        guesses = {guess(table, column) for column in table.columns.values()}
        links: Links = {}
        for keys in self.reading.keys.values():
            for key in keys:
                if (
                    key.to_table != table.name
                    or key.table not in self.reading.reached
                    or key.table == table.name
                    or self.reading.is_everybodys(key.table)
                ):
                    continue
                column = self.reading.telling(key)
                dotted = f"{self.called(key.table, table.name)}.{column}"
                if not guesses.isdisjoint(CONTACT) and key.table not in self._found:
                    links[_link_name(f"{key.table}_{column}")] = {"from": dotted, "role": "co_owner"}
                elif self.reading.is_join(key.table) and not guesses.isdisjoint({*CONTACT, "user.content"}):
                    links[_link_name(key.table)] = {"through": dotted, "role": "co_owner"}
        return links


def _link_name(word: str) -> str:
    """Return a name that a link may have."""
    named = re.sub(r"[^a-z0-9_\-]", "_", word.lower().rpartition(".")[2].removesuffix("_id")).lstrip("_-")[:63]
    return named or "link"
