"""The time edge of request-intake."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import tzinfo
from typing import Final
from uuid import UUID

from habeas.chassis import metrics
from habeas.chassis.database import Database
from habeas.chassis.gauges import show_stuck
from habeas.chassis.metrics import Gauge, Label
from habeas.chassis.redaction import named
from habeas.chassis.sweep import Swept
from habeas.contracts.vocabulary import Right
from habeas.datamap.postgres import ContactDetails
from habeas.sealing import KeyKind, KeyStore, Place, SubjectKey, seal_json, try_open_text
from request_intake import lifecycle, store
from request_intake.gateways import AddressBook
from request_intake.lifecycle import Request, State

_BATCH_ROWS_MAX: Final = 500
_DUE_SOON_DAYS: Final = 5
_LATE: Final[Mapping[Gauge, str]] = {
    metrics.REQUEST_DUE_SOON_REQUESTS: "due_soon",
    metrics.REQUEST_OVERDUE_REQUESTS: "overdue",
    metrics.REQUEST_PAST_LIMIT_REQUESTS: "past_limit",
}


async def open_received(db: Database, address_book: AddressBook, keys: KeyStore) -> Swept:
    """Open requests that nobody was told about yet: find where to answer, acknowledge, let work begin.

    Idempotent: each request is opened in the transaction that locks it. While a store is away requests stay received, and their
    deadlines run. So does one whose keys are missing or do not open what was sealed under them, with this as its reason.
    """
    return await _open(db, address_book, keys, stuck=False)


async def open_stuck(db: Database, address_book: AddressBook, keys: KeyStore) -> Swept:
    """Try again what did not open: somebody may have brought its keys back. Idempotent, as above."""
    return await _open(db, address_book, keys, stuck=True)


async def _open(db: Database, address_book: AddressBook, keys: KeyStore, *, stuck: bool) -> Swept:
    async with db.transaction("open-received") as tx:
        received = await store.lock_received(tx, _BATCH_ROWS_MAX, stuck=stuck)
        if not received:
            return Swept(0)
        tx.caused_by(*(request.traceparent for request in received))
        subjects = {request.subject_id for request in received}
        case_keys = await keys.read(tx, subjects, KeyKind.CASE)
        accounts, closed = _accounts(received, await keys.read(tx, subjects, KeyKind.DATA), case_keys)
        contacts = await address_book.contacts(sorted(set(accounts.values())))
        prints = await store.find_fingerprints(tx, subjects)
        decisions = []
        for request in received:
            if request.request_id in closed:
                decisions.append(lifecycle.leave_closed(request))
                continue
            # Without the data key the person was erased since: there is nobody to write to, and nothing that could be read.
            contact = contacts.get(accounts.get(request.request_id, ""))
            sealed = _sealed(contact, request, case_keys[request.subject_id])
            fingerprint = prints[request.subject_id].hex()
            decisions.append(
                lifecycle.open_request(request, sealed, fingerprint, tx.now, has_account=contact is not None)
            )
        for decision in decisions:
            tx.emit(*decision.events, trace=decision.request.traceparent)
            tx.record(*decision.facts, trace=decision.request.traceparent)
        changed = [decision.request for decision in decisions if decision.facts]
        await store.save_requests(tx, changed)
    return Swept(len(changed), more=len(changed) == _BATCH_ROWS_MAX)


async def rekey_digests(db: Database, keys: KeyStore) -> Swept:
    """Key the digests of submissions that an earlier version kept bare: they could be guessed. Idempotent; nothing is left for long."""
    async with db.transaction("rekey-digests") as tx:
        bare = await store.lock_bare_digests(tx, _BATCH_ROWS_MAX)
        case_keys = await keys.read(tx, {subject_id for _, subject_id, _ in bare}, KeyKind.CASE)
        digests = {
            request_id: lifecycle.rekey(digest, request_id, case_keys.get(subject_id))
            for request_id, subject_id, digest in bare
        }
        await store.save_digests(tx, digests)
    return Swept(len(bare), more=len(bare) == _BATCH_ROWS_MAX)


def _accounts(
    received: Sequence[Request], data_keys: Mapping[UUID, SubjectKey], case_keys: Mapping[UUID, SubjectKey]
) -> tuple[Mapping[UUID, str], frozenset[UUID]]:
    """Open the accounts of those who have a data key; also gives the requests of which something is missing or does not open."""
    accounts: dict[UUID, str] = {}
    closed = {request.request_id for request in received if request.subject_id not in case_keys}
    for request in received:
        if request.subject_id in data_keys and request.request_id not in closed:
            place = Place("request", request.request_id, "account")
            account = try_open_text(data_keys[request.subject_id], place, request.account)
            if account is None:
                closed.add(request.request_id)
            else:
                accounts[request.request_id] = account
    return accounts, frozenset(closed)


async def measure_deadlines(db: Database, zone: tzinfo) -> None:
    """Show how many requests are open, due soon, late and stuck; a day is the controller's."""
    today = db.clock.now().astimezone(zone).date()
    rows = await db.read("measure-deadlines", store.COUNT_OPEN, today, _DUE_SOON_DAYS)
    states: Counter[tuple[Label, ...]] = Counter()
    late: dict[Gauge, Counter[tuple[Label, ...]]] = {gauge: Counter() for gauge in _LATE}
    for row in rows:
        right = Right(row["dsr_right"])
        states[right, State(row["state"])] += row["requests"]
        for gauge, column in _LATE.items():
            late[gauge][right, named(row["reason"])] += row[column]
    metrics.REQUEST_OPEN_REQUESTS.show_all(states)
    for gauge, counts in late.items():
        gauge.show_all(counts)
    await show_stuck(db, store.COUNT_STUCK)


def _sealed(contact: ContactDetails | None, request: Request, case_key: SubjectKey) -> str | None:
    """Seal the address under the case key, since the outcome is mailed after the data key is gone."""
    if contact is None or not contact.address or contact.address.isspace():
        return None
    language = request.language or contact.language
    value = {"address": contact.address, "name": contact.name, "language": language}
    return seal_json(case_key, Place("request", request.request_id, "contact"), value)
