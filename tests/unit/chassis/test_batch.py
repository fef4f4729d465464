"""What a handler gets and may do with it."""

import pytest

from habeas.chassis import cause
from habeas.chassis.batch import Batch
from habeas.chassis.errors import Poison
from habeas.chassis.message import Defect, Message
from habeas.contracts import topics
from habeas.contracts.request_intake import RequestExtended
from habeas.contracts.vocabulary import ParkReason
from tests.support.delivery import NOON, extended, new_id, number_of

TRACES = {
    1: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    2: None,
    3: "00-" + "a" * 32 + "-" + "b" * 16 + "-00",
}


@pytest.fixture
def batch() -> Batch[RequestExtended]:
    """Three messages, the second outside of any trace."""
    events = [extended(new_id(), number) for number in (1, 2, 3)]
    return Batch([_message(number, event) for number, event in enumerate(events, 1)], TRACES)


def _message(inbox_id: int, event: RequestExtended) -> Message:
    value = event.encode()
    return Message(inbox_id, new_id(), topics.REQUESTS, event.type, b"k", None, NOON, 0, value, event)


def numbers(batch: Batch[RequestExtended]) -> list[int]:
    """What iterating gives."""
    return [number_of(event) for event in batch]


def test_iterating_gives_events_in_order(batch: Batch[RequestExtended]) -> None:
    """A batch is a sequence of events, as often as it is asked."""
    assert (len(batch), numbers(batch), numbers(batch)) == (3, [1, 2, 3], [1, 2, 3])


def test_what_is_emitted_takes_the_current_messages_trace(batch: Batch[RequestExtended]) -> None:
    """Inside the iteration the current message is the cause; outside there is none."""
    seen = [(batch.trace, cause.current()) for _ in batch]
    assert seen == [(TRACES[1], TRACES[1]), (None, None), (TRACES[3], TRACES[3])]
    assert (batch.trace, cause.current(), batch.current) == (None, None, None)


def test_rejecting_parks_the_current_message_alone(batch: Batch[RequestExtended]) -> None:
    """The rejected message is left out of what follows; the others go on."""
    flags = []
    for event in batch:
        if number_of(event) == 2:
            batch.reject(ParkReason.BAD_SIGNATURE, "signature")
        flags.append(batch.is_rejected)
    assert flags == [False, True, False]
    assert batch.rejected == {2: Defect(ParkReason.BAD_SIGNATURE, "signature")}
    assert numbers(batch) == [1, 3]
    assert batch.field("due_on") == [extended(new_id(), number).due_on for number in (1, 3)]


def test_the_value_is_as_it_came(batch: Batch[RequestExtended]) -> None:
    """Signatures cover bytes: the current message's bytes are those of its record."""
    assert [batch.value == event.encode() for event in batch] == [True, True, True]


def test_a_missing_reference_is_poison_for_the_current_message(batch: Batch[RequestExtended]) -> None:
    """What the message refers to is given or the message is blamed, by the field's name alone."""
    found = {1: "one", 3: "three"}

    def look_up() -> None:
        for event in batch:
            batch.require(found, number_of(event), unknown="request_id")

    with pytest.raises(Poison, match=r"^unknown_reference: request_id$") as raised:
        look_up()
    assert (raised.value.reason, raised.value.field) == (ParkReason.UNKNOWN_REFERENCE, "request_id")
    assert raised.value.__cause__ is None
    assert batch.current is not None
    assert batch.current.inbox_id == 2


def test_outside_the_iteration_nothing_is_current(batch: Batch[RequestExtended]) -> None:
    """A verdict or a value without a message is a mistake of the program."""
    with pytest.raises(RuntimeError, match="inside the iteration"):
        batch.reject(ParkReason.WRONG_VALUE, "x")
    with pytest.raises(RuntimeError, match="inside the iteration"):
        _ = batch.value
    assert not batch.is_rejected
