"""Records on the audit topic that claim to be a producer's and are not: nobody's entries wait for them, and all of them are told."""

from collections.abc import Callable
from pathlib import Path

import pytest

from audit_ledger import store, sweeps
from audit_ledger.lifecycle import tell_resumed
from habeas.contracts.audit import GENESIS, Producer, encode_entry, encode_fact
from habeas.contracts.envelope import Headers
from habeas.contracts.pledges import PLEDGE_HEADER, make_pledge
from habeas_embedded.provision import Access
from tests.integration.audit_ledger.conftest import FORGERS_KEY, Ledger, Topic, root_of_rfc, start_ledger
from tests.support.audit_log import FACTS, START

TAIL = encode_fact(FACTS[0], START)
INTAKE, LEDGER = Producer.REQUEST_INTAKE, Producer.AUDIT_LEDGER
SEED, FORGERS_SEED, NEW_SEED = b"s" * 32, b"f" * 32, b"n" * 32


def epoch_from_zeros(_: Topic) -> bytes:
    """A later epoch that names no entry before it."""
    return encode_entry(INTAKE, 2, 1, GENESIS, TAIL)


def epoch_linked(topic: Topic) -> bytes:
    """A later epoch that names the last entry."""
    return encode_entry(INTAKE, 2, 1, topic.producers.hashes[INTAKE], TAIL)


def next_entry(topic: Topic) -> bytes:
    """The very next entry, linked to the last one, told before the producer tells its own."""
    return encode_entry(INTAKE, 1, topic.producers.seqs[INTAKE] + 1, topic.producers.hashes[INTAKE], TAIL)


def entry_afar(_: Topic) -> bytes:
    """An entry that leaves a gap."""
    return encode_entry(INTAKE, 1, 999_999, "ab" * 32, TAIL)


def other_past(_: Topic) -> bytes:
    """Another entry at a place that is taken."""
    return encode_entry(INTAKE, 1, 1, GENESIS, encode_fact(FACTS[2], START))


def no_entry(_: Topic) -> bytes:
    """Bytes without grammar that name the producer."""
    return b"habeas-audit/1 producer=request-intake epoch=1 seq=999999 x"


FORGED: dict[Callable[[Topic], bytes], str] = {
    epoch_from_zeros: "unproven",
    epoch_linked: "unproven",
    next_entry: "unproven",
    entry_afar: "gap",
    other_past: "equivocation",
    no_entry: "bad_grammar",
}


def shown_nothing(_: Topic) -> Headers:
    """No header."""
    return []


def made_up(topic: Topic) -> Headers:
    """A pledge from a seed of the forger's."""
    return [(PLEDGE_HEADER, make_pledge(FORGERS_SEED, 1, topic.producers.seqs[INTAKE] + 1).encode())]


def shown_again(topic: Topic) -> Headers:
    """The header of the producer's last entry, which everybody has read."""
    name = INTAKE.encode()
    return [(PLEDGE_HEADER, make_pledge(SEED + name, 1, topic.producers.seqs[INTAKE]).encode())]


def without_form(_: Topic) -> Headers:
    """The header, with something else in it."""
    return [(PLEDGE_HEADER, b"x" * 129)]


CASES = [(make, shown_nothing) for make in FORGED] + [
    (make, headers) for make in (epoch_linked, next_entry) for headers in (made_up, shown_again, without_form)
]


@pytest.mark.parametrize("batch", [1, 5_000])
@pytest.mark.parametrize(("make", "headers"), CASES)
async def test_forged_record_keeps_no_entry_out_of_the_log(
    ledger: Ledger, make: Callable[[Topic], bytes], headers: Callable[[Topic], Headers], batch: int
) -> None:
    """Of the named producer every true entry is taken, the forged record is kept aside with its reason, and both turns are told."""
    topic = Topic(seed=SEED)
    good = topic.grow(18)  # three of each producer
    (wrong,) = topic.forge(make(topic), headers=headers(topic))
    later = topic.grow(12)
    await ledger.follow(topic, batch)
    assert await ledger.lines() == [*good, *later]
    assert await ledger.halted() == {}
    assert await ledger.refused() == [(18, "request-intake", FORGED[make])]
    assert await ledger.reader.fetchval("SELECT value FROM audit_ledger.refused") == wrong
    assert [each["reason"] for each in await ledger.told("producer.halted")] == [FORGED[make]]
    assert await ledger.facts() == [
        "action=producer.halted request=- subject=- outcome=- count=18 commitments=-",
        "action=producer.resumed request=- subject=- outcome=- count=18 commitments=-",
    ]
    await ledger.publish()
    assert ledger.passes()


async def test_forged_record_is_shown_until_the_producer_has_spoken(ledger: Ledger) -> None:
    """Until the producer's next entry shows that all is well, status and alert name the producer; others go on meanwhile."""
    topic = Topic(seed=SEED)
    good = topic.grow(6)
    topic.forge(next_entry(topic), entry_afar(topic))
    topic.producers.made = 7  # the others speak first
    later = topic.grow(4)
    await ledger.follow(topic)
    assert await ledger.lines() == [*good, *later]
    assert await ledger.halted() == {"request-intake": ("unproven", 6, 2, 2)}
    assert await ledger.refused() == [(6, "request-intake", "unproven"), (7, "request-intake", None)]


