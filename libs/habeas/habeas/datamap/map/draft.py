"""A first data map, drafted from a live schema: joins from foreign keys, categories guessed from names and types.

A guess is a guess: whatever a person has to decide is written as REVIEW, which `habeas datamap check` refuses.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from habeas.datamap.catalogue.schema import ForeignKey, LiveColumn, LiveSchema, LiveTable
from habeas.datamap.map.dataset import IDENTITY, REVIEW
from habeas.datamap.policy.model import Policy

PEOPLE: Final = (
    *(
        "account",
        "user",
        "customer",
        "member",
        "person",
        "people",
        "subscriber",
        "client",
        "patient",
        "student",
        "guest",
        "player",
    ),
    *("contact", "profile", "employee"),
)
"""Words for people, by which a root is guessed, the likeliest first, and by which a bare `name` is a person's."""

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
OPERATIONS: Final = "system.operations"
UNSURE: Final = "user"
"""The widest word of the Fides taxonomy, for a column whose name says nothing."""

GUESSES: Final[Sequence[tuple[str, Sequence[str]]]] = (
    (
        SECRET,
        (
            *(
                "password",
                "passwd",
                "pwd",
                "passphrase",
                "secret",
                "token",
                "hash",
                "credential",
                "otp",
                "totp",
                "salt",
                "sealed",
            ),
            *("api key", "apikey", "private key"),
        ),
    ),
    ("user.contact.email", ("email", "e mail", "email address", "mail address")),
    (
        "user.contact.phone_number",
        ("phone", "phone number", "telephone", "mobile", "mobile number", "fax", "fax number"),
    ),
    (
        "user.contact.address",
        (
            *(
                "street",
                "street number",
                "house number",
                "address",
                "address line",
                "postcode",
                "postal code",
                "zip",
                "zip code",
            ),
            *("zipcode", "city"),
        ),
    ),
    ("user.contact.address.country", ("country", "country code", "region")),
    ("user.name", ("surname", "firstname", "lastname", "fullname", "username", "nickname")),
    ("user.demographic.language", ("lang", "language", "language code", "locale")),
    (
        "user.demographic.date_of_birth",
        ("birth", "birth date", "birthdate", "birthday", "date of birth", "born", "born on", "dob"),
    ),
    ("user.demographic.gender", ("gender", "sex")),
    ("user.device.ip_address", ("ip", "ip address", "ip addr")),
    ("user.device", ("user agent", "useragent", "device", "browser", "os version")),
    ("user.location", ("lat", "latitude", "lon", "lng", "longitude", "location")),
    ("user.payment", ("iban", "card", "card number", "account number", "payment")),
    (
        "user.financial",
        (
            "amount",
            "price",
            "net",
            "gross",
            "currency",
            "currency code",
            "credit",
            "balance",
            "cent",
            "vat",
            "vat number",
        ),
    ),
    ("user.privacy_preferences", ("consent", "opt in", "opt out", "granted")),
    ("user.behavior", ("score", "segment", "predicted", "inferred")),
    (
        "user.content",
        (
            *(
                "prompt",
                "body",
                "content",
                "message",
                "text",
                "title",
                "subject",
                "comment",
                "note",
                "attachment",
                "bio",
            ),
            *("biography",),
        ),
    ),
    (OPERATIONS, ("created", "updated", "version", "ordinal", "state", "status", "kind", "type", "id", "uuid")),
)
"""Words, and words side by side, that say what a column holds; a longer phrase wins over its parts."""

NAMED: Final = frozenset(
    {
        *(
            "first",
            "last",
            "full",
            "family",
            "given",
            "middle",
            "maiden",
            "legal",
            "display",
            "nick",
            "billing",
            "shipping",
        ),
        *("sender", "recipient", "author", "holder", "cardholder", *PEOPLE),
    }
)
"""Words before `name` that make it a person's; a table, a file or a host has a name too."""

TIME_WORDS: Final = frozenset({"at", "on"})
"""Last words of a time: whatever stands before, the column says when."""

CONTACTS: Final = {
    "user.contact.email": "address",
    "user.name": "name",
    "user.demographic.language": "language",
}


NUMBERS: Final = frozenset({"smallint", "integer", "bigint", "numeric", "real", "double precision"})
TIMES: Final = AGE_TYPES | {"time without time zone", "time with time zone", "interval"}
_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+")


@dataclass(frozen=True)
class Draft:
    """The YAML text, and how many places a person still has to decide."""

    text: str
    reviews: int


def draft_dataset(
    live: LiveSchema, *, store: str, connection: str, schema: str, policy: Policy | None = None, root: str | None = None
) -> Draft:
    """Write a dataset file for what a live schema has; ``root`` is the table of people, guessed without it.

    Deterministic; the text is a valid Fides dataset.
    """
    text = "\n".join(_Drafting(live.only(schema), store, policy, root).lines(connection, schema)) + "\n"
    return Draft(text, len(re.findall(rf"\b{REVIEW}\b", re.sub(r"(?m)^#.*$", "", text))))


