"""The time edge of erasure-executor: attempts at erasure."""

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from erasure_executor import lifecycle, store
from erasure_executor.errors import Overtaken
from erasure_executor.gateways import Guard, Outcomes, Stores
from erasure_executor.lifecycle import Decision, Erasure
from habeas.chassis import cause, crash, log
from habeas.chassis.crash import Point
from habeas.chassis.database import Database, Transaction
from habeas.chassis.gauges import show_stuck
from habeas.chassis.lease import leased
from habeas.chassis.settings import LogLevel
from habeas.chassis.sweep import Swept
from habeas.contracts.outcomes import TableOutcome
from habeas.contracts.vocabulary import StuckReason
from habeas.datamap.errors import NotErased, StoreError, StoreRefused
from habeas.sealing import Fingerprinter, KeyKind, KeyStore, Place, try_open_text

BATCH_ERASURES_MAX: Final = 250


async def erase_due(db: Database, stores: Stores, keys: KeyStore, fingerprinter: Fingerprinter) -> Swept:
    """Erase whoever is due, a batch at a time: plan, erase in one transaction per store, read again, destroy the key.

    Idempotent: whatever step dies, the erasure is taken up again after its lease, and a store that was erased is found so. The key
    is destroyed in the transaction that completes the erasure, after every store was read again.
    """
    begun, failure = await _begin(db, stores, keys, fingerprinter)
    if failure is not None or not begun:
        return Swept(failure or 0)
    claimed = [erasure.request_id for erasure, _ in begun], [erasure.version + 1 for erasure, _ in begun]
    try:
        async with leased(db, lifecycle.LEASE, store.KEEP_ATTEMPTS, *claimed):
            with cause.worked("stores.erase", [erasure.traceparent for erasure, _ in begun], db.clock):
                outcomes, failures = await _erase(stores, begun, lambda: _require_ours(db, claimed))
    except Overtaken:
        log.event("erasures.overtaken", severity=LogLevel.WARNING, erasures=len(begun))
        return Swept(0)
    async with db.transaction("erasures-finish") as tx:
        locked = await store.lock_erasures(tx, [erasure.request_id for erasure, _ in begun])
        decisions = [
            lifecycle.fail(erasure, error.because, error.store, error.table, tx.now)
            if (error := failures.get(account)) is not None
            else lifecycle.complete(erasure, outcomes[account], tx.now)
            for before, account in begun
            if (erasure := locked[before.request_id]).version == before.version + 1
        ]
        await _finish(tx, decisions, keys)
    return Swept(len(decisions), more=len(begun) == BATCH_ERASURES_MAX)


async def _begin(
    db: Database, stores: Stores, keys: KeyStore, fingerprinter: Fingerprinter
) -> tuple[list[tuple[Erasure, str]], int | None]:
    """Claim due erasures, open their accounts and count what is held; gives erasures with account ids, or how many failed."""
    async with db.transaction("erasures-begin") as tx:
        due = await store.lock_due(tx, BATCH_ERASURES_MAX)
        tx.caused_by(*(erasure.traceparent for erasure in due))
        accounts, broken = await _open_accounts(tx, due, keys)
        unopened = [erasure for erasure in due if erasure.request_id not in accounts]
        opened = [erasure for erasure in due if erasure.request_id in accounts]
        decisions = await _without_key(tx, unopened, broken)
        try:
            planned = await stores.plan(sorted(set(accounts.values()))) if opened else {}
        except StoreError as error:
            decisions += [
                lifecycle.fail(_blank(erasure, tx), error.because, error.store, error.table, tx.now)
                for erasure in opened
            ]
            await _finish(tx, decisions, keys)
            return [], len(decisions)
        begun = [
            (lifecycle.attempt(each, _print(fingerprinter, account), planned[account], tx.now), account)
            for each in opened
            if (account := accounts[each.request_id])
        ]
        await store.save_erasures(tx, [erasure for erasure, _ in begun])
        await _finish(tx, decisions, keys)
    return begun, None


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


async def _require_ours(db: Database, claimed: tuple[list[UUID], list[int]]) -> None:
    """Raise ``Overtaken`` unless every attempt is ours for another half of the lease.

    A store lets a transaction stand still for no longer than that, so a replica that is paused after this question comes back to a
    transaction that is gone.
    """
    ours = await db.read("erasures-ours", store.FIND_OURS, *claimed, db.clock.now() + lifecycle.LEASE / 2)
    if len(ours) != len(claimed[0]):
        raise Overtaken


async def _erase(
    stores: Stores, begun: Sequence[tuple[Erasure, str]], guard: Guard
) -> tuple[Outcomes, Mapping[str, StoreError]]:
    """Erase all accounts at once; when a store objects to somebody, one by one, so that only those concerned are stuck."""
    accounts = sorted({account for _, account in begun})
    try:
        return await stores.erase(accounts, guard), {}
    except (StoreRefused, NotErased) as error:
        if len(accounts) == 1:
            return {}, {accounts[0]: error}
    except StoreError as error:
        return {}, dict.fromkeys(accounts, error)
    done: dict[str, tuple[TableOutcome, ...]] = {}
    failures: dict[str, StoreError] = {}
    for account in accounts:
        try:
            done.update(await stores.erase([account], guard))
        except StoreError as error:
            failures[account] = error
    return done, failures


async def _finish(tx: Transaction, decisions: Sequence[Decision], keys: KeyStore) -> None:
    """Save decisions; for those completed leave tombstones and destroy the data keys, in this same transaction."""
    completed = [each.erasure for each in decisions if each.erasure.state is lifecycle.State.COMPLETED]
    await store.save_erasures(tx, [decision.erasure for decision in decisions])
    await store.add_tombstones(tx, completed)
    crash.at(Point.KEYS_KEPT, tx.name, tx.statements)
    await keys.destroy(tx, {erasure.subject_id for erasure in completed}, KeyKind.DATA)
    crash.at(Point.KEYS_DESTROYED, tx.name, tx.statements)
    for decision in decisions:
        tx.emit(*decision.events, trace=decision.erasure.traceparent)
        tx.record(*decision.facts, trace=decision.erasure.traceparent)


def _blank(erasure: Erasure, tx: Transaction) -> Erasure:
    """Count an attempt that could not even be planned."""
    return lifecycle.attempt(erasure, None, None, tx.now)


def _print(fingerprinter: Fingerprinter, account: str) -> bytes:
    return fingerprinter.fingerprint("account", account)


async def look_at_stores(_: Database, stores: Stores) -> Swept:
    """Ask every store whether it answers and fits the data map, so that it is told before a request needs it.

    It keeps a connection and its plans at hand too, for which the first request after a quiet hour would wait.
    """
    try:
        await stores.check()
    except StoreError as error:
        log.event("stores.unfit", reason=error.because, why=log.Words(str(error)), error=error)
    return Swept(0)


async def measure_stuck(db: Database) -> None:
    """Show erasures that wait for somebody to look."""
    await show_stuck(db, store.COUNT_STUCK)
