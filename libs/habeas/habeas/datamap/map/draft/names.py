"""What a column holds, by the whole words of its name and by its type; nothing is said where there is a doubt."""

import re
from collections.abc import Sequence
from typing import Final

from habeas.datamap.catalogue.schema import LiveColumn, LiveTable

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
                "credential",
                "otp",
                "totp",
                "salt",
                "sealed",
            ),
            *("api key", "apikey", "private key", "password hash", "pwd hash"),
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
    (
        "user.device",
        ("user agent", "useragent", "device", "browser", "os version", "agent type", "os type", "device type"),
    ),
    ("user.location", ("lat", "latitude", "lon", "lng", "longitude")),
    ("user.payment", ("iban", "bic", "card", "card number", "account number", "payment")),
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

PLACES: Final = frozenset(
    {
        "affiliation",
        "branch",
        "building",
        "event",
        "location",
        "office",
        "partner",
        "place",
        "room",
        "shop",
        "site",
        "store",
        "venue",
    }
)
"""Last words of tables whose addresses are those of places."""

UNDOING: Final = frozenset({"base", "count", "days", "limit", "num", "search", "template", "ttl"})
"""Words that make another thing of what the rest of a name says."""

SENDING: Final = frozenset({"bcc", "cc", "from", "mail", "recipient", "reply", "return", "sender", "to"})
"""Words before `address` that make it no postal one."""

_HINTS: Final = frozenset({"hash", "key"})
"""Words of secrets, and of much else."""

CONTACTS: Final = {
    "user.contact.email": "address",
    "user.name": "name",
    "user.demographic.language": "language",
}


NUMBERS: Final = frozenset({"smallint", "integer", "bigint", "numeric", "real", "double precision"})
TIMES: Final = frozenset(
    {"timestamp with time zone", "timestamp without time zone", "date"}
    | {"time without time zone", "time with time zone", "interval"}
)
_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+")


def guess(table: LiveTable, column: LiveColumn, *, is_root: bool = False) -> str | None:
    """Return the one category that name and type of a column speak for; None where there is a doubt."""
    words = words_of(column.name)
    if words == ["name"] and (is_root or is_people(table.relation)):
        found: str | None = "user.name"
    elif words == ["state"] and is_text(column) and _has_address(table):
        found = "user.contact.address"
    elif len(words) > 1 and words[-1] in TIME_WORDS and words != ["born", "on"]:
        found = OPERATIONS
    elif _says_another_thing(words):
        found = None
    else:
        matched = _matched(words)
        found = next(iter(matched)) if len(matched) == 1 else None
    if found in _PLACED and _singular(words_of(table.relation)[-1:]) in PLACES:
        found = None
    return found if found is not None and _may_hold(column.type, found) else None


def may_be_secret(column: LiveColumn) -> bool:
    """Whether a doubtful column had better not be exported before somebody has looked."""
    words = {word.removesuffix("s") for word in words_of(column.name)}
    return is_text(column) and any(word in _HINTS or _PHRASES.get(word) == SECRET for word in words)


def is_text(column: LiveColumn) -> bool:
    """Whether a column may hold any text, or bytes or a document."""
    return column.type != "boolean" and column.type not in TIMES | NUMBERS


_PLACED: Final = frozenset({"user.contact.address", "user.contact.address.country", "user.location"})


def _singular(words: Sequence[str]) -> str:
    return words[0].removesuffix("s") if words else ""


def _has_address(table: LiveTable) -> bool:
    """Whether a state is a region here, since an address stands beside it."""
    return any(
        not {"postcode", "zip", "zipcode", "street", "city", "line"}.isdisjoint(words_of(name))
        for name in table.columns
    )


def _says_another_thing(words: Sequence[str]) -> bool:
    """Whether a word takes away what the others say: the id of a row, a display name of a thing, an address that mail goes to."""
    if not UNDOING.isdisjoint(words) or (len(words) > 1 and words[-1] in {"id", "ids"}):
        return True
    if words[-1:] == ["address"] and not SENDING.isdisjoint(words[:-1]):
        return True
    before = words[:-2] if words[-2:] in (["display", "name"], ["legal", "name"]) else []
    return not NAMED.issuperset(before) and before[-1:] != ["owner"]


def is_people(table: str) -> bool:
    """Whether the last word of a table's name is one for people."""
    return any({word, word.removesuffix("s")} & set(PEOPLE) for word in words_of(table)[-1:])


def words_of(name: str) -> list[str]:
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
        return guess not in {SECRET, *CONTACTS, "user.contact.address"}
    return True
