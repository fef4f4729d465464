"""Which tables lead to a person, by foreign keys and by names of columns, and by which of several ways."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from habeas.datamap.catalogue.schema import ForeignKey, LiveColumn, LiveSchema, LiveTable
from habeas.datamap.map.dataset import IDENTITY
from habeas.datamap.map.draft.names import OPERATIONS, PEOPLE, TIMES, guess, words_of
from habeas.datamap.map.draft.root import Root

OWNING: Final = (
    "account",
    "user",
    "owner",
    "author",
    "customer",
    "member",
    "person",
    "subscriber",
    "client",
    "student",
    "patient",
)
"""Words of a column that names the person whose row it is, the surest first."""

ACTING: Final = frozenset(
    {
        *(
            "approver",
            "assignee",
            "creator",
            "editor",
            "inviter",
            "invitee",
            "judge",
            "moderator",
            "participant",
            "recipient",
            "reporter",
        ),
        *("requester", "reviewer", "sender", "submitter", "uploader"),
    }
)
"""Words of a column that names a person who did something to the row, or to whom it was sent."""

MAKING: Final = frozenset({"author", "created", "creator", "owner"})
_INTEGERS: Final = frozenset({"smallint", "integer", "bigint"})
_TEXTS: Final = frozenset({"text", "character varying"})


@dataclass(frozen=True)
class Way:
    """How rows of a table lead to a person: by `column`, which holds the account id, or by the foreign key `key`.

    Not `is_sure`: somebody has to decide, among `rivals` too. `is_weak`: the person only made the row, which may be everybody's.
    """

    column: str
    key: ForeignKey | None = None
    is_sure: bool = True
    rivals: tuple[str, ...] = ()
    is_weak: bool = False


class Reading:
    """What is known of each table of a live schema, seen from the root."""

    def __init__(self, live: LiveSchema, root: Root) -> None:
        self.live = live
        self.root = root.name
        self.identity = root.identity
        self.keys = {name: tuple(self._keys(name)) for name in live.tables}
        self._named_elsewhere = {
            column
            for keys in self.keys.values()
            for key in keys
            if (column := self._naming(key)) and key.table != self.root
        }
        self.people = {name: tuple(self._people(table)) for name, table in live.tables.items()}
        self.spelled: set[str] = set()
        self.unowned: set[str] = set()
        self.level: dict[str, int] = {}
        self._find_levels()

    @property
    def reached(self) -> frozenset[str]:
        """Tables that lead to a person."""
        return frozenset(self.level)

    def include(self, table: str, level: int = 1, *, is_owned: bool = True) -> None:
        """Count a table as one that leads to a person by links of its own; what hangs on it does so too, if these make an owner."""
        self.spelled.add(table)
        if not is_owned:
            self.unowned.add(table)
        self.level[table] = level
        self._grow()

    def names_people_surely(self, table: str, column: str) -> bool:
        """Whether a foreign key, or the word for the account id, says that a column holds it."""
        return column == IDENTITY or any(self._naming(key) == column for key in self.keys[table])

    def parents(self, table: str) -> Iterator[ForeignKey]:
        """Foreign keys into other tables that lead to a person, those to the root's key left out."""
        for key in self.keys[table]:
            if self._leads(key) and not self._naming(key):
                yield key

    def way(self, table: str) -> Way | None:
        """Return the way by which rows of a table are a person's, None for the root and where nothing leads there."""
        if table == self.root or table not in self.level or table in self.spelled:
            return None
        people = self.people[table]
        return self._by_person(table, people) if people else self._by_parent(table)

    def is_edge(self, table: str) -> bool:
        """Whether a table holds two people and little else, as one who follows another."""
        live, people = self.live.tables[table], self.people[table]
        if len(people) != len(("from", "to")) or table == self.root or any(key for key in self.parents(table)):
            return False
        if any(word in MAKING or word == "by" for name in people for word in words_of(name)):
            return False
        rest = [column for name, column in live.columns.items() if name not in {*people, *live.key}]
        return all(column.type in TIMES or guess(live, column) == OPERATIONS for column in rest)

    def is_join(self, table: str) -> bool:
        """Whether a table says of a person that they belong to a row of another, and little else."""
        live, people = self.live.tables[table], self.people[table]
        others = [key for key in self.keys[table] if key.to_table != self.root]
        if len(people) != 1 or len(others) != 1 or not self.names_people_surely(table, people[0]):
            return False
        rest = [column for name, column in live.columns.items() if name not in {*people, *live.key, *others[0].columns}]
        return all(
            column.type in TIMES or column.type == "boolean" or guess(live, column) == OPERATIONS for column in rest
        )

    def _keys(self, name: str) -> Iterator[ForeignKey]:
        """Foreign keys of a table into tables that are described, each once."""
        told: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
        for key in self.live.foreign_keys:
            if (
                key.table != name
                or key.to_table not in self.live.tables
                or (name, key.columns) == (key.to_table, key.to_columns)
            ):
                continue
            same = (key.to_table, tuple(sorted(zip(key.columns, key.to_columns, strict=True))))
            if same not in told:
                told.add(same)
                yield replace(key, enforced_on="", to_partition="")

    def _naming(self, key: ForeignKey) -> str:
        """Return the column of a foreign key that holds the account id, empty where none does."""
        if key.to_table != self.root or not self.identity:
            return ""
        return next((own for own, to in zip(key.columns, key.to_columns, strict=True) if to == self.identity), "")

    def _people(self, table: LiveTable) -> Iterator[str]:
        """Columns that hold the account id: by a foreign key, or by their names."""
        if not self.root:
            yield from (name for name in table.columns if name == IDENTITY)  # another store may have the people
            return
        if table.name == self.root:
            return
        bound = {column for key in self.keys[table.name] if not self._naming(key) for column in key.columns}
        named = {self._naming(key) for key in self.keys[table.name]}
        for name, column in table.columns.items():
            if name in named or (name not in bound and self._is_named_like_person(table, column)):
                yield name

    def login(self, table: LiveTable, column: LiveColumn) -> str:
        """Return the column of the root to which one refers that holds a login name, empty where it does not."""
        root = self.live.tables.get(self.root)
        if root is None or table.name == self.root or column.base not in _TEXTS:
            return ""
        words = words_of(column.name)
        if words[-1:] != ["username"] and words[-2:] != ["user", "name"]:
            return ""
        if any(column.name in key.columns for key in self.keys[table.name]):
            return ""
        return next(
            (name for name in ("username", "user_name", "login") if name in root.columns and root.is_unique((name,))),
            "",
        )

    def _is_named_like_person(self, table: LiveTable, column: LiveColumn) -> bool:
        key = self.live.column(self.root, self.identity)
        if key is None or column.name == "id" or f"{column.name.removesuffix('_id')}_type" in table.columns:
            return False
        is_same = column.base == key.base or {column.base, key.base} <= _INTEGERS or {column.base, key.base} <= _TEXTS
        if not is_same and column.base not in _TEXTS:
            return False
        words = words_of(column.name)
        singular = self.live.tables[self.root].relation.removesuffix("s")
        if column.name in {IDENTITY, f"{singular}_id"} or column.name in self._named_elsewhere:
            return True
        match words:
            case [_, *_, "by"]:
                return is_same
            case [_, *_, "by", "id" | "fk"]:
                return True
            case [*_, word, "id" | "fk"]:
                return word in ACTING or (word in {*OWNING, *PEOPLE} and not self._is_another_table(word))
            case _:
                return False

    def _is_another_table(self, word: str) -> bool:
        """Whether a word names a table other than the root, whose ids a column so named would hold."""
        return any(
            words_of(table.relation)[-1:] in ([word], [f"{word}s"]) and name != self.root and table.key
            for name, table in self.live.tables.items()
        )

    def _find_levels(self) -> None:
        """Say how far every table is from a person, at least those that are not spelled out."""
        self.level = {self.root: 0} if self.root else {}
        for name, people in self.people.items():
            if people:
                way = self._by_person(name, people)
                self.level[name] = _FAR if way.is_weak and way.is_sure else 1
        self._grow()

    def _grow(self) -> None:
        """Add what foreign keys lead from, each with the shortest way that there is."""
        changed = True
        while changed:
            changed = False
            for name in self.live.tables:
                if self.people.get(name) or name == self.root or name in self.spelled:
                    continue
                costs = [self.level[key.to_table] + self._cost(key) for key in self.keys[name] if self._leads(key)]
                if costs and min(costs) < self.level.get(name, 1 << 30):
                    self.level[name] = min(costs)
                    changed = True

    def _leads(self, key: ForeignKey) -> bool:
        """Whether a foreign key leads on to the owner of a row of another table."""
        return key.to_table in self.level and key.to_table not in {key.table, *self.unowned}

    def _cost(self, key: ForeignKey) -> int:
        """How unlikely it is that a row belongs to the one whose parent row it is."""
        child, parent = self.live.tables[key.table], self.live.tables[key.to_table]
        if not all(child.columns[column].not_null for column in key.columns if column in child.columns):
            return 5
        return 2 if is_part_of(child, parent) else 3

    def _by_person(self, table: str, people: tuple[str, ...]) -> Way:
        sure = [name for name in people if self.names_people_surely(table, name)] or list(people)
        best = sure[0]
        if len(sure) > 1:
            ranks = {name: _rank(name) for name in sure}
            best = min(sure, key=lambda name: ranks[name])
            if list(ranks.values()).count(ranks[best]) > 1 or ranks[best] >= _UNRANKED:
                return Way(sure[0], None, is_sure=False, rivals=tuple(sure[1:]))
        words = words_of(best)
        is_weak = words[-1] == "by" or "by" in words or words[0] in {"creator", "created"}
        return Way(
            best,
            None,
            self.names_people_surely(table, best),
            tuple(name for name in people if name != best),
            is_weak=is_weak,
        )

    def _by_parent(self, table: str) -> Way | None:
        own = self.level[table]
        keys = [key for key in self.keys[table] if self._leads(key)]
        keys = [key for key in keys if not any(_is_wider(each, key) for each in keys)]
        costs = {index: self.level[key.to_table] + self._cost(key) for index, key in enumerate(keys)}
        below = [index for index, key in enumerate(keys) if self.level[key.to_table] < own]
        if not below:
            return None
        best = min(below, key=lambda index: costs[index])
        rivals = tuple(keys[index].columns[0] for index in below if index != best and costs[index] == costs[best])
        return Way(self.telling(keys[best]), keys[best], not rivals, rivals)

    def telling(self, key: ForeignKey) -> str:
        """Return the column by which a foreign key is told from the others of its table; the first where none tells it."""
        others = {column for each in self.keys[key.table] if each != key for column in each.columns}
        return next((column for column in key.columns if column not in others), key.columns[0])

    def maker(self, table: str) -> str:
        """Return the table on which one hangs that leads to a person only by rows that somebody made, empty for others.

        The tasks of a project lead to whoever opened the project.
        """
        way = self.way(table)
        if way is None or way.key is None:
            return ""
        onward = self.way(way.key.to_table)
        return (
            way.key.to_table
            if onward is not None and onward.is_weak and onward.is_sure
            else self.maker(way.key.to_table)
        )

    def is_everybodys(self, table: str) -> bool:
        """Whether a table leads to a person only by rows that somebody made."""
        return bool(self.maker(table))

    def is_staying(self, table: str) -> bool:
        """Whether rows of a table are likely to stay when a person goes: somebody made them for everybody."""
        way = self.way(table)
        return self.is_everybodys(table) or (way is not None and way.is_weak and way.is_sure)


