from datetime import UTC, datetime, timedelta

from habeas.chassis.ids import uuid7
from tests.integration.retention_sweeper.conftest import AS_OF, CREATED, NOW, TOLERANCE, Shop, Sweeper

SOON = timedelta(microseconds=1)
DAYS_90 = timedelta(days=90)


async def _tasks(shop: Shop) -> int:
    return int(await shop.owner.fetchval("SELECT count(*) FROM tasks"))


async def test_tick_from_the_future_is_parked(sweeper: Sweeper, shop: Shop) -> None:
    """Nobody purges early by lying about time: a tick more than the tolerance ahead is parked and nothing is asked."""
    await sweeper.tick(NOW + TOLERANCE + SOON)
    await sweeper.run()
    assert await sweeper.parked() == [("from_the_future", "as_of")]
    assert await sweeper.states() == {}
    assert sweeper.stores.purged == []


async def test_tick_ahead_within_tolerance_purges_nothing_early(sweeper: Sweeper, shop: Shop) -> None:
    """A clock that is a little fast is believed no further than the own one: rows due in four minutes stay."""
    sweeper.clock.set(CREATED + DAYS_90 - timedelta(minutes=4))
    await sweeper.tick(CREATED + DAYS_90 + timedelta(minutes=1))
    await sweeper.run()
    assert await sweeper.parked() == []
    assert set((await sweeper.states()).values()) == {"completed"}
    assert await _tasks(shop) == 6


async def test_tick_for_a_day_before_all_others_is_parked(sweeper: Sweeper) -> None:
    """The last second of 1999 is parked, and blocks nothing; the first of 2000 is not parked."""
    await sweeper.tick(datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC))
    await sweeper.run()
    assert await sweeper.parked() == [("wrong_value", "as_of")]
    await sweeper.tick(datetime(2000, 1, 1, tzinfo=UTC))
    await sweeper.run()
    assert await sweeper.parked() == [("wrong_value", "as_of")]


async def test_tick_for_one_class(sweeper: Sweeper, shop: Shop) -> None:
    """A scope names one retention class; only its rules are swept."""
    await sweeper.tick(AS_OF + timedelta(hours=11), "execution")
    await sweeper.run()
    assert await sweeper.parked() == [("from_the_future", "as_of")]
    await sweeper.tick(scope="invoices")
    await sweeper.run()
    assert await sweeper.states() == {("invoices", "invoices"): "completed"}
    assert await _tasks(shop) == 6


async def test_unknown_scope_is_parked(sweeper: Sweeper) -> None:
    """A retention class that the policy does not have is a mistake of the sender."""
    await sweeper.tick(scope="for_ever")
    await sweeper.run()
    assert await sweeper.parked() == [("wrong_value", "scope")]
    assert await sweeper.states() == {}


async def test_repeated_tick_does_nothing_twice(sweeper: Sweeper) -> None:
    """The same tick sent again is taken once and answered once; with other content it is parked."""
    tick_id = uuid7(sweeper.clock)
    await sweeper.tick(tick_id=tick_id)
    await sweeper.tick(tick_id=tick_id)
    await sweeper.run()
    calls = list(sweeper.stores.purged)
    assert len(await sweeper.told("sweep.completed")) == len(calls) == 10
    await sweeper.tick(tick_id=tick_id)
    await sweeper.tick(AS_OF - timedelta(days=1), tick_id=tick_id)
    await sweeper.run()
    assert await sweeper.parked() == [("id_conflict", "tick_id")]
    assert sweeper.stores.purged == calls
    assert len(await sweeper.told("sweep.completed")) == 10


async def test_late_tick_does_nothing_and_says_so(sweeper: Sweeper, shop: Shop) -> None:
    """A tick older than what a rule has reached is answered for its own cutoff, and no store is asked."""
    await sweeper.tick()
    await sweeper.run()
    calls = list(sweeper.stores.purged)
    late = await sweeper.tick(AS_OF - timedelta(days=1))
    await sweeper.run()
    assert sweeper.stores.purged == calls
    answers = [event for event in await sweeper.told("sweep.completed") if event["tick_id"] == str(late)]
    assert len(answers) == 10
    assert {event["rows"] for event in answers} == {0}
    (tasks,) = [event for event in answers if (event["table"], event["retention"]) == ("tasks", "execution")]
    # 29 January 2027, 01:00 in Berlin; ninety dates before, the same hour; no change of clocks lies between.
    assert tasks["cutoff_at"] == "2026-10-31T00:00:00Z"
    assert tasks["oldest_left_at"] == "2026-11-01T10:00:00Z"


async def test_missed_ticks_are_caught_up_newest_first(sweeper: Sweeper, shop: Shop) -> None:
    """After days of absence the newest tick does the work of all; the others find nothing left to ask for."""
    for days in range(4):
        await sweeper.tick(AS_OF - timedelta(days=3 - days))
    sweeper.clock.set(NOW + timedelta(hours=2))
    newest = await sweeper.tick(AS_OF + timedelta(hours=11))
    await sweeper.run()
    assert len(sweeper.stores.purged) == 10
    answers = await sweeper.told("sweep.completed")
    assert len(answers) == 50
    assert {event["tick_id"] for event in answers if event["rows"]} == {str(newest)}
    assert await _tasks(shop) == 0


async def test_every_answer_is_in_the_audit_log(sweeper: Sweeper) -> None:
    """One entry per rule, with the count of rows that went and no word about anybody."""
    sweeper.clock.set(NOW + timedelta(hours=2))
    await sweeper.tick(AS_OF + timedelta(hours=11))
    await sweeper.run()
    counts = [event["rows"] for event in await sweeper.told("sweep.completed")]
    assert sorted(counts) == [0, 0, 0, 0, 0, 0, 0, 6, 12, 24]
    assert await sweeper.facts() == [
        f"action=sweep.completed request=- subject=- outcome=done count={count} commitments=-" for count in counts
    ]
