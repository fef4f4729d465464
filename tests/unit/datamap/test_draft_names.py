"""What names of columns say, against what somebody who looked at the data says they hold."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from habeas.datamap.catalogue.schema import LiveColumn, LiveTable
from habeas.datamap.map.draft.names import OPERATIONS, SECRET, guess, may_be_secret

NAMES: Final = Path(__file__).parent / "column_names.txt"

RIGHT: Final[dict[str, set[str]]] = {
    "secret": {SECRET},
    "not a secret, named like one": {SECRET, OPERATIONS},
    "person id": {"user.unique_id"},
    "id of a thing": {OPERATIONS},
    "id of a row about a person (not the person)": {OPERATIONS},
    "e-mail address": {"user.contact.email"},
    "phone number": {"user.contact.phone_number"},
    "postal address": {"user.contact.address", "user.contact.address.country"},
    "name or address of a thing or place": {OPERATIONS},
    "free text by or about a person": {"user.content"},
    "document that may name people": {"user.content"},
    "state, kind or switch": {OPERATIONS, "user.privacy_preferences"},
    "when a person did something": {OPERATIONS, "user.behavior"},
    "name of a person": {"user.name"},
    "login name": {"user.name"},
    "payment instrument": {"user.payment", "user.financial"},
    "money": {"user.financial"},
    "money of nobody": {OPERATIONS},
    "picture of a person": set(),
    "language or time zone of a person": {"user.demographic.language"},
    "network address": {"user.device.ip_address"},
    "device": {"user.device"},
    "affiliation or company": set(),
    "gender": {"user.demographic.gender"},
    "date of birth": {"user.demographic.date_of_birth"},
}
"""Categories of Fides that are right for each kind. A secret too many is kept out of exports, which is the safe side."""

KEYS: Final = frozenset({"htx_user.id", "auth.id"})
"""Primary keys; that they are a person's id is known by the root and by foreign keys, not by the name."""


def _listed() -> Iterator[tuple[str, str, str, str]]:
    """Table, column, type and kind of each line; parted by two spaces or more."""
    for line in NAMES.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, kind, what = re.split(" {2,}", line.strip(), maxsplit=2)
            table, _, column = name.rpartition(".")
            yield table, column, kind, what


def _tables() -> dict[str, LiveTable]:
    columns: defaultdict[str, dict[str, LiveColumn]] = defaultdict(dict)
    for table, column, kind, _ in _listed():
        columns[table][column] = LiveColumn(column, kind)
    return {name: LiveTable(name, found, relation=name.rpartition(".")[2]) for name, found in columns.items()}


TABLES: Final = _tables()


@pytest.mark.parametrize(("table", "column", "what"), [(table, column, what) for table, column, _, what in _listed()])
def test_a_name_says_what_is_right_or_nothing(table: str, column: str, what: str) -> None:
    """Columns of six applications: no guess is wrong; where a name does not tell, nothing is guessed."""
    if f"{table}.{column}" in KEYS:
        return
    found = guess(TABLES[table], TABLES[table].columns[column])
    assert found in {None, *RIGHT[what]}


def test_every_kind_has_a_right_answer() -> None:
    """No line of the file is left out for want of an answer."""
    assert {what for *_, what in _listed()} <= set(RIGHT)


def test_names_still_say_something() -> None:
    """Saying nothing is never wrong, so how much is said is counted too: e-mail, phone, names of people, texts, secrets."""
    plain = {
        "e-mail address",
        "phone number",
        "name of a person",
        "postal address",
        "secret",
        "network address",
        "login name",
    }
    asked = [(TABLES[table], TABLES[table].columns[column]) for table, column, _, what in _listed() if what in plain]
    told = [guess(table, column) or may_be_secret(column) for table, column in asked]
    assert sum(map(bool, told)) > len(told) * 0.6
