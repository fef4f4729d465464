"""The message edge of retention-sweeper."""

from dataclasses import dataclass
from datetime import timedelta

from habeas.chassis.batch import Batch
from habeas.chassis.database import Transaction
from habeas.contracts.platform import RetentionTicked
from habeas.contracts.vocabulary import ParkReason
from retention_sweeper import lifecycle, store
from retention_sweeper.lifecycle import Tick


@dataclass(frozen=True, slots=True)
class Calendar:
    """What taking a tick needs besides the database."""

    stores: tuple[str, ...]
    retention_classes: frozenset[str]
    tolerance: timedelta


async def on_retention_ticked(batch: Batch[RetentionTicked], tx: Transaction, calendar: Calendar) -> None:
    """Take each tick up for every store.

    Runs once per event. The same tick id with the same content is taken once; with other content it is parked, and so is a tick
    from the future, from before all law, or for a retention class that the policy does not have.
    """
    known = await store.find_ticks(tx, batch.field("tick_id"))
    taken: list[Tick] = []
    for ticked in batch:
        content = (ticked.as_of, ticked.scope)
        if ticked.as_of > tx.now + calendar.tolerance:
            batch.reject(ParkReason.FROM_THE_FUTURE, "as_of")
        elif ticked.as_of < lifecycle.EARLIEST:
            batch.reject(ParkReason.WRONG_VALUE, "as_of")
        elif ticked.scope != lifecycle.ALL and ticked.scope not in calendar.retention_classes:
            batch.reject(ParkReason.WRONG_VALUE, "scope")
        elif known.setdefault(ticked.tick_id, content) != content:
            batch.reject(ParkReason.ID_CONFLICT, "tick_id")
        else:
            taken += [lifecycle.take_tick(ticked, name, batch.trace, tx.now) for name in calendar.stores]
    await store.add_ticks(tx, taken)
