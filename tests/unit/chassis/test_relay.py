"""When the relay wakes: for events at once, for facts a moment later."""

import asyncio
from typing import Any, cast

import pytest

from habeas.chassis.outbox import Pending
from habeas.chassis.relay import Relay
from habeas.chassis.waiting import wait_any
from habeas.contracts.audit import Action, AuditFact
from tests.support.delivery import extended, new_id, settings
from tests.support.waiting import HANGS_S

FACTS = Pending(facts=[(AuditFact(Action.MESSAGE_PARKED), None)])
EVENTS = Pending()
EVENTS.add_events([extended(new_id(), 1)], None)


async def test_events_wake_the_relay_at_once_and_facts_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """No event waits for the log; facts of one request have a moment to come together, wake it once, and are never forgotten."""
    monkeypatch.setattr("habeas.chassis.relay._FACTS_LATER_S", 0.05)
    nothing = cast("Any", None)
    relay = Relay("request-intake", nothing, nothing, nothing, settings())
    events, facts = relay._events.wake, relay._facts.wake
    relay.note_soon(FACTS)
    relay.note_soon(EVENTS)
    assert (events.is_set(), facts.is_set()) == (True, False)
    relay.note_soon(FACTS)
    for _ in range(2):  # the second time for facts that came after the first
        async with asyncio.timeout(HANGS_S):
            await facts.wait()
        facts.clear()
        assert not await wait_any(facts, facts, 0.1)
        relay.note_soon(FACTS)
        assert not facts.is_set()
