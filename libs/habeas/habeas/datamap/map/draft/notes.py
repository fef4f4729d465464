"""What a draft says of a table and of each of its columns."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from habeas.datamap.catalogue.schema import ForeignKey, LiveColumn, LiveTable
from habeas.datamap.map.dataset import IDENTITY, REVIEW
from habeas.datamap.map.draft.links import PERSONAL, Linking
from habeas.datamap.map.draft.names import CONTACTS, OPERATIONS, SECRET, UNSURE, guess, is_text, may_be_secret
from habeas.datamap.map.draft.parting import Parting
from habeas.datamap.map.draft.ways import Reading, Way, is_nullable
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
        self.parting = Parting(reading, linking)
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
        """Notes on a table that leads to a person only by a row that somebody made; what becomes of that is decided there."""
        way = self.reading.way(table.name)
        by = way.key.to_table if way is not None and way.key is not None else self.reading.root
        notes, hint = self.nobodys(table)
        if notes["reason"] == REVIEW:
            return notes, hint.replace("no reference leads to a person", f"{by} is not one person's")
        return {"personal": False, "reason": f"hangs on {by}, which is not one person's"}, ""

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
        keys = [key for key in self.parting.stated(table.name) if column.name in key.columns]
        is_root = (table.name, column.name) == (self.reading.root, self.reading.identity)
        is_person = (
            is_root
            or column.name in self.reading.people[table.name]
            or (
                column.name in self.linking.pairs.get(table.name, {})
                and _bare(column.name) in self.linking.of(table.name)
            )
        )
        if keys:
            meta["references"] = list(self._references(keys, column.name))
        elif login := self.reading.login(table, column):
            field_of = f"{self.reading.live.tables[self.reading.root].relation}.{login}"
            meta["references"] = [{"dataset": self.datasets[self.reading.root], "field": field_of, "direction": "from"}]
        if is_root or (is_person and not keys):
            meta["identity"] = IDENTITY
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
            first = "anonymise or delete" if self._is_blanked(table, way) else "delete or anonymise"
            below = sum(1 for name in self.reading.reached if self.reading.maker(name) == table.name)
            taken = f"; {below} tables that hang on it are taken for nobody's" if below else ""
            return REVIEW, f"on_erasure: {first} ({way.column} tells who made the row{taken})"
        return "delete", ""

    def _ways(self, table: LiveTable) -> int:
        """How many references and columns of a table lead to a person, as whoever reads the map counts them."""
        logins = [name for name, column in table.columns.items() if self.reading.login(table, column)]
        return len(self.reading.people[table.name]) or len(list(self.reading.parents(table.name))) + len(logins)

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
            word = self.parting.word(table, key)
            if word and column.name in self.parting.carriers(table, key, word):
                notes["when_parent_goes"] = word
        return notes

    def _is_blanked(self, table: LiveTable, way: Way) -> bool:
        """Whether rows that somebody made are best kept without that person: rows of others hang on them, or it costs nothing."""
        hanging = any(
            key.to_table == table.name and key.table != table.name
            for keys in self.reading.keys.values()
            for key in keys
        )
        return hanging or is_nullable(table, (way.column,))

    def _mention(self, table: LiveTable, column: LiveColumn) -> Mapping[str, Any]:
        """What a column becomes that names another person than the row's own, or the one who made the row."""
        way = self.reading.way(table.name)
        if (
            column.name not in self.reading.people[table.name]
            or way is None
            or column.name in self.linking.own(table.name)
        ):
            return {}
        if column.name == way.column and not (way.is_weak and way.is_sure and self._is_blanked(table, way)):
            return {}
        return {"anonymise": None if is_nullable(table, (column.name,)) else REVIEW}

    def _is_named(self, key: ForeignKey) -> bool:
        """Whether a foreign key needs a name, to tell which columns refer to a table together."""
        same = [each for each in self.parting.stated(key.table) if each.to_table == key.to_table]
        return len(same) > 1 and (
            any(len(each.columns) > 1 for each in same) or len({each.to_columns for each in same}) > 1
        )

    def _name(self, key: ForeignKey) -> str:
        """Return a name that no other foreign key of the table has."""
        keys = [each for each in self.parting.stated(key.table) if self._is_named(each)]
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
