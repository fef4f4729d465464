"""The time edge of request-intake."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, tzinfo
from typing import Final
from uuid import UUID

from habeas.chassis import log, metrics
from habeas.chassis.database import Database
from habeas.chassis.gauges import show_stuck
from habeas.chassis.metrics import Gauge, Label
from habeas.chassis.redaction import named
from habeas.chassis.sweep import Swept
from habeas.chassis.together import Limits, collect_together
from habeas.contracts.vocabulary import Right, StuckReason
from habeas.datamap.postgres import ContactDetails
from habeas.sealing import KeyKind, KeyStore, Place, SubjectKey, seal_json, try_open_text
from request_intake import lifecycle, store
from request_intake.gateways import AddressBook
from request_intake.lifecycle import Request, State

_BATCH_ROWS_MAX: Final = 500
_CONTACTS: Final = Limits(2.0, 0.005, round_s=6.0)  # a transaction of the own database is open meanwhile
_DUE_SOON_DAYS: Final = 5
_LATE: Final[Mapping[Gauge, str]] = {
    metrics.REQUEST_DUE_SOON_REQUESTS: "due_soon",
    metrics.REQUEST_OVERDUE_REQUESTS: "overdue",
    metrics.REQUEST_PAST_LIMIT_REQUESTS: "past_limit",
}


async def open_received(db: Database, address_book: AddressBook, keys: KeyStore, zone: tzinfo = UTC) -> Swept:
    """Open requests that nobody was told about yet: find where to answer, acknowledge, let work begin.

    Idempotent: each request is opened in the transaction that locks it. One that cannot be opened stays received with the reason, its
    deadline runs, and it is tried again with backoff: while a store is away or objects to the account, while its keys are missing or
    do not open what was sealed under them. It holds nobody else up.

    An erasure waits while a copy that its person asked for before is being made and told of (``docs/decisions/0035``).
    """
    async with db.transaction("open-received") as tx:
        received = await store.lock_received(tx, _BATCH_ROWS_MAX)
        if not received:
            return Swept(0)
        tx.caused_by(*(request.traceparent for request in received))
        looked_at = len(received)
        today = tx.now.astimezone(zone).date()
        waiting = await store.find_waiting(
            tx, [request.request_id for request in received if lifecycle.may_wait(request)], today
        )
        await store.put_off(
            tx, [lifecycle.wait_for_earlier(each, tx.now) for each in received if each.request_id in waiting]
        )
        received = [request for request in received if request.request_id not in waiting]
        subjects = {request.subject_id for request in received}
        data_keys, case_keys = await keys.read_both(tx, subjects)
        accounts, closed = _accounts(received, data_keys, case_keys)
        asked = sorted(set(accounts.values()))
        contacts, failures = await collect_together(asked, address_book.contacts, _CONTACTS)
        prints = await store.find_fingerprints(tx, subjects)
        opened, put_off = [], []
        for request in received:
            account = accounts.get(request.request_id, "")
            reason = failures[account].reason if account in failures else None
            if request.request_id in closed:
                reason = StuckReason.KEY_MISSING
            elif reason is None:
                # Without the data key the person was erased since: there is nobody to write to, and nothing that could be read.
                try:
                    contact = contacts.get(account)
                    sealed = _sealed(contact, request, case_keys[request.subject_id])
                    fingerprint = prints[request.subject_id].hex()
                    decision = lifecycle.open_request(
                        request, sealed, fingerprint, tx.now, has_account=contact is not None
                    )
                    tx.emit(*decision.events, trace=request.traceparent)
                    opened.append(decision)
                except Exception as error:  # noqa: BLE001 -- whatever is wrong with one request must not hold the others up
                    log.event("request.not_opened", error=error, request_id=request.request_id)
                    reason = StuckReason.UNEXPECTED
            if reason is not None:
                put_off.append(lifecycle.put_off(request, reason, tx.now))
        for decision in (*opened, *put_off):
            tx.record(*decision.facts, trace=decision.request.traceparent)
        await store.save_requests(tx, [decision.request for decision in opened])
        await store.put_off(tx, [decision.request for decision in put_off])
    return Swept(looked_at, more=looked_at == _BATCH_ROWS_MAX)


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
    language = lifecycle.language_of(request) or contact.language
    value = {"address": contact.address, "name": contact.name, "language": language}
    return seal_json(case_key, Place("request", request.request_id, "contact"), value)
