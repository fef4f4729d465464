from pathlib import Path

import pytest

from audit_ledger import store, sweeps
from audit_ledger.lifecycle import tell_resumed
from habeas.contracts.audit import Producer, encode_entry, encode_fact
from habeas_embedded.provision import Access
from tests.integration.audit_ledger.conftest import Ledger, Topic, root_of_rfc, start_ledger
from tests.support.audit_log import FACTS, START

TAIL = encode_fact(FACTS[0], START)
INTAKE, LEDGER = Producer.REQUEST_INTAKE, Producer.AUDIT_LEDGER


def resume(topic: Topic, offset: int) -> bytes:
    """Send the ledger's word to resume, as its relay does."""
    return topic.send(topic.producers.entry(LEDGER, encode_fact(tell_resumed(offset), START)))[0]


async def test_resume_is_put_into_the_log_once_for_each_time_it_is_asked(ledger: Ledger) -> None:
    """What a person allows goes through the ledger's own outbox into the topic; asking about a producer that goes on does nothing."""
    topic = Topic()
    topic.grow(6)
    topic.send(encode_entry(INTAKE, 1, 9, "ab" * 32, TAIL))
    await ledger.follow(topic)
    async with ledger.db.transaction("ask") as tx:
        assert await store.ask_resume(tx, INTAKE)
        assert not await store.ask_resume(tx, LEDGER)
    assert (await sweeps.resume_producers(ledger.db)).handled == 1
    assert (await sweeps.resume_producers(ledger.db)).handled == 0
    assert (await ledger.facts())[1:] == ["action=producer.resumed request=- subject=- outcome=- count=6 commitments=-"]
    assert list(await ledger.halted()) == ["request-intake"]  # until the entry comes back by the topic


@pytest.mark.parametrize("batch", [1, 3, 5_000])
async def test_gap_is_mended_by_sending_again(ledger: Ledger, batch: int) -> None:
    """After the missing entry was sent, a resume takes everything that was held, in the producer's order, before what follows."""
    topic = Topic()
    good = topic.grow(6)
    missing = topic.producers.entry(INTAKE, TAIL)
    late = topic.send(topic.producers.entry(INTAKE, TAIL), topic.producers.entry(INTAKE, TAIL))
    topic.send(missing)
    word = resume(topic, 6)
    after = topic.send(topic.producers.entry(INTAKE, TAIL))
    after += topic.grow(6)
    await ledger.follow(topic, batch)
    expected = [*good, word, missing, *late, *after]
    assert await ledger.lines() == expected
    assert (await ledger.head())[1] == root_of_rfc(expected)
    assert await ledger.halted() == {}
    await ledger.publish()
    assert ledger.passes()


async def test_equivocation_stays_refused(ledger: Ledger) -> None:
    """A resume after an equivocation takes the entries that continue the log's history; the other history stays aside."""
    topic = Topic()
    good = topic.grow(6)
    topic.send(encode_entry(INTAKE, 1, 1, "ab" * 32, TAIL))
    held = topic.send(topic.producers.entry(INTAKE, TAIL))
    word = resume(topic, 6)
    await ledger.follow(topic)
    assert await ledger.lines() == [*good, word, *held]
    assert await ledger.halted() == {}
    assert await ledger.refused() == [(6, "request-intake", "equivocation"), (7, "request-intake", None)]


async def test_resume_for_something_else_resumes_nobody(ledger: Ledger) -> None:
    """A word to resume counts for the halt that it names by its offset, and for no other."""
    topic = Topic()
    topic.grow(6)
    topic.send(encode_entry(INTAKE, 1, 9, "ab" * 32, TAIL))
    resume(topic, 5)
    await ledger.follow(topic)
    assert list(await ledger.halted()) == ["request-intake"]


async def test_producer_that_still_does_not_fit_is_halted_again(ledger: Ledger) -> None:
    """A resume without the missing entry changes nothing for long: the next record halts the producer at its own offset."""
    topic = Topic()
    topic.grow(6)
    topic.producers.entry(INTAKE, TAIL)
    topic.send(topic.producers.entry(INTAKE, TAIL))
    resume(topic, 6)
    topic.send(topic.producers.entry(INTAKE, TAIL))
    await ledger.follow(topic)
    assert await ledger.halted() == {"request-intake": ("gap", 8, 2, 4)}
    assert len(await ledger.told("producer.halted")) == 2


async def test_ledger_itself_is_resumed(ledger: Ledger) -> None:
    """The ledger's own entries may not fit either: its word to resume counts although it cannot be taken yet."""
    topic = Topic()
    good = topic.grow(6)
    missing = topic.producers.entry(LEDGER, TAIL)
    late = topic.send(topic.producers.entry(LEDGER, TAIL))
    topic.send(missing)
    word = resume(topic, 6)
    await ledger.follow(topic)
    assert await ledger.lines() == [*good, missing, *late, word]
    assert await ledger.halted() == {}


async def test_rebuilt_log_has_the_resumes_where_they_were(
    database: Access, empty_ledger: Access, tmp_path: Path
) -> None:
    """A database that is lost entirely comes to the same log from the topic alone, halts and resumes included, and tells nobody twice."""
    topic = Topic()
    topic.grow(6)
    missing = topic.producers.entry(INTAKE, TAIL)
    topic.send(topic.producers.entry(INTAKE, TAIL))
    topic.grow(40)
    topic.send(missing)
    topic.grow(7)
    resume(topic, 6)
    topic.grow(30)
    async with start_ledger(database, tmp_path / "log") as first:
        await first.follow(topic, 5)
        await first.publish()
        lines = await first.lines()
    async with start_ledger(empty_ledger, tmp_path / "log") as second:
        await second.follow(topic, 9)
        await second.publish()
        assert await second.lines() == lines
        assert await second.told("producer.halted") == []
        assert second.passes()