@pytest.mark.parametrize("batch", [1, 5_000])
async def test_forged_word_to_resume_resumes_nobody(ledger: Ledger, batch: int) -> None:
    """A halted producer is let go on by audit-ledger's own word alone, and audit-ledger's true entries go on after a false one."""
    topic = Topic(seed=SEED)
    good = topic.grow(6)
    topic.producers.entry(INTAKE, TAIL)  # lost on its way
    topic.send(topic.producers.entry(INTAKE, TAIL))
    word = encode_fact(tell_resumed(6), START)
    topic.forge(
        encode_entry(LEDGER, 1, 2, topic.producers.hashes[LEDGER], word),
        encode_entry(LEDGER, 1, 9, "ab" * 32, encode_fact(tell_resumed(7), START)),
        encode_entry(LEDGER, 2, 1, GENESIS, encode_fact(tell_resumed(7), START)),
    )
    true = topic.send(topic.producers.entry(LEDGER, TAIL))
    await ledger.follow(topic, batch)
    assert await ledger.lines() == [*good, *true]
    assert await ledger.halted() == {"request-intake": ("gap", 6, 2, 3)}


@pytest.mark.parametrize("batch", [1, 5_000])
async def test_lost_entries_that_are_sent_again_need_nobody(ledger: Ledger, batch: int) -> None:
    """After a gap the relay's lines come once more from the missing one on: the producer goes on with them by itself."""
    topic = Topic(seed=SEED)
    good = topic.grow(6)
    missing = topic.producers.entry(INTAKE, TAIL)
    late = topic.send(topic.producers.entry(INTAKE, TAIL), topic.producers.entry(INTAKE, TAIL))
    topic.send(missing, *late)
    after = topic.send(topic.producers.entry(INTAKE, TAIL))
    await ledger.follow(topic, batch)
    assert await ledger.lines() == [*good, missing, *late, *after]
    assert await ledger.halted() == {}


@pytest.mark.parametrize("batch", [1, 3, 5_000])
async def test_producer_that_lost_its_seed_goes_on_by_a_persons_word(ledger: Ledger, batch: int) -> None:
    """A database made anew has another seed: its entries wait, none is lost, and the word that says so lets them in."""
    topic = Topic(seed=SEED)
    good = topic.grow(6)
    topic.forge(epoch_from_zeros(topic), entry_afar(topic))
    topic.seed = NEW_SEED
    held = topic.send(topic.producers.entry(INTAKE, TAIL), topic.producers.entry(INTAKE, TAIL))
    topic.seed = SEED
    first = topic.send(topic.producers.entry(LEDGER, encode_fact(tell_resumed(6), START)))
    topic.seed = NEW_SEED
    held += topic.send(topic.producers.entry(INTAKE, TAIL))  # halts it again: the word did not say that the seed is new
    topic.seed = SEED
    word = topic.send(topic.producers.entry(LEDGER, encode_fact(tell_resumed(11, seed_is_new=True), START)))
    topic.seed = NEW_SEED
    topic.forge(epoch_from_zeros(topic))
    after = topic.send(topic.producers.entry(INTAKE, TAIL))
    await ledger.follow(topic, batch)
    expected = [*good, *first, *word, *held, *after]
    assert await ledger.lines() == expected
    assert (await ledger.head())[1] == root_of_rfc(expected)
    assert await ledger.halted() == {}


async def test_ledger_that_lost_its_seed_knows_its_own_word(ledger: Ledger) -> None:
    """audit-ledger resumes itself by an entry that its own database holds; the same word from outside counts for nothing."""
    topic = Topic(seed=SEED)
    good = topic.grow(6)
    topic.seed = NEW_SEED
    held = topic.send(topic.producers.entry(LEDGER, TAIL))
    word = topic.producers.entry(LEDGER, encode_fact(tell_resumed(6, seed_is_new=True), START))
    topic.forge(word)
    await ledger.follow(topic)
    assert list(await ledger.halted()) == ["audit-ledger"]
    async with ledger.db.transaction("ask") as tx:
        assert await store.ask_resume(tx, LEDGER, new_seed=True)
        await tx.execute(
            "INSERT INTO audit_lines (seq, event_id, created_at, line) VALUES (3, gen_random_uuid(), now(), $1)", word
        )
    assert (await sweeps.resume_producers(ledger.db)).handled == 1
    assert (await ledger.facts())[-1:] == [
        "action=producer.resumed request=- subject=- outcome=key_missing count=6 commitments=-"
    ]
    topic.send(word)
    await ledger.follow(topic)
    assert await ledger.lines() == [*good, *held, word]
    assert await ledger.halted() == {}


async def test_rebuilt_log_passes_over_the_same_records(database: Access, empty_ledger: Access, tmp_path: Path) -> None:
    """From the topic alone comes the same log, with entries of before the pledges, forged ones and halts that ended by themselves."""
    topic = Topic()
    topic.grow(20)
    topic.seed = SEED
    topic.grow(20)
    for make in FORGED:
        topic.forge(make(topic))
        topic.grow(7)
    async with start_ledger(database, tmp_path / "log") as first:
        await first.follow(topic, 5)
        await first.publish()
        lines = await first.lines()
        assert lines == [record.value for record in topic.records if record.key != FORGERS_KEY]
    async with start_ledger(empty_ledger, tmp_path / "log") as second:
        await second.follow(topic, 9)
        await second.publish()
        assert await second.lines() == lines
        assert await second.told("producer.halted") == []
        assert second.passes()