class _Drafting:
    """One pass over the live schema."""

    def __init__(self, live: LiveSchema, store: str, policy: Policy | None, root: str | None) -> None:
        self.live = live
        self.store = store
        self.policy = policy
        self.root = root or _guess_root(live)
        key = live.tables[self.root].key if self.root else ()
        self.identity = key[0] if len(key) == 1 else ""
        self.reached = self._reached()
        self.rivals = () if root else tuple(name for name in _named_like_people(live) if name not in self.reached)

    def lines(self, connection: str, schema: str) -> Iterator[str]:
        yield f"# Drafted from a live schema. Decide every {REVIEW}, then run `habeas datamap check`;"
        yield "# what the keys mean stands in docs/data-map.md."
        if self.rivals:
            yield f"# Joins lead to {self.root}; for {' or '.join(self.rivals)} draft again with --root TABLE. Then write the root."
        if not self.root:
            yield "# No table of people was found: write its name as the root, or `root: none` if another store has it."
        yield "dataset:"
        yield f"  - fides_key: {_flow(self.store)}"
        notes = {
            "store": self.store,
            "connection": connection,
            "schema": schema,
            "root": REVIEW if self.rivals or not self.root else self.root,
        }
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
        telling = self._telling()
        reached = {
            name for name, table in self.live.tables.items() if name == self.root or telling & set(table.columns)
        }
        grown = True
        while grown:
            more = {key.table for key in self.live.foreign_keys if key.to_table in reached} - reached
            reached |= more
            grown = bool(more)
        return frozenset(reached)

    def _telling(self) -> set[str]:
        """Names of columns that hold the account id, whether or not a foreign key says so."""
        return {IDENTITY, f"{self.root.removesuffix('s')}_id"} if self.root else {IDENTITY}

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
        telling = self._telling()
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
        """The policy's category that fits most columns; nothing is sure without a policy, nor where two fit equally many."""
        if self.policy is None:
            return REVIEW
        votes: dict[str, int] = {}
        for column in table.columns.values():
            guess = self._guess(table, column)
            if guess and not guess.startswith("system"):
                for name in self._fitting(guess):
                    votes[name] = votes.get(name, 0) + 1
        most = [name for name in votes if votes[name] == max(votes.values())]
        return most[0] if len(most) == 1 else REVIEW

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
        guess = self._guess(table, column)
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
        if guess == SECRET or (guess is None and _may_be_secret(column)):
            notes["export"] = "never"
        if table.name == self.root and guess in CONTACTS and self._first_of(table, guess) == column.name:
            notes["contact"] = CONTACTS[guess]
        return notes

    def _guess(self, table: LiveTable, column: LiveColumn) -> str | None:
        """The one category that name and type of a column speak for; None where there is a doubt."""
        words = _words(column.name)
        if words == ["name"] and (table.name == self.root or _is_people(table.name)):
            guess: str | None = "user.name"
        elif len(words) > 1 and words[-1] in TIME_WORDS and words != ["born", "on"]:
            guess = OPERATIONS
        else:
            matched = _matched(words)
            guess = next(iter(matched)) if len(matched) == 1 else None
        return guess if guess is not None and _may_hold(column.type, guess) else None

    def _first_of(self, table: LiveTable, guess: str) -> str:
        return next(column.name for column in table.columns.values() if self._guess(table, column) == guess)


def _guess_root(live: LiveSchema) -> str:
    """The table that most others refer to among those named like people; empty when there is none."""
    named = _named_like_people(live)
    referred = [key.to_table for key in live.foreign_keys]
    return max(named, key=lambda name: (referred.count(name), -named.index(name))) if named else ""


def _named_like_people(live: LiveSchema) -> list[str]:
    """Tables that a single word for people names, and that have a key; the likeliest word first."""
    tables = [name for name, table in live.tables.items() if table.key]
    return [name for word in PEOPLE for name in tables if name.lower() in {word, f"{word}s"}]


def _is_people(table: str) -> bool:
    return any({word, word.removesuffix("s")} & set(PEOPLE) for word in _words(table)[-1:])


def _words(name: str) -> list[str]:
    """Words of a name in snake_case or camelCase, in small letters and without numbers."""
    return [word.lower() for word in _WORDS.findall(name)]


def _matched(words: Sequence[str]) -> set[str | None]:
    """Every category that a word or phrase of the name speaks for; None among them where the last word speaks for none."""
    found: set[str | None] = set()
    at = 0
    while at < len(words):
        length, category = _longest(words[at:])
        if category is not None:
            found.add(category)
        elif at + length == len(words):
            found.add(None)
        at += length
    return found


def _longest(words: Sequence[str]) -> tuple[int, str | None]:
    """How many words the longest phrase at the beginning has, and its category; one word without a category when there is none."""
    for length in range(min(len(words), _PHRASE_WORDS_MAX), 0, -1):
        *before, last = words[:length]
        if last == "name" and len(before) == 1 and before[0] in NAMED:
            return length, "user.name"
        for form in (last, last.removesuffix("s")):
            category = _PHRASES.get(" ".join((*before, form)))
            if category is not None:
                return length, category
    return 1, None


_PHRASES: Final = {phrase: category for category, phrases in GUESSES for phrase in phrases}
_PHRASE_WORDS_MAX: Final = max(len(phrase.split()) for phrase in _PHRASES)


def _may_hold(kind: str, guess: str) -> bool:
    """Whether a column of this type can hold what its name says: a switch or a time named after an address does not hold one."""
    if kind == "boolean":
        return guess == "user.privacy_preferences"
    if kind in TIMES:
        return guess in {OPERATIONS, "user.demographic.date_of_birth", "user.privacy_preferences"}
    if kind in NUMBERS:
        return guess not in {SECRET, *CONTACTS}
    return True


def _may_be_secret(column: LiveColumn) -> bool:
    """Whether a doubtful column had better not be exported before somebody has looked."""
    is_text = column.type != "boolean" and column.type not in TIMES | NUMBERS
    return is_text and any(_PHRASES.get(word.removesuffix("s")) == SECRET for word in _words(column.name))


def _flow(value: object) -> str:
    """One line of YAML; words that another reader could take for something else are quoted by the library."""
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    return text.removesuffix("\n...\n").removesuffix("\n")
