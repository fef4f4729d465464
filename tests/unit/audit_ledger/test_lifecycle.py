import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_ledger.lifecycle import (
    TRANSITIONS,
    Chain,
    Halt,
    Held,
    Judgement,
    Reason,
    Record,
    State,
    grow,
    judge,
    segments,
    tell_halted,
    tell_resumed,
)
from habeas.auditlog.chains import Head
from habeas.auditlog.tree import EMPTY_ROOT, Frontier
from habeas.chassis.errors import Invariant
from habeas.contracts.audit import Action, Producer, encode_entry, encode_fact
from tests.support.audit_log import FACTS, START, Producers

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
TAIL = encode_fact(FACTS[0], START)
INTAKE, LEDGER = Producer.REQUEST_INTAKE, Producer.AUDIT_LEDGER
HALT = Halt(7, Reason.GAP, 3, 5, NOW)


def records(*values: bytes, first: int = 0) -> list[Record]:
    """Records without keys."""
    return [Record(offset, b"", value) for offset, value in enumerate(values, first)]


def test_only_a_halted_producer_is_resumed_and_only_a_followed_one_halted() -> None:
    """What the table does not have is refused: a producer is not halted twice, and not resumed while it goes on."""
    chain = Chain(INTAKE)
    halted = chain.halted(HALT)
    assert (halted.state, halted.halt) == (State.HALTED, HALT)
    assert halted.resumed() == chain
    with pytest.raises(Invariant):
        halted.halted(HALT)
    with pytest.raises(Invariant):
        TRANSITIONS.check(State.HALTED, State.HALTED)


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_order_of_judging_does_not_matter(seed: int, cuts: int) -> None:
    """The same records judged at once or cut anywhere, with copies sent again, give the same entries and the same chains."""
    chance = random.Random(seed)  # noqa: S311 -- cases are chosen, not secrets
    lines = list(Producers().entries(120))
    for _ in range(5):
        at = chance.randrange(len(lines))
        lines[at:at] = lines[max(0, at - chance.randrange(1, 9)) : at]  # a relay that died sends its last ones again
    whole = judge({}, records(*lines), {}, NOW)
    assert whole.lines == list(dict.fromkeys(lines))
    chains: dict[Producer, Chain] = {}
    taken: list[bytes] = []
    for start in range(0, len(lines), cuts):
        part = judge(chains, records(*lines[start : start + cuts]), {}, NOW)
        chains |= {chain.producer: chain for chain in part.changed()}
        taken += part.lines
    assert taken == whole.lines
    assert chains == {chain.producer: chain for chain in whole.changed()}


def test_unknown_place_is_asked_for_before_anybody_is_blamed() -> None:
    """Whether an entry before the last one repeats or contradicts the log is known only when the log was asked."""
    producers = Producers()
    first, second, third = (producers.entry(INTAKE, TAIL) for _ in range(3))
    chain = Chain(INTAKE, judge({}, records(first, second, third), {}, NOW).changed()[0].head)
    asked = judge({INTAKE: chain}, records(first), {}, NOW)
    assert [(place.producer, place.epoch, place.seq) for place in asked.wanted] == [(INTAKE, 1, 1)]
    assert asked.halted == []
    (place,) = asked.wanted
    absent = judge({INTAKE: chain}, records(first), {place: None}, NOW)
    assert [each.halt.reason for each in absent.halted if each.halt] == [Reason.EQUIVOCATION]


def test_bytes_after_an_entry_are_bad_grammar() -> None:
    """A line that only begins like an entry, ends in a newline, or holds two entries is none."""
    line = Producers().entry(INTAKE, TAIL)
    for bad in (line + b" ", line + b"\n", line + b"\n" + line, line.replace(b"time=2026-11-24", b"time=2026-02-30")):
        judged = judge({}, records(bad), {}, NOW)
        assert judged.lines == []
        assert [chain.halt.reason for chain in judged.halted if chain.halt] == [Reason.BAD_GRAMMAR]


def test_segments_end_after_a_word_to_resume() -> None:
    """What was held comes before what follows the word, so a run of records ends with it."""
    producers = Producers()
    a, b, c = producers.entries(3)
    word = producers.entry(LEDGER, encode_fact(tell_resumed(9), START))
    cut = [[record.value for record in part] for part in segments(records(a, word, b, word, c))]
    assert cut == [[a, word], [b, word], [c]]
    assert list(segments([])) == []


def test_signed_root_is_compared_in_the_middle_of_a_batch() -> None:
    """A batch that passes a signed size must have the signed root there, to the byte."""
    lines = list(Producers().entries(10))
    at_seven = grow(Frontier.empty(), lines[:7], {})[0]
    whole = grow(Frontier.empty(), lines, {})
    assert grow(Frontier.empty(), lines, {7: at_seven.root(), 99: EMPTY_ROOT}) == whole
    with pytest.raises(Invariant, match="7 entries"):
        grow(Frontier.empty(), [*lines[:6], lines[7], lines[6], *lines[8:]], {7: at_seven.root()})


def test_what_is_told_of_a_halt() -> None:
    """The event names producer, numbers and reason; the fact names the record by its offset."""
    event, fact = tell_halted(Chain(INTAKE, Head(1, 2, "ab" * 32)).halted(HALT), "audit.example")
    assert (event.producer, event.expected_seq, event.found_seq, event.reason) == ("request-intake", 3, 5, "gap")
    assert (fact.action, fact.count) == (Action.PRODUCER_HALTED, 7)
    with pytest.raises(Invariant):
        tell_halted(Chain(INTAKE), "audit.example")


def test_reread_takes_the_sequence_in_its_order() -> None:
    """Held records are read by their numbers: what fits is taken, other histories and rubbish stay."""
    producers = Producers()
    first, second, third = (producers.entry(INTAKE, TAIL) for _ in range(3))
    other = encode_entry(INTAKE, 1, 2, "ab" * 32, TAIL)
    judged = Judgement({}, {}, NOW)
    judged.reread([Held(line) for line in (first, other, second, b"rubbish", third, third)])
    assert judged.lines == [first, second, third]
    assert (judged.halted, judged.refused) == ([], [])