def _is_wider(key: ForeignKey, than: ForeignKey) -> bool:
    """Whether a foreign key leads to the same table by the same columns and more."""
    return key.to_table == than.to_table and set(key.columns) > set(than.columns)


_MAKING: Final = 50
_UNRANKED: Final = 100
_FAR: Final = 40
"""How far from a person a row is that they only made."""


def _rank(column: str) -> int:
    """How surely a column names the person whose row it is, by its name alone; the smallest is the surest."""
    match words_of(column):
        case [word] | [word, "id" | "fk"] if word in OWNING:
            return OWNING.index(word)
        case [word, *_] if word in MAKING:
            return _MAKING
    return _UNRANKED


def is_part_of(child: LiveTable, parent: LiveTable) -> bool:
    """Whether the child's name begins with the parent's, as that of `order_lines` does."""
    own, theirs = words_of(child.relation), words_of(parent.relation)
    stem = [*theirs[:-1], theirs[-1].removesuffix("s")] if theirs else theirs
    return bool(stem) and len(own) > len(stem) and [*own[: len(stem) - 1], own[len(stem) - 1].removesuffix("s")] == stem


def is_nullable(table: LiveTable, columns: Mapping[str, object] | tuple[str, ...]) -> bool:
    """Whether one of these columns can be NULL."""
    return any(
        column in table.columns and not table.columns[column].not_null and column not in table.key for column in columns
    )
