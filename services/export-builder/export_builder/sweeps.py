"""The time edge of export-builder: attempts at building, many at once and large ones apart, and the end of artefacts."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, TypeAlias
from uuid import UUID

from export_builder import lifecycle, store
from export_builder.errors import TooLarge
from export_builder.gateways import Builder, Built, Order, Vault
from export_builder.lifecycle import Artefact, Decision, Export
from habeas.chassis import cause, crash, log
from habeas.chassis.crash import Point
from habeas.chassis.database import Database, Transaction
from habeas.chassis.gauges import show_stuck
from habeas.chassis.lease import leased
from habeas.chassis.sweep import Swept
from habeas.chassis.together import Failure, Lane, Limits, try_together
from habeas.contracts.vocabulary import Right, StuckReason
from habeas.sealing import KeyKind, KeyStore, Place, SubjectKey, seal, try_open_text

LARGE_ROWS: Final = 10_000
"""Who has more rows than this is read out apart from others, who would wait for them."""

SMALL: Final = Lane(is_large=False, items_max=50, limits=Limits(3.0, 0.1))
LARGE: Final = Lane(is_large=True, items_max=1, limits=Limits(1_800.0))
LARGE_AT_ONCE: Final = 2

_BATCH_DELETES_MAX: Final = 200

Begun: TypeAlias = tuple[Export, Order]


async def build_due(db: Database, builder: Builder, vault: Vault, keys: KeyStore, kept: timedelta) -> Swept:
    """Build what is due, a batch at a time: claim, read out, write encrypted, read back, tell.

    Idempotent: an attempt that dies leaves at most an artefact that nobody has the key of; it goes with the one that counts. When a
    store objects or takes long, the batch is divided until those concerned are alone. Who has very many rows, or takes long alone, is
    left to ``build_large``.
    """
    return await _sweep(_Tries(db, builder, vault, keys, kept, SMALL))


async def build_large(db: Database, builder: Builder, vault: Vault, keys: KeyStore, kept: timedelta) -> Swept:
    """Build one export for which others would wait; each attempt may take twice as long as the one before. Idempotent, as above."""
    return await _sweep(_Tries(db, builder, vault, keys, kept, LARGE))


async def _sweep(tries: "_Tries") -> Swept:
    begun, settled = await tries.claim()
    if not begun:
        return Swept(settled)
    lane = tries.lane
    limits = lane.limits.after(begun[0][0].attempts - 1) if lane.is_large else lane.limits
    claimed = [export.export_id for export, _ in begun], [export.version + 1 for export, _ in begun]
    async with leased(tries.db, lifecycle.LEASE, store.KEEP_ATTEMPTS, *claimed):
        with cause.worked("artefacts.build", [export.traceparent for export, _ in begun], tries.db.clock):
            for right in (Right.ACCESS, Right.PORTABILITY):  # apart, since they read other columns
                batch = [each for each in begun if each[0].right is right]
                await try_together(batch, tries.work, tries.done, tries.failed, limits)
    return Swept(settled + len(begun), more=settled + len(begun) == lane.items_max)


class _Tries:
    """Tries to build the exports of one batch, all of them or some."""

    def __init__(
        self, db: Database, builder: Builder, vault: Vault, keys: KeyStore, kept: timedelta, lane: Lane
    ) -> None:
        self.db = db
        self.lane = lane
        self._builder = builder
        self._vault = vault
        self._kept = kept
        self._keys = keys
        self._data_keys: Mapping[UUID, SubjectKey] = {}

    async def claim(self) -> tuple[list[Begun], int]:
        """Claim due exports and open their accounts; gives those to be built, and how many were settled here."""
        async with self.db.transaction("exports-begin") as tx:
            due = await store.lock_due(tx, self.lane.items_max, large=self.lane.is_large)
            if not due:
                return [], 0
            tx.caused_by(*(export.traceparent for export in due))
            settled = [lifecycle.interrupt(export, tx.now) for export in due if lifecycle.is_interrupted(export)]
            due = [export for export in due if not lifecycle.is_interrupted(export)]
            found = await self._keys.read(tx, {export.subject_id for export in due}, KeyKind.DATA)
            opened = {
                export.export_id: _order(export, found[export.subject_id])
                for export in due
                if export.subject_id in found
            }
            begun = [
                (lifecycle.attempt(export, tx.now), order)
                for export in due
                if (order := opened.get(export.export_id)) is not None
            ]
            keyless = [export for export in due if opened.get(export.export_id) is None]
            erased = await store.find_erased(tx, {export.subject_id for export in keyless}) if keyless else set()
            settled += [
                lifecycle.complete_without(lifecycle.attempt(export, tx.now), tx.now)
                if export.subject_id in erased and export.subject_id not in found
                else lifecycle.fail(lifecycle.attempt(export, tx.now), StuckReason.KEY_MISSING, None, None, tx.now)
                for export in keyless
            ]
            await store.save_exports(tx, [export for export, _ in begun])
            await _save(tx, settled)
        self._data_keys = found
        return begun, len(settled)

    async def work(self, part: Sequence[Begun]) -> Mapping[UUID, Built]:
        """Build; all exports of the batch are for the same right."""
        portable_only = part[0][0].right is Right.PORTABILITY
        return await self._builder.build([order for _, order in part], portable_only=portable_only)

    async def done(self, part: Sequence[Begun], built: Mapping[UUID, Built]) -> None:
        """Complete the exports whose artefacts are written."""
        await self._settle(part, built)

    async def failed(self, part: Sequence[Begun], failure: Failure) -> None:
        """Put the exports off with the reason, or leave one that is only large to those who build these."""
        await self._settle(part, {}, failure)

    async def _settle(self, part: Sequence[Begun], built: Mapping[UUID, Built], failure: Failure | None = None) -> None:
        """Save what came of an attempt, and discard the artefacts that do not count."""
        unused: list[Order] = []
        async with self.db.transaction("exports-finish") as tx:
            locked = await store.lock_exports(tx, [export.export_id for export, _ in part])
            # A key that was destroyed meanwhile is not used again: nobody can read the artefact, and the next attempt finds the erasure.
            alive = await self._keys.read(tx, {export.subject_id for export, _ in part}, KeyKind.DATA)
            decisions = []
            for before, order in part:
                export = locked[before.export_id]
                if export.version != before.version + 1:
                    unused.append(order)
                elif failure is not None:
                    decisions.append(self._put_off(export, failure, tx.now))
                elif export.subject_id not in alive:
                    decisions.append(lifecycle.fail(export, StuckReason.KEY_MISSING, None, None, tx.now))
                    unused.append(order)
                else:
                    artefact = _sealed(built[export.export_id], export, self._data_keys[export.subject_id])
                    expires_on = (tx.now + self._kept).date()
                    decisions.append(lifecycle.complete(export, artefact, expires_on, tx.now))
            await _save(tx, decisions)
        for order in unused:
            await self._vault.discard(order)

    def _put_off(self, export: Export, failure: Failure, now: datetime) -> Decision:
        if not self.lane.is_large and (failure.is_of_size or isinstance(failure.error, TooLarge)):
            return Decision(lifecycle.set_apart(export, now))
        return lifecycle.fail(export, failure.reason, failure.store, failure.table, now)


async def withdraw_expired(db: Database) -> Swept:
    """Let artefacts go that were promised until before today; idempotent."""
    async with db.transaction("exports-expire") as tx:
        expired = await store.lock_expired(tx, _BATCH_DELETES_MAX)
        await store.save_exports(tx, [lifecycle.withdraw(export, tx.now) for export in expired])
    return Swept(len(expired), more=len(expired) == _BATCH_DELETES_MAX)


async def delete_withdrawn(db: Database, vault: Vault) -> Swept:
    """Delete the artefacts that were let go; deleting one that is gone already changes nothing, and one that cannot be holds nobody up."""
    async with db.transaction("exports-delete") as tx:
        withdrawing = await store.lock_withdrawing(tx, _BATCH_DELETES_MAX)
        decisions = []
        for export in withdrawing:
            try:
                await vault.delete(export.export_id, export.attempts)
                crash.at(Point.ARTEFACT_DELETED)
            except OSError as error:
                log.event("artefact.not_deleted", error=error, export_id=export.export_id)
                decisions.append(lifecycle.keep_withdrawing(export, tx.now))
            else:
                decisions.append(lifecycle.deleted(export))
        await _save(tx, decisions)
    return Swept(len(withdrawing), more=len(withdrawing) == _BATCH_DELETES_MAX)


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
    if any(lifecycle.is_set_apart(decision.export) for decision in decisions):
        tx.did(lifecycle.set_apart)
    for decision in decisions:
        tx.emit(*decision.events, trace=decision.export.traceparent)
        tx.record(*decision.facts, trace=decision.export.traceparent)


async def measure_stuck(db: Database) -> None:
    """Show exports that wait for somebody to look."""
    await show_stuck(db, store.COUNT_STUCK)
