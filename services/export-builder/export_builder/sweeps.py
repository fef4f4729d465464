"""The time edge of export-builder: attempts at building, and the end of artefacts."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from export_builder import lifecycle, store
from export_builder.gateways import Builder, Built, Order, Vault
from export_builder.lifecycle import Artefact, Decision, Export
from habeas.chassis import cause, crash
from habeas.chassis.crash import Point
from habeas.chassis.database import Database, Transaction
from habeas.chassis.gauges import show_stuck
from habeas.chassis.lease import leased
from habeas.chassis.sweep import Swept
from habeas.contracts.vocabulary import Right, StuckReason
from habeas.datamap.errors import StoreError
from habeas.sealing import KeyKind, KeyStore, Place, SubjectKey, seal, try_open_text

BATCH_EXPORTS_MAX: Final = 50
_BATCH_DELETES_MAX: Final = 200


async def build_due(db: Database, builder: Builder, vault: Vault, keys: KeyStore, kept: timedelta) -> Swept:
    """Build what is due, a batch at a time: claim, read out, write encrypted, read back, tell.

    Idempotent: an attempt that dies leaves at most an artefact that nobody has the key of; it goes with the one that counts.
    """
    orders, data_keys, settled = await _begin(db, keys)
    if not orders:
        return Swept(settled)
    claimed = [export.export_id for export, _ in orders], [export.version + 1 for export, _ in orders]
    async with leased(db, lifecycle.LEASE, store.KEEP_ATTEMPTS, *claimed):
        with cause.worked("artefacts.build", [export.traceparent for export, _ in orders], db.clock):
            built, failures = await _build(builder, orders)
    async with db.transaction("exports-finish") as tx:
        locked = await store.lock_exports(tx, [export.export_id for export, _ in orders])
        # A key that was destroyed meanwhile is not used again: nobody can read the artefact, and the next attempt finds the erasure.
        alive = await keys.read(tx, {export.subject_id for export, _ in orders}, KeyKind.DATA)
        decisions = []
        unused: list[Order] = []
        for before, order in orders:
            export = locked[before.export_id]
            if export.version != before.version + 1:
                unused.append(order)
                continue
            if (error := failures.get(export.export_id)) is not None:
                decisions.append(lifecycle.fail(export, error.because, error.store, error.table, tx.now))
            elif export.subject_id not in alive:
                decisions.append(lifecycle.fail(export, StuckReason.KEY_MISSING, None, None, tx.now))
                unused.append(order)
            else:
                artefact = _sealed(built[export.export_id], export, data_keys[export.subject_id])
                decisions.append(lifecycle.complete(export, artefact, (tx.now + kept).date(), tx.now))
        await _save(tx, decisions)
    for order in unused:
        await vault.discard(order)
    return Swept(len(decisions) + settled, more=len(orders) == BATCH_EXPORTS_MAX)


async def withdraw_expired(db: Database) -> Swept:
    """Let artefacts go that were promised until before today; idempotent."""
    async with db.transaction("exports-expire") as tx:
        expired = await store.lock_expired(tx, _BATCH_DELETES_MAX)
        await store.save_exports(tx, [lifecycle.withdraw(export, tx.now) for export in expired])
    return Swept(len(expired), more=len(expired) == _BATCH_DELETES_MAX)


async def delete_withdrawn(db: Database, vault: Vault) -> Swept:
    """Delete the artefacts that were let go; deleting one that is gone already changes nothing."""
    async with db.transaction("exports-delete") as tx:
        withdrawing = await store.lock_withdrawing(tx, _BATCH_DELETES_MAX)
        for export in withdrawing:
            await vault.delete(export.export_id, export.attempts)
            crash.at(Point.ARTEFACT_DELETED)
        await _save(tx, [lifecycle.deleted(export) for export in withdrawing])
    return Swept(len(withdrawing), more=len(withdrawing) == _BATCH_DELETES_MAX)


async def _begin(db: Database, keys: KeyStore) -> tuple[list[tuple[Export, Order]], Mapping[UUID, SubjectKey], int]:
    """Claim due exports and open their accounts; those without a key are settled here."""
    async with db.transaction("exports-begin") as tx:
        due = await store.lock_due(tx, BATCH_EXPORTS_MAX)
        if not due:
            return [], {}, 0
        tx.caused_by(*(export.traceparent for export in due))
        found = await keys.read(tx, {export.subject_id for export in due}, KeyKind.DATA)
        opened = {
            export.export_id: _order(export, found[export.subject_id]) for export in due if export.subject_id in found
        }
        orders = [
            (lifecycle.attempt(export, tx.now), order)
            for export in due
            if (order := opened.get(export.export_id)) is not None
        ]
        keyless = [export for export in due if opened.get(export.export_id) is None]
        erased = await store.find_erased(tx, {export.subject_id for export in keyless}) if keyless else set()
        settled = [
            lifecycle.complete_without(lifecycle.attempt(export, tx.now), tx.now)
            if export.subject_id in erased and export.subject_id not in found
            else lifecycle.fail(lifecycle.attempt(export, tx.now), StuckReason.KEY_MISSING, None, None, tx.now)
            for export in keyless
        ]
        await store.save_exports(tx, [export for export, _ in orders])
        await _save(tx, settled)
    return orders, found, len(settled)


async def _build(
    builder: Builder, orders: Sequence[tuple[Export, Order]]
) -> tuple[dict[UUID, Built], dict[UUID, StoreError]]:
    """Build access and portability apart, since they read other columns; a store that objects fails its whole batch."""
    built: dict[UUID, Built] = {}
    failures: dict[UUID, StoreError] = {}
    for right in (Right.ACCESS, Right.PORTABILITY):
        batch = [order for export, order in orders if export.right is right]
        if batch:
            try:
                built.update(await builder.build(batch, portable_only=right is Right.PORTABILITY))
            except StoreError as error:
                failures.update(dict.fromkeys((order.export_id for order in batch), error))
    return built, failures


def _order(export: Export, key: SubjectKey) -> Order | None:
    """Give what is to be built; None when the account does not open with the person's key, which must hold nobody else up."""
    place = Place("request", export.request_id, "account")
    account = try_open_text(key, place, export.account or "")
    return None if account is None else Order(export.export_id, export.attempts + 1, export.request_id, account)


def _sealed(artefact: Built, export: Export, key: SubjectKey) -> Artefact:
    """Keep the artefact's key only under the person's data key: whoever destroys that has destroyed the artefact."""
    sealed = seal(key, Place("export", export.export_id, "artefact_key"), artefact.secret)
    return Artefact(sealed, artefact.size, artefact.sha256, artefact.tables)


async def _save(tx: Transaction, decisions: Sequence[Decision]) -> None:
    await store.save_exports(tx, [decision.export for decision in decisions])
    for decision in decisions:
        tx.emit(*decision.events, trace=decision.export.traceparent)
        tx.record(*decision.facts, trace=decision.export.traceparent)


async def measure_stuck(db: Database) -> None:
    """Show exports that wait for somebody to look."""
    await show_stuck(db, store.COUNT_STUCK)
