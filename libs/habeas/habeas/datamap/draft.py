"""A first data map, drafted from a live schema: joins from foreign keys, categories guessed from names and types.

A guess is a guess: whatever a person has to decide is written as REVIEW, which `habeas datamap check` refuses.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from habeas.datamap.dataset import IDENTITY, REVIEW
from habeas.datamap.live import ForeignKey, LiveColumn, LiveSchema, LiveTable
from habeas.datamap.policy import Policy

ROOT_NAMES: Final = ("accounts", "users", "customers", "members", "people", "persons", "account", "user", "customer")
AGE_NAMES: Final = (
    "closed_at",
    "finished_at",
    "issued_on",
    "logged_at",
    "occurred_at",
    "created_at",
    "created_on",
    "created",
)
AGE_TYPES: Final = frozenset({"timestamp with time zone", "timestamp without time zone", "date"})
MONEY: Final = re.compile(r"invoice|payment|ledger|order|receipt|billing|tax|transaction", re.IGNORECASE)
"""Tables that a law may demand to keep: what an erasure does to them is for a person to decide."""

SECRET: Final = "user.authorization.credentials"  # noqa: S105 - a word of the Fides taxonomy
UNSURE: Final = "user"
"""The widest word of the Fides taxonomy, for a column whose name says nothing."""

GUESSES: Final[Sequence[tuple[str, str]]] = (
    (r"passw|secret|token|_hash$|^hash$|api_key|private_key|sealed|credential|otp|salt", SECRET),
    (r"e_?mail", "user.contact.email"),
    (r"phone|mobile|fax", "user.contact.phone_number"),
    (r"street|address|postcode|zip_?code|city", "user.contact.address"),
    (r"country|region", "user.contact.address.country"),
    (r"^(first|last|full|family|given|display|billing|user)?_?name$|surname", "user.name"),
    (r"lang|locale", "user.demographic.language"),
    (r"birth|born", "user.demographic.date_of_birth"),
    (r"gender|sex$", "user.demographic.gender"),
    (r"(^|_)ip($|_)|ip_addr", "user.device.ip_address"),
    (r"user_agent|device|browser|os_version", "user.device"),
    (r"lat(itude)?$|lon(gitude)?$|location", "user.location"),
    (r"iban|card|account_number|payment", "user.payment"),
    (r"amount|price|net$|gross|currency|credits?$|balance|cents$|vat", "user.financial"),
    (r"consent|opt_(in|out)|granted", "user.privacy_preferences"),
    (r"score|segment|predicted|inferred", "user.behavior"),
    (r"prompt|body|content|message|text$|title|subject|comment|note|attachment|bio$", "user.content"),
    (r"_at$|_on$|^created|^updated|version|ordinal|state$|status$|kind$|type$", "system.operations"),
    (r"^id$|_id$|uuid", "system.operations"),
)
CONTACTS: Final = {
    "user.contact.email": "address",
    "user.name": "name",
    "user.demographic.language": "language",
}


@dataclass(frozen=True)
class Draft:
    """The YAML text, and how many places a person still has to decide."""

    text: str
    reviews: int


def draft_dataset(live: LiveSchema, *, store: str, connection: str, schema: str, policy: Policy | None = None) -> Draft:
    """Write a dataset file for what a live schema has. Deterministic; the text is a valid Fides dataset."""
    text = "\n".join(_Drafting(live, store, policy).lines(connection, schema)) + "\n"
    return Draft(text, len(re.findall(rf"\b{REVIEW}\b", text.split("\n", _HEADER_LINES)[-1])))


_HEADER_LINES: Final = 2


class _Drafting:
    """One pass over the live schema."""

    def __init__(self, live: LiveSchema, store: str, policy: Policy | None) -> None:
        self.live = live
        self.store = store
        self.policy = policy
        self.root = _guess_root(live)
        key = live.tables[self.root].key if self.root else ()
        self.identity = key[0] if len(key) == 1 else ""
        self.reached = self._reached()

    def lines(self, connection: str, schema: str) -> Iterator[str]:
        yield f"# Drafted from a live schema. Decide every {REVIEW}, then run `habeas datamap check`;"
        yield "# what the keys mean stands in docs/data-map.md."
        yield "dataset:"
        yield f"  - fides_key: {_flow(self.store)}"
        notes = {"store": self.store, "connection": connection, "schema": schema, "root": self.root or REVIEW}
        yield f"    habeas: {_flow(notes)}"
        yield "    collections:"
        for table in self.live.tables.values():
            yield f"      - name: {_flow(table.name)}"
            if table.name not in self.reached:
                yield f"        habeas: {_flow({'personal': False, 'reason': REVIEW})}"
                yield "        fields: []"
                continue
            category = self._category(table)
            yield f"        habeas: {_flow(self._collection(table, category))}"
            yield "        fields:"
            for column in table.columns.values():
                yield f"          - {_flow(self._field(table, column, category))}"

    def _reached(self) -> frozenset[str]:
        """Tables that a foreign key or a column name brings to a person."""
        telling = {IDENTITY, f"{self.root.removesuffix('s')}_id"} if self.root else {IDENTITY}
        reached = {
            name for name, table in self.live.tables.items() if name == self.root or telling & set(table.columns)
        }
        grown = True
        while grown:
            more = {key.table for key in self.live.foreign_keys if key.to_table in reached} - reached
            reached |= more
            grown = bool(more)
        return frozenset(reached)

    def _key_of(self, table: str, column: str) -> ForeignKey | None:
        """The foreign key over this one column, or the first of a key over several, that leads to a person."""
        keys = [
            k
            for k in self.live.foreign_keys
            if k.table == table and k.columns[0] == column and k.to_table in self.reached
        ]
        return keys[0] if keys else None

    def _direct(self, table: LiveTable) -> list[str]:
        """Columns that hold the account id."""
        telling = {IDENTITY, f"{self.root.removesuffix('s')}_id"}
        return [
            name
            for name in table.columns
            if name in telling or ((key := self._key_of(table.name, name)) and key.to_table == self.root)
        ]

    def _ways(self, table: LiveTable) -> int:
        """How many columns could be the table's path; one that holds the account id is preferred to a join."""
        return len(self._direct(table)) or sum(
            1 for name in table.columns if self._key_of(table.name, name) is not None
        )

    def _category(self, table: LiveTable) -> str:
        """The policy's category that fits most columns; nothing is sure without a policy."""
        if self.policy is None:
            return REVIEW
        votes: dict[str, int] = {}
        for column in table.columns.values():
            guess = _guess(column.name)
            if guess and not guess.startswith("system"):
                for name in self._fitting(guess):
                    votes[name] = votes.get(name, 0) + 1
        return max(votes, key=lambda name: (votes[name], name)) if votes else REVIEW

    def _fitting(self, guess: str) -> list[str]:
        categories = self.policy.categories if self.policy else {}
        return [
            name
            for name, category in categories.items()
            if any(guess == data or guess.startswith(data + ".") for data in category.data)
        ]

    def _collection(self, table: LiveTable, category: str) -> Mapping[str, Any]:
        notes: dict[str, Any] = {"category": category, "retention": REVIEW}
        ages = [
            n for n in (*table.partitioned_by, *AGE_NAMES) if n in table.columns and table.columns[n].type in AGE_TYPES
        ]
        if ages:
            notes["age"] = ages[0]
        kept = bool(MONEY.search(table.name)) or table.kind not in {"r", "p"}
        notes["on_erasure"] = REVIEW if kept else "delete"
        if ages and table.partitioned_by == (ages[0],):
            notes["partitioned"] = "day"
        if table.name != self.root and self._ways(table) > 1:
            notes["path"] = REVIEW
        return notes

    def _field(self, table: LiveTable, column: LiveColumn, category: str) -> Mapping[str, Any]:
        guess = _guess(column.name)
        field: dict[str, Any] = {"name": column.name, "data_categories": [guess or UNSURE]}
        meta: dict[str, Any] = {}
        if column.name in table.key:
            meta["primary_key"] = True
        key = self._key_of(table.name, column.name)
        if (table.name, column.name) == (self.root, self.identity):
            meta["identity"] = IDENTITY
        elif key is not None and key.to_table != table.name:
            target = f"{key.to_table}.{key.to_columns[0]}"
            meta["references"] = [{"dataset": self.store, "field": target, "direction": "from"}]
        elif column.name in self._direct(table):
            meta["identity"] = IDENTITY
        if meta:
            field["data_categories"] = (
                ["user.unique_id"] if column.name in self._direct(table) else ["system.operations"]
            )
            field["fides_meta"] = meta
        notes = self._notes(table, column, guess, category) if not meta else {}
        if notes:
            field["habeas"] = notes
        return field

    def _notes(self, table: LiveTable, column: LiveColumn, guess: str | None, category: str) -> Mapping[str, Any]:
        notes: dict[str, Any] = {}
        if guess is None:
            notes["category"] = REVIEW
        elif (
            self.policy is not None
            and not guess.startswith("system")
            and category not in (fits := self._fitting(guess))
        ):
            notes["category"] = fits[0] if len(fits) == 1 else REVIEW
        if guess == SECRET:
            notes["export"] = "never"
        if table.name == self.root and guess in CONTACTS and self._first_of(table, guess) == column.name:
            notes["contact"] = CONTACTS[guess]
        return notes

    def _first_of(self, table: LiveTable, guess: str) -> str:
        return next(name for name in table.columns if _guess(name) == guess)


def _guess_root(live: LiveSchema) -> str:
    """The table that most others refer to among those named like people; empty when there is none."""
    named = [name for name in ROOT_NAMES if name in live.tables and live.tables[name].key]
    referred = [key.to_table for key in live.foreign_keys]
    return max(named, key=lambda name: (referred.count(name), -ROOT_NAMES.index(name))) if named else ""


def _guess(column: str) -> str | None:
    name = column.lower()
    return next((category for pattern, category in GUESSES if re.search(pattern, name)), None)


def _flow(value: object) -> str:
    """One line of YAML; words that another reader could take for something else are quoted by the library."""
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    return text.removesuffix("\n...\n").removesuffix("\n")
