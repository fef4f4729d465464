import dataclasses
import datetime as dt
from typing import Any
from uuid import UUID

import pytest

from habeas.contracts.vocabulary import Right
from habeas_demo.checks import Held
from habeas_demo.exports import Opened, check_exports
from habeas_demo.looks import LOOKS
from habeas_demo.people import make_person, person_rng
from habeas_demo.scenario import Asked

NOW = dt.datetime(2026, 11, 24, 9, 12, tzinfo=dt.UTC)
PERSON = make_person(7, 0, NOW, person_rng(7, 0))
REQUESTS = {
    right: Asked(UUID(int=number), right, PERSON) for number, right in enumerate((Right.ACCESS, Right.PORTABILITY))
}
HELD = {PERSON.account_id: {**dict.fromkeys(LOOKS, Held(2, 2)), "accounts": Held(1, 1), "execution_logs": Held(20, 12)}}
INFORMATION: dict[str, Any] = {
    "purposes": list(range(8)),
    "categories": dict.fromkeys(range(9)),
    "recipients": [{"country": "US", "safeguard": "scc"}] * 3 + [{"country": "DE"}] * 2,
    "retention": dict.fromkeys(["execution", "task_content", "account", "invoices"]),
    "rights": list(range(7)),
    "complaint": {"authority": "somebody"},
    "automated_decisions": [],
}


def export(right: Right, **changed: list[dict[str, Any]] | None) -> Opened:
    """An export as it should be, apart from the tables named."""
    tables: dict[str, list[dict[str, Any]]] = {table: [{}, {}] for table in LOOKS}
    tables["accounts"] = [{"id": PERSON.account_id}]
    tables["execution_logs"] = [{"account_id": PERSON.account_id}] * 15
    if right is Right.PORTABILITY:
        del tables["quality_scores"], tables["provider_keys"]
    for table, rows in changed.items():
        tables.pop(table, None)
        if rows is not None:
            tables[table] = rows
    return Opened(tables, {table: len(rows) for table, rows in tables.items()}, INFORMATION)


def failed(right: Right, opened: Opened | None) -> set[str]:
    """What is not as it should be about one right's only export."""
    asked = REQUESTS[right]
    checks = check_exports([asked], {asked.request_id: opened} if opened else {}, HELD)
    return {
        check.name.removeprefix(f"exports · {right.value} ")
        for check in checks
        if not check.passed and right.value in check.name
    }


@pytest.mark.parametrize("right", REQUESTS)
def test_a_whole_export_passes(right: Right) -> None:
    """All rows, or all that retention had to leave, of all tables that the right reaches."""
    assert failed(right, export(right)) == set()
    assert failed(right, export(right, execution_logs=[{}] * 12)) == set()
    assert failed(right, export(right, execution_logs=[{}] * 20)) == set()


@pytest.mark.parametrize("right", REQUESTS)
@pytest.mark.parametrize("table", sorted(set(LOOKS) - {"quality_scores", "provider_keys", "accounts"}))
def test_a_missing_row_or_table_is_seen(right: Right, table: str) -> None:
    """One row less than had to stay, one more than there was, or no table at all, is found."""
    held = HELD[PERSON.account_id][table]
    wrong: list[list[dict[str, Any]] | None] = [[{}] * (held.staying - 1), [{}] * (held.all + 1), None]
    for rows in wrong:
        assert failed(right, export(right, **{table: rows})) == {"holds every row"}


def test_derived_data_is_not_portable() -> None:
    """A score or a provider key in a portability export is wrong; missing in an access export, too."""
    assert failed(Right.PORTABILITY, export(Right.PORTABILITY, quality_scores=[{}, {}])) == {"holds every row"}
    assert failed(Right.PORTABILITY, export(Right.PORTABILITY, provider_keys=[{}, {}])) == {"holds every row"}
    assert failed(Right.ACCESS, export(Right.ACCESS, quality_scores=None)) == {"holds every row"}


def test_both_forms_hold_the_same() -> None:
    """A CSV with fewer rows than the JSON is found."""
    whole = export(Right.ACCESS)
    assert failed(Right.ACCESS, dataclasses.replace(whole, csv_rows={**whole.csv_rows, "tasks": 1})) == {
        "holds every row"
    }


def test_other_peoples_rows_are_seen() -> None:
    """A row that names another account is found."""
    assert failed(Right.ACCESS, export(Right.ACCESS, sessions=[{"account_id": "acc_OTHER"}] * 2)) == {
        "holds nobody else's rows"
    }
    assert failed(Right.ACCESS, export(Right.ACCESS, accounts=[{"id": "acc_OTHER"}])) == {"holds nobody else's rows"}


@pytest.mark.parametrize("column", ["sealed", "hash", "token_hash"])
def test_secrets_are_seen(column: str) -> None:
    """A secret column is found, whatever its value."""
    assert failed(Right.ACCESS, export(Right.ACCESS, provider_keys=[{column: None}, {}])) == {"shows no secret"}


@pytest.mark.parametrize("part", sorted(INFORMATION))
def test_an_access_reply_without_information_is_seen(part: str) -> None:
    """Each part that Art. 15 demands is missed when it is not there."""
    told = {name: value for name, value in INFORMATION.items() if name != part}
    whole = dataclasses.replace(export(Right.ACCESS), information=told)
    assert failed(Right.ACCESS, whole) == {"tells purposes, recipients and rights"}


def test_an_export_that_does_not_open_is_seen() -> None:
    """No export is not an empty export: nothing about it passes."""
    assert "opens" in failed(Right.ACCESS, None)
    assert len(failed(Right.ACCESS, None)) == 5
