"""The smallest form of a case: tables, rows and people without which it still goes wrong are left out."""

from collections.abc import Awaitable, Callable, Iterator
from copy import deepcopy
from dataclasses import replace

from tests.property.datamap.model import Document
from tests.property.datamap.rows import broken
from tests.property.datamap.trial import Case


async def shrunk(case: Case, fails: Callable[[Case], Awaitable[bool]]) -> Case:
    """Leave out whatever can be left out, one thing at a time."""
    shrinking = True
    while shrinking:
        shrinking = False
        for smaller in _smaller(case):
            if await _still(smaller, fails):
                case, shrinking = smaller, True
                break
    return case


async def _still(case: Case, fails: Callable[[Case], Awaitable[bool]]) -> bool:
    try:
        return not list(broken(case.schema, case.content)) and await fails(case)
    except Exception:  # noqa: BLE001 -- a form that makes no sense is none
        return False


def _smaller(case: Case) -> Iterator[Case]:
    for table in reversed(case.schema.tables):
        if table != case.schema.root:
            yield _without_table(case, table)
    for table, rows in case.content.items():
        if rows and table != case.schema.root:
            yield replace(case, content={**case.content, table: []})
    if len(case.people) > 1:
        for person in case.people:
            yield replace(case, people=tuple(each for each in case.people if each != person))
    for table, rows in case.content.items():
        for at in range(len(rows)):
            yield replace(case, content={**case.content, table: [*rows[:at], *rows[at + 1 :]]})
    for table in case.schema.tables:
        for column in list(case.schema.tables[table].columns):
            yield from _without_column(case, table, column)


def _without_table(case: Case, name: str) -> Case:
    schema = replace(
        case.schema,
        tables={each: table for each, table in case.schema.tables.items() if each != name},
        references=[each for each in case.schema.references if name not in {each.table, each.to_table}],
    )
    content = {each: rows for each, rows in case.content.items() if each != name}
    gone = case.schema.tables[name]
    document = deepcopy(case.document)
    for dataset in document["dataset"]:
        if dataset["habeas"]["schema"] == gone.schema:
            dataset["collections"] = [each for each in dataset["collections"] if each["name"] != gone.bare]
    document["dataset"] = [each for each in document["dataset"] if each["collections"]]
    for collection in _collections(document):
        _forget(collection, gone.bare)
    return replace(case, schema=schema, content=content, document=document)


def _forget(collection: Document, bare: str) -> None:
    """Leave out references and links to a table that is gone."""
    for field in collection["fields"]:
        meta = field.get("fides_meta") or {}
        if "references" in meta:
            meta["references"] = [each for each in meta["references"] if each["field"].split(".")[0] != bare]
            if not meta["references"]:
                del meta["references"]
                (field.get("habeas") or {}).pop("when_parent_goes", None)
                (field.get("habeas") or {}).pop("reference", None)


def _without_column(case: Case, table: str, column: str) -> Iterator[Case]:
    """Leave out a column that nothing needs."""
    named = {each for reference in case.schema.references for each in (*reference.columns, *reference.to_columns)}
    found = case.schema.tables[table]
    needed = {*found.key, *(each for way in found.ways for each in way.columns), *named}
    if column in needed or column in {case.schema.identity, "created_at", "email", "owner_type"}:
        return
    thinner = deepcopy(found)
    del thinner.columns[column]
    schema = replace(case.schema, tables={**case.schema.tables, table: thinner})
    rows = [{name: value for name, value in row.items() if name != column} for row in case.content[table]]
    document = deepcopy(case.document)
    for collection in _collections(document):
        if collection["name"] == found.bare:
            if column in str(collection["habeas"]):
                return
            collection["fields"] = [each for each in collection["fields"] if each["name"] != column]
    yield replace(case, schema=schema, content={**case.content, table: rows}, document=document)


def _collections(document: Document) -> Iterator[Document]:
    for dataset in document["dataset"]:
        yield from dataset["collections"]
