"""The time edge of erasure-executor: attempts at erasure, of many people at once, and of those for whom others would wait apart."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeAlias
from uuid import UUID

from erasure_executor import lifecycle, store
from erasure_executor.errors import Overtaken
from erasure_executor.gateways import Erasable, Outcomes
from erasure_executor.lifecycle import Decision, Erasure
from habeas.chassis import cause, crash, log
from habeas.chassis.crash import Point
from habeas.chassis.database import Database, Transaction
from habeas.chassis.errors import Invariant
from habeas.chassis.gauges import show_stuck
from habeas.chassis.lease import leased
from habeas.chassis.settings import LogLevel
from habeas.chassis.sweep import Swept
from habeas.chassis.together import Failure, Lane, Limits, try_together
from habeas.contracts.vocabulary import StuckReason
from habeas.sealing import Fingerprinter, KeyKind, KeyStore, Place, try_open_text

SMALL: Final = Lane(is_large=False, items_max=250, limits=Limits(3.0, 0.02))
LARGE: Final = Lane(is_large=True, items_max=1, limits=Limits(120.0))
LARGE_AT_ONCE: Final = 2

_PLAN_LIMIT_S: Final = 5.0  # a transaction of the own database is open meanwhile


@dataclass(frozen=True, slots=True)
class Begun:
    """An erasure whose attempt is under way; the account id is in clear here and nowhere else."""

    erasure: Erasure
    account: str = field(repr=False)


Decide: TypeAlias = Callable[[Begun, Erasure, datetime], Decision]


async def erase_due(db: Database, stores: Erasable, keys: KeyStore, fingerprinter: Fingerprinter) -> Swept:
    """Erase whoever is due, a batch at a time: plan, erase in one transaction per store, read again, destroy the key.

    Idempotent: whatever step dies, the erasure is taken up again after its lease, and a store that was erased is found so. The key
    is destroyed in the transaction that completes the erasure, after every store was read again. When a store objects or takes long,
    the batch is divided until those concerned are alone. Who has very many rows, or takes long alone, is left to ``erase_large``.
    """
    return await _sweep(db, stores, keys, fingerprinter, SMALL)


async def erase_large(db: Database, stores: Erasable, keys: KeyStore, fingerprinter: Fingerprinter) -> Swept:
    """Erase one person for whom others would wait; each attempt may take twice as long as the one before. Idempotent, as above."""
    return await _sweep(db, stores, keys, fingerprinter, LARGE)


async def _sweep(db: Database, stores: Erasable, keys: KeyStore, fingerprinter: Fingerprinter, lane: Lane) -> Swept:
    begun, settled = await _begin(db, stores, keys, fingerprinter, lane)
    if not begun:
        return Swept(settled)
    limits = lane.limits.after(begun[0].erasure.attempts - 1) if lane.is_large else lane.limits
    claimed = [each.erasure.request_id for each in begun], [each.erasure.version + 1 for each in begun]
    tries = _Tries(db, stores, keys, lane)
    async with leased(db, lifecycle.LEASE, store.KEEP_ATTEMPTS, *claimed):
        with cause.worked("stores.erase", [each.erasure.traceparent for each in begun], db.clock):
            await try_together(begun, tries.work, tries.done, tries.failed, limits)
    return Swept(settled + len(begun), more=settled + len(begun) == lane.items_max)


class _Tries:
    """Tries to erase the people of one batch, all of them or some."""

    def __init__(self, db: Database, stores: Erasable, keys: KeyStore, lane: Lane) -> None:
        self._db = db
        self._stores = stores
        self._keys = keys
        self._lane = lane

    async def work(self, part: Sequence[Begun]) -> Outcomes:
        """Count what was not counted yet, and erase; gives nothing when somebody else has taken an attempt up meanwhile."""
        await self._plan([each for each in part if each.erasure.planned is None])
        try:
            return await self._stores.erase(sorted({each.account for each in part}), lambda: self._require_ours(part))
        except Overtaken:
            log.event("erasures.overtaken", severity=LogLevel.WARNING, erasures=len(part))
            return {}

    async def done(self, part: Sequence[Begun], outcomes: Outcomes) -> None:
        """Complete the erasures: every store was read again."""
        erased = [each for each in part if each.account in outcomes]
        await self._settle(erased, lambda each, erasure, now: lifecycle.complete(erasure, outcomes[each.account], now))

    async def failed(self, part: Sequence[Begun], failure: Failure) -> None:
        """Put the erasures off with the reason, or leave one that only takes long to those who do these."""

        def decide(_: Begun, erasure: Erasure, now: datetime) -> Decision:
            if failure.is_of_size and not self._lane.is_large:
                return Decision(lifecycle.set_apart(erasure, None, now))
            return lifecycle.fail(erasure, failure.reason, failure.store, failure.table, now)

        await self._settle(part, decide)

    async def _settle(self, part: Sequence[Begun], decide: Decide) -> None:
        """Save what came of an attempt, but for those that another replica has taken up since."""
        if not part:
            return
        async with self._db.transaction("erasures-finish") as tx:
            locked = await store.lock_erasures(tx, [each.erasure.request_id for each in part])
            decisions = [
                decide(each, erasure, tx.now)
                for each in part
                if (erasure := locked[each.erasure.request_id]).version == each.erasure.version + 1
            ]
            await _finish(tx, decisions, self._keys)

    async def _plan(self, part: Sequence[Begun]) -> None:
        """Count what is held and keep it: should this attempt die, the next one finds what it has left."""
        if not part:
            return
        planned = await self._stores.plan(sorted({each.account for each in part}))
        ids = [each.erasure.request_id for each in part]
        versions = [each.erasure.version + 1 for each in part]
        outcomes = [store.as_json(planned[each.account]) for each in part]
        await self._db.change("erasures-plan", store.SAVE_PLANS, ids, versions, outcomes)

    async def _require_ours(self, part: Sequence[Begun]) -> None:
        """Raise ``Overtaken`` unless every attempt is ours for another half of the lease.

        A store lets a transaction stand still for no longer than that, so a replica that is paused after this question comes back to
        a transaction that is gone.
        """
        ids, versions = [each.erasure.request_id for each in part], [each.erasure.version + 1 for each in part]
        until = self._db.clock.now() + lifecycle.LEASE / 2
        if len(await self._db.read("erasures-ours", store.FIND_OURS, ids, versions, until)) != len(part):
            raise Overtaken


async def _begin(
    db: Database, stores: Erasable, keys: KeyStore, fingerprinter: Fingerprinter, lane: Lane
) -> tuple[list[Begun], int]:
    """Claim due erasures, open their accounts and count what is held; gives those to be tried, and how many were settled here."""
    async with db.transaction("erasures-begin") as tx:
        locked = await store.lock_due(tx, lane.items_max, large=lane.is_large)
        tx.caused_by(*(erasure.traceparent for erasure in locked))
        decisions = [lifecycle.interrupt(each, tx.now) for each in locked if lifecycle.is_interrupted(each)]
        due = [each for each in locked if not lifecycle.is_interrupted(each)]
        accounts, broken = await _open_accounts(tx, due, keys)
        decisions += await _without_key(tx, [each for each in due if each.request_id not in accounts], broken)
        opened = [each for each in due if each.request_id in accounts]
        planned = await _try_plan(stores, sorted(set(accounts.values()))) if opened else {}
        begun: list[Begun] = []
        for each in opened:
            account = accounts[each.request_id]
            held = planned.get(account)
            if held is not None and lifecycle.is_large(held) and not lane.is_large:
                decisions.append(Decision(lifecycle.set_apart(each, held, tx.now)))
            else:
                fingerprint = fingerprinter.fingerprint("account", account)
                begun.append(Begun(lifecycle.attempt(each, fingerprint, held, tx.now), account))
        await store.save_erasures(tx, [each.erasure for each in begun])
        await _finish(tx, decisions, keys)
    return begun, len(decisions)


async def _try_plan(stores: Erasable, accounts: Sequence[str]) -> Outcomes:
    """Count what is held of all at once; gives nothing when that fails or takes long, and each part of the batch counts its own then."""
    try:
        async with asyncio.timeout(_PLAN_LIMIT_S):
            return await stores.plan(accounts)
    except Invariant:
        raise
    except Exception:  # noqa: BLE001 -- it comes again when a part counts its own, and is told then
        return {}


async def _open_accounts(
    tx: Transaction, due: Sequence[Erasure], keys: KeyStore
) -> tuple[dict[UUID, str], frozenset[UUID]]:
    """Open the account ids of those whose data key is there, by request; gives also the requests that it does not open."""
    found = await keys.read(tx, {erasure.subject_id for erasure in due}, KeyKind.DATA)
    accounts: dict[UUID, str] = {}
    broken = set()
    for erasure in due:
        if erasure.account is None or erasure.subject_id not in found:
            continue
        place = Place("request", erasure.request_id, "account")
        account = try_open_text(found[erasure.subject_id], place, erasure.account)
        if account is None:
            broken.add(erasure.request_id)
        else:
            accounts[erasure.request_id] = account
    return accounts, frozenset(broken)


async def _without_key(tx: Transaction, erasures: Sequence[Erasure], broken: frozenset[UUID]) -> list[Decision]:
    """Without a data key there is nothing to open: done when an earlier erasure of the person destroyed it, else stuck.

    Stuck is also who has a key that does not open the account.
    """
    erased = await store.find_erased(tx, {erasure.subject_id for erasure in erasures}) if erasures else set()
    return [
        lifecycle.complete(_blank(erasure, tx), (), tx.now)
        if erasure.subject_id in erased and erasure.request_id not in broken
        else lifecycle.fail(_blank(erasure, tx), StuckReason.KEY_MISSING, None, None, tx.now)
        for erasure in erasures
    ]


async def _finish(tx: Transaction, decisions: Sequence[Decision], keys: KeyStore) -> None:
    """Save decisions; for those completed leave tombstones and destroy the data keys, in this same transaction."""
    completed = [each.erasure for each in decisions if each.erasure.state is lifecycle.State.COMPLETED]
    await store.save_erasures(tx, [decision.erasure for decision in decisions])
    await store.add_tombstones(tx, completed)
    crash.at(Point.KEYS_KEPT, tx.name, tx.statements)
    await keys.destroy(tx, {erasure.subject_id for erasure in completed}, KeyKind.DATA)
    crash.at(Point.KEYS_DESTROYED, tx.name, tx.statements)
    if any(lifecycle.is_set_apart(decision.erasure, tx.now) for decision in decisions):
        tx.did(lifecycle.set_apart)
    for decision in decisions:
        tx.emit(*decision.events, trace=decision.erasure.traceparent)
        tx.record(*decision.facts, trace=decision.erasure.traceparent)


def _blank(erasure: Erasure, tx: Transaction) -> Erasure:
    """Count an attempt that could not even be planned."""
    return lifecycle.attempt(erasure, None, None, tx.now)


async def look_at_stores(_: Database, stores: Erasable) -> Swept:
    """Ask every store whether it answers and fits the data map, so that it is told before a request needs it.

    It keeps a connection and its plans at hand too, for which the first request after a quiet hour would wait.
    """
    for error in await stores.check():
        log.event("stores.unfit", reason=error.because, why=log.Words(str(error)), error=error)
    return Swept(0)


async def measure_stuck(db: Database) -> None:
    """Show erasures that wait for somebody to look."""
    await show_stuck(db, store.COUNT_STUCK)
