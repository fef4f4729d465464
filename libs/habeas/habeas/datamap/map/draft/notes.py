"""What a draft says of a table and of each of its columns."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from habeas.datamap.catalogue.schema import ForeignKey, LiveColumn, LiveTable
from habeas.datamap.map.dataset import IDENTITY, REVIEW
from habeas.datamap.map.draft.links import PERSONAL, Linking
from habeas.datamap.map.draft.names import CONTACTS, OPERATIONS, SECRET, UNSURE, guess, is_text, may_be_secret
from habeas.datamap.map.draft.ways import Reading, Way, is_nullable, is_part_of
from habeas.datamap.policy.model import Policy

AGE_NAMES: Final = (
    *("closed_at", "finished_at", "issued_on", "logged_at", "occurred_at", "created_at", "created_on", "created"),
    *("date_created", "date_placed", "placed_at", "added_at"),
)
AGE_TYPES: Final = frozenset({"timestamp with time zone", "timestamp without time zone", "date"})
MONEY: Final = re.compile(r"invoice|payment|ledger|order|receipt|billing|tax|transaction", re.IGNORECASE)
"""Tables that a law may demand to keep: what an erasure does to them is for a person to decide."""

NOBODYS: Final = "nothing in it leads to a person"


class Noting:
    """Notes on tables and columns, as they stand under `habeas:`."""

    def __init__(self, reading: Reading, linking: Linking, policy: Policy | None, datasets: Mapping[str, str]) -> None:
        """``datasets`` are the keys of the datasets by table."""
        self.reading = reading
        self.linking = linking
        self.policy = policy
        self.datasets = datasets

    def nobodys(self, table: LiveTable) -> tuple[Mapping[str, Any], str]:
        """Notes on a table from which nothing leads to a person, and why somebody should look all the same."""
        telling = [name for name, column in table.columns.items() if guess(table, column) in PERSONAL]
        notes = {"personal": False, "reason": REVIEW if telling else NOBODYS}
        return notes, f"no reference leads to a person, but {', '.join(telling)} may be a person's" if telling else ""

    def collection(self, table: LiveTable, category: str) -> tuple[Mapping[str, Any], str]:
        """Notes on a table of people's rows, and what may be written for each REVIEW."""
        notes: dict[str, Any] = {"category": category}
        hints: list[str] = []
        ages = [
            n for n in (*table.partitioned_by, *AGE_NAMES) if n in table.columns and table.columns[n].type in AGE_TYPES
        ]
        is_timed = table.name == self.reading.root or bool(MONEY.search(table.name)) or bool(table.partitioned_by)
        if is_timed:
            notes["retention"] = REVIEW
        if ages and is_timed:
            notes["age"] = ages[0]
        elif ages:
            hints.append(f"retention: CLASS, age: {ages[0]} where rows are to go earlier")
        way, links = self.reading.way(table.name), self.linking.of(table.name)
        erasure, hint = self._erasure(table, way)
        notes["on_erasure"] = erasure
        hints += [hint] if hint else []
        if ages and is_timed and table.partitioned_by == (ages[0],):
            notes["partitioned"] = "day"
        if links:
            notes["links"] = links
        elif way is not None and not way.is_sure:
            notes["path"] = REVIEW
            hints.append(f"path: {' or '.join(dict.fromkeys((way.column, *way.rivals)))}")
        elif way is not None and self._ways(table) > 1:
            notes["path"] = way.column
        return notes, "; ".join(hints)

    def category(self, table: LiveTable) -> str:
        """Return the policy's category that fits most columns; REVIEW without a policy, and where two fit equally many."""
        if self.policy is None:
            return REVIEW
        votes: dict[str, int] = {}
        for column in table.columns.values():
            found = self._guess(table, column)
            if found and not found.startswith("system"):
                for name in self._fitting(found):
                    votes[name] = votes.get(name, 0) + 1
        if not votes and table.name != self.reading.root and not self._may_tell(table):
            way = self.reading.way(table.name)
            parent = way.key.to_table if way is not None and way.key is not None else self.reading.root
            return self.category(self.reading.live.tables[parent])
        most = [name for name in votes if votes[name] == max(votes.values())]
        return most[0] if len(most) == 1 else REVIEW

    def _may_tell(self, table: LiveTable) -> bool:
        """Whether a column beside keys, times, numbers and switches may hold anything."""
        bound = {
            *table.key,
            *self.reading.people[table.name],
            *(each for key in self.reading.keys[table.name] for each in key.columns),
        }
        return any(
            is_text(column) and name not in bound and column.base != "uuid" and self._guess(table, column) != OPERATIONS
            for name, column in table.columns.items()
        )

    def everybodys(self, table: LiveTable) -> tuple[Mapping[str, Any], str]:
        """Notes on a table that leads to a person only by a row that somebody made."""
        way = self.reading.way(table.name)
        by = way.key.to_table if way is not None and way.key is not None else self.reading.root
        return (
            {"personal": False, "reason": REVIEW},
            f"leads to a person only by {by}, which somebody made; or category and on_erasure where a row is that person's",
        )

    def plain_field(self, table: LiveTable, column: LiveColumn) -> Mapping[str, Any]:
        """What is told of a column of a table that is nobody's."""
        found = self._guess(table, column)
        field: dict[str, Any] = {"name": column.name, "data_categories": [found or UNSURE]}
        if column.name in table.key:
            field["fides_meta"] = {"primary_key": True}
        if found == SECRET or (found is None and may_be_secret(column)):
            field["habeas"] = {"export": "never"}
        return field

    def field(self, table: LiveTable, column: LiveColumn, category: str) -> Mapping[str, Any]:
        """What is told of a column of a table of people's rows."""
        found = self._guess(table, column)
        field: dict[str, Any] = {"name": column.name, "data_categories": [found or UNSURE]}
        meta: dict[str, Any] = {"primary_key": True} if column.name in table.key else {}
        keys = [key for key in self._stated(table.name) if column.name in key.columns]
        is_person = (
            (table.name, column.name) == (self.reading.root, self.reading.identity)
            or column.name in self.reading.people[table.name]
            or (
                column.name in self.linking.pairs.get(table.name, {})
                and _bare(column.name) in self.linking.of(table.name)
            )
        )
        if keys:
            meta["references"] = list(self._references(keys, column.name))
        elif is_person:
            meta["identity"] = IDENTITY
        elif login := self.reading.login(table, column):
            field_of = f"{self.reading.live.tables[self.reading.root].relation}.{login}"
            meta["references"] = [{"dataset": self.datasets[self.reading.root], "field": field_of, "direction": "from"}]
        if not meta:
            return self._with_notes(field, self._told(table, column, found, category))
        if keys or is_person or column.name in table.key:
            field["data_categories"] = ["user.unique_id"] if is_person else [OPERATIONS]
        field["fides_meta"] = meta
        return self._with_notes(field, self._binding(table, column, keys))

    @staticmethod
    def _with_notes(field: dict[str, Any], notes: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**field, "habeas": notes} if notes else field

    def _erasure(self, table: LiveTable, way: Way | None) -> tuple[str, str]:
        """What an erasure does to a table's rows, and what may be written where somebody has to decide."""
        links = self.linking.of(table.name).values()
        if MONEY.search(table.name) or table.kind not in {"r", "p"}:
            return REVIEW, "on_erasure: delete, anonymise or {keep: GROUND, until: CLASS}"
        if any(key in each for each in links for key in ("through", "from")):
            return REVIEW, "on_erasure: delete (when the last of them goes), or personal: false and a reason"
        if way is not None and way.is_weak and way.is_sure:
            first = "anonymise or delete" if is_nullable(table, (way.column,)) else "delete or anonymise"
            return REVIEW, f"on_erasure: {first} ({way.column} tells who made the row)"
        return "delete", ""

    def _ways(self, table: LiveTable) -> int:
        """How many references and columns of a table lead to a person, as whoever reads the map counts them."""
        logins = [name for name, column in table.columns.items() if self.reading.login(table, column)]
        return len(self.reading.people[table.name]) or len(list(self.reading.parents(table.name))) + len(logins)

    def _stated(self, table: str) -> list[ForeignKey]:
        """Foreign keys of a table that a draft states: those into tables that lead to a person."""
        return [key for key in self.reading.keys[table] if key.to_table in self.reading.level]

    def _references(self, keys: Sequence[ForeignKey], column: str) -> Iterator[Mapping[str, str]]:
        told: set[str] = set()
        for key in keys:
            to = key.to_columns[key.columns.index(column)]
            field = f"{self.reading.live.tables[key.to_table].relation}.{to}"
            if (whole := f"{self.datasets[key.to_table]}.{field}") not in told:
                told.add(whole)
                yield {"dataset": self.datasets[key.to_table], "field": field, "direction": "from"}

    def _binding(self, table: LiveTable, column: LiveColumn, keys: Sequence[ForeignKey]) -> Mapping[str, Any]:
        """Notes on a column that refers to rows of others or names a person."""
        notes: dict[str, Any] = {}
        names = [self._name(key) for key in keys if self._is_named(key)]
        if names:
            notes["reference"] = names[0] if len(names) == 1 else names
        notes |= self._mention(table, column)
        for key in keys:
            word = self._word(table, key)
            if word and column.name in self._carriers(table, key, word):
                notes["when_parent_goes"] = word
        return notes

    def _mention(self, table: LiveTable, column: LiveColumn) -> Mapping[str, Any]:
        """What a column becomes that names another person than the row's own, or the one who made the row."""
        way = self.reading.way(table.name)
        if (
            column.name not in self.reading.people[table.name]
            or way is None
            or column.name in self.linking.own(table.name)
        ):
            return {}
        if column.name == way.column:
            return {"anonymise": None} if way.is_weak and is_nullable(table, (column.name,)) else {}
        return {"anonymise": None if is_nullable(table, (column.name,)) else REVIEW}

    def _word(self, table: LiveTable, key: ForeignKey) -> str:
        """What becomes of rows whose parent row goes, where the draft has to say it."""
        way = self.reading.way(table.name)
        parent = self.reading.live.tables[key.to_table]
        is_own = key.to_table == table.name
        if key.on_delete in {"set null", "set default"} and not is_own:
            return ""
        if not is_own and key.to_table == self.reading.root and self._names_a_person(key):
            return ""
        if way is not None and way.key == key and not self._shared(table.name):
            return ""
        if is_nullable(table, key.columns):
            return "detach"
        if not is_own and (self.reading.is_staying(key.to_table) or self.reading.is_everybodys(table.name)):
            return ""
        return "delete" if not is_own and is_part_of(table, parent) and not self._shared(parent.name) else REVIEW

    def _shared(self, table: str) -> bool:
        """Whether rows of a table are several people's, by rows of others that refer to them."""
        return any("through" in each or "from" in each for each in self.linking.of(table).values())

    def _names_a_person(self, key: ForeignKey) -> bool:
        return not set(key.columns).isdisjoint(self.reading.people[key.table])

    def _carriers(self, table: LiveTable, key: ForeignKey, word: str) -> Sequence[str]:
        """Columns of a foreign key on which its word is written: those that let go, or the one that tells it from others."""
        if word != "detach":
            return (self.reading.telling(key),)
        free = [column for column in key.columns if is_nullable(table, (column,))]
        others = {column for each in self._stated(table.name) if each != key for column in each.columns}
        return [column for column in free if column not in others] or free

    def _is_named(self, key: ForeignKey) -> bool:
        """Whether a foreign key needs a name, to tell which columns refer to a table together."""
        same = [each for each in self._stated(key.table) if each.to_table == key.to_table]
        return len(same) > 1 and (
            any(len(each.columns) > 1 for each in same) or len({each.to_columns for each in same}) > 1
        )

    def _name(self, key: ForeignKey) -> str:
        """Return a name that no other foreign key of the table has."""
        keys = [each for each in self._stated(key.table) if self._is_named(each)]
        name = _bare(self.reading.telling(key))
        same = [each for each in keys if _bare(self.reading.telling(each)) == name]
        return name if len(same) == 1 else f"{name}_{same.index(key) + 1}"

    def _told(self, table: LiveTable, column: LiveColumn, found: str | None, category: str) -> Mapping[str, Any]:
        """Notes on a column that holds something; one whose name says nothing has the table's category."""
        notes: dict[str, Any] = {}
        if (
            found
            and self.policy is not None
            and not found.startswith("system")
            and category not in (fits := self._fitting(found))
        ):
            notes["category"] = fits[0] if len(fits) == 1 else REVIEW
        if found == SECRET or (found is None and may_be_secret(column)):
            notes["export"] = "never"
        if table.name == self.reading.root and found in CONTACTS and self._first_of(table, found) == column.name:
            notes["contact"] = CONTACTS[found]
        return notes

    def _fitting(self, found: str) -> list[str]:
        categories = self.policy.categories if self.policy else {}
        return [
            name
            for name, category in categories.items()
            if any(found == data or found.startswith(data + ".") for data in category.data)
        ]

    def _guess(self, table: LiveTable, column: LiveColumn) -> str | None:
        return guess(table, column, is_root=table.name == self.reading.root)

    def _first_of(self, table: LiveTable, found: str) -> str:
        return next(column.name for column in table.columns.values() if self._guess(table, column) == found)


def _bare(column: str) -> str:
    """Return the name that a reference by this column has."""
    return re.sub(r"[^a-z0-9_\-]", "_", column.lower().removesuffix("_id")).lstrip("_-")[:60] or "reference"
