"""Services that are broken on purpose, one in each way that the judge of lives must find."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch
from uuid import UUID

from typing_extensions import override

import erasure_executor.gateways
import erasure_executor.sweeps
import export_builder.gateways
import export_builder.lifecycle
import request_intake.handlers
import request_intake.lifecycle
import request_intake.store
from erasure_executor.gateways import Erasable, Guard, LoggedStores, Outcomes
from export_builder.gateways import Builder, Built, Order
from habeas.chassis.database import Database, Transaction
from habeas.chassis.together import Lane
from habeas.contracts.erasure_executor import ErasureCompleted
from habeas.sealing import Fingerprinter, KeyKind, KeyStore
from habeas.sealing import store as key_store
from notification_mailer.gateways.letters import Letter
from notification_mailer.gateways.post import BeforeDot
from notification_mailer.lifecycle.mails import Report, Result
from request_intake.lifecycle import Decision, Request, State
from tests.simulation.life import shop
from tests.simulation.life.mail import MemoryPost

Broken = Callable[[], AbstractContextManager[object]]


def _guardless() -> AbstractContextManager[object]:
    """Take every report of an erasure as if it were the first."""
    take = request_intake.lifecycle.take_erasure

    def forgets(request: Request, completed: ErasureCompleted, account_fingerprint: str, now: datetime) -> Decision:
        before = replace(request, state=State.IN_PROGRESS)
        return take(before, completed, account_fingerprint, now)

    return patch.object(request_intake.lifecycle, "take_erasure", forgets)


def _closes_early() -> AbstractContextManager[object]:
    """Take the acknowledgement's delivery for that of the answer."""

    def answered(request: Request, event: object, tx: Transaction) -> Decision:
        if request.state is not State.IN_PROGRESS:
            return request_intake.lifecycle.take_answered(request, tx.now)
        done = replace(request, state=State.COMPLETED, contact=None, closed_at=tx.now)
        return Decision(done, (request_intake.lifecycle._completed(done, tx.now),))

    return patch.object(request_intake.handlers, "_answered", answered)


def _erases_the_neighbour() -> AbstractContextManager[object]:
    """Erase one more than was asked for."""
    erase = LoggedStores.erase

    async def wider(self: LoggedStores, account_ids: Sequence[str], guard: Guard) -> Outcomes:
        return await erase(self, sorted({*account_ids, shop.ACCOUNTS[-1]}), guard)

    return patch.object(LoggedStores, "erase", wider)


def _erases_nobody() -> AbstractContextManager[object]:
    """Believe the plan, and leave the store as it is."""

    async def believes(self: LoggedStores, account_ids: Sequence[str], guard: Guard) -> Outcomes:
        await guard()
        return await self.plan(account_ids)

    return patch.object(LoggedStores, "erase", believes)


def _keeps_the_key() -> AbstractContextManager[object]:
    """Complete an erasure and leave the data key."""

    async def keeps(self: KeyStore, conn: object, subject_ids: Iterable[UUID], kind: KeyKind) -> frozenset[UUID]:
        return frozenset(subject_ids)

    return patch.object(KeyStore, "destroy", keeps)


def _destroys_first() -> AbstractContextManager[object]:
    """Destroy the key when an attempt begins; a process that dies then can never open the account again."""
    begin = erasure_executor.sweeps._begin

    async def destroys(
        db: Database, stores: Erasable, keys: KeyStore, fingerprinter: Fingerprinter, lane: Lane
    ) -> object:
        begun, settled = await begin(db, stores, keys, fingerprinter, lane)
        async with db.transaction("erasures-destroy") as tx:
            await keys.destroy(tx, {each.erasure.subject_id for each in begun}, KeyKind.DATA)
        return begun, settled

    return patch.object(erasure_executor.sweeps, "_begin", destroys)


@contextmanager
def _makes_keys_again() -> Iterator[None]:
    """Give a person who was erased the subject and a key that they had."""
    made = key_store.CREATE_SUBJECT_KEYS.replace(
        "WHERE NOT EXISTS (SELECT FROM sealing.subject_keys AS k WHERE k.subject_id = n.subject_id)", ""
    )
    open_still = "SELECT $1::bytea[], $2::timestamptz"
    with (
        patch.object(key_store, "CREATE_SUBJECT_KEYS", made),
        patch.object(request_intake.store, "_CLOSE_ERASED", open_still),
    ):
        yield


class _Hasty(Builder):
    """Tells of its artefacts, and brings them to their place with the next batch."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._late: list[Path] = []

    @override
    async def build(self, orders: Sequence[Order], *, portable_only: bool) -> dict[UUID, Built]:
        late, self._late = self._late, []
        for path in late:
            path.with_suffix(".late").rename(path)
        built: Mapping[UUID, Built] = await super().build(orders, portable_only=portable_only)
        self._late = [self._vault.path(order) for order in orders]
        for path in self._late:
            path.rename(path.with_suffix(".late"))
        return dict(built)


class _DotFirst(MemoryPost):
    """Writes the dot before anything is kept of it."""

    @override
    async def deliver(self, letter: Letter, before_dot: BeforeDot) -> Report:
        if (await self.stage.gate("mail: connect")).is_lost:
            return Report(Result.UNREACHABLE)
        report = await self.dot(letter)
        return report if await before_dot() else Report(Result.FENCED)


BROKEN: Final[Mapping[str, Broken]] = {
    "an intake that forgets the state guard": _guardless,
    "an intake that closes a request with its acknowledgement": _closes_early,
    "an executor that erases the neighbour": _erases_the_neighbour,
    "an executor that erases nobody": _erases_nobody,
    "an executor that keeps the key": _keeps_the_key,
    "an executor that destroys the key first": _destroys_first,
    "an export that is told before it is there": lambda: patch.object(export_builder.gateways, "Builder", _Hasty),
}
