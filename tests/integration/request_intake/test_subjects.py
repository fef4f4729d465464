"""Whose request it is: a person who was erased comes back as somebody new, however soon."""

import asyncpg
import pytest

from habeas.chassis.database import Transaction
from habeas.sealing import KeyKind
from request_intake import store
from tests.integration.request_intake.conftest import Counter


async def test_requests_of_one_person_have_one_subject(counter: Counter) -> None:
    """The same account is the same subject, another one is another."""
    first = await counter.submit("acc_1")
    assert await counter.submit("acc_1") == first
    assert await counter.submit("acc_2") != first


async def test_who_was_erased_a_moment_ago_is_somebody_new(counter: Counter) -> None:
    """A request between the destruction of the key and its news makes a new subject; the destroyed key is never made again.

    Made again, it would be another key under the same name: what is under way for the person would not open any more.
    """
    first = await counter.submit("acc_1")
    await counter.destroy(first)
    second = await counter.submit("acc_1")
    assert second != first
    assert await counter.keyed(first) == {KeyKind.CASE}
    assert await counter.keyed(second) == {KeyKind.DATA, KeyKind.CASE}
    assert await counter.submit("acc_1") == second


async def test_a_subject_that_another_replica_closes_meanwhile_is_followed_by_a_new_one(
    counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between looking for an open subject and locking it, the news of its erasure may be handled by the other replica."""
    first = await counter.submit("acc_1")
    fetch = Transaction.fetch

    async def meanwhile(tx: Transaction, sql: str, *args: object) -> list[asyncpg.Record]:
        if sql == store._FIND_SUBJECTS:
            monkeypatch.undo()
            async with counter.db.transaction("test-close") as other:
                await store.close_subjects(other, [first])
        return await fetch(tx, sql, *args)

    monkeypatch.setattr(Transaction, "fetch", meanwhile)
    assert await counter.submit("acc_1") != first
