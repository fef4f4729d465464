"""Schemas that nobody here designed: drafted, annotated, and five of fifty people erased and shown their data."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any

import pytest

from habeas.datamap.errors import SchemaMismatch, StoreError
from habeas.datamap.map.loading import load_datamap
from habeas.datamap.policy.model import load_policy
from habeas.datamap.postgres import PostgresStore, StoreOptions
from habeas.datamap.source import ConfigurationError
from tests.schemas.applications import NAMES, POLICY, edits
from tests.schemas.conftest import Filled
from tests.schemas.filling import Person, read_shapes
from tests.schemas.judging import Judge

ERASED = (3, 11, 17, 29, 42)
"""Which of the fifty."""


@pytest.mark.parametrize("filled", NAMES, indirect=True)
async def test_five_of_fifty_people_go(filled: Filled, request: pytest.FixtureRequest) -> None:
    """Exports show each of them what is theirs, the erasure leaves nothing of them and everything of the others, to the byte."""
    rules = filled.application.rules("judge.toml")
    drafted = filled.application.drafted(filled.dsn)
    draft = filled.application.folder / "draft.yaml"
    if request.config.getoption("--write-drafts"):
        draft.write_text(drafted, encoding="utf-8")
    findings = await judged(filled, rules)
    tables = len(await read_shapes(filled.connection))
    print(  # noqa: T201 -- a campaign says what it saw
        f"\n{filled.application.settings['title']}: {tables} tables,"
        f" {edits(draft.read_text(encoding='utf-8'), filled.application.map.read_text(encoding='utf-8'))} edits,"
        f" {len(findings)} findings"
    )
    for each in findings:
        print(f"  {each}")  # noqa: T201 -- the same
    assert draft.read_text(encoding="utf-8") == drafted, "the draft is another one than committed: ARGS=--write-drafts"
    assert findings == list(rules.get("known", ()))


async def judged(filled: Filled, rules: Mapping[str, Any]) -> Sequence[str]:
    """Everything that is not as the hand-written rules have it; what the check refuses goes no further."""
    policy = load_policy(POLICY)
    try:
        store_map = load_datamap(filled.application.map, policy).store("platform")
    except ConfigurationError as error:
        return [f"map: {problem.what}" for problem in error.problems]
    ids = [filled.ids[number] for number in ERASED]
    judge = Judge(filled.connection, filled.application.root, rules)
    options = StoreOptions(connections_max=2, lock_timeout_s=60.0)
    async with PostgresStore(store_map, policy, filled.dsn, options) as store:
        try:
            await store.check()
        except SchemaMismatch as error:
            return [f"check: {problem.what}" for problem in error.problems]
        wrong = [each for account_id in ids for each in await _wrongly_shown(store, judge, account_id)]
        found = sorted(set(wrong))
        await judge.begin(ids)
        try:
            await store.erase(ids)
        except StoreError as error:
            return [*found, f"erasure: {error}"]
        found += await judge.findings(Person(number) for number in ERASED)
        await judge.look_again()
        await store.erase(ids)
        return [*found, *await judge.unchanged()]


async def _wrongly_shown(store: PostgresStore, judge: Judge, account_id: str) -> list[str]:
    """Tables of which an export shows more or fewer rows than the person has there."""
    wanted = await judge.shown(account_id)
    schema = judge.root.partition(".")[0]
    shown: Counter[str] = Counter()
    async with aclosing(store.export([account_id])) as pieces:
        async for piece in pieces:
            named = piece.source.table if "." in piece.source.table else f"{schema}.{piece.source.table}"
            shown[named.removeprefix("public.")] += len(piece.rows)
    return [
        f"export: {table}: {'rows of others are' if shown[table] > wanted.get(table, 0) else 'not all rows are'} shown"
        for table in {*wanted, *shown}
        if shown[table] != wanted.get(table, 0)
    ]
