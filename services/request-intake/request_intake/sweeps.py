"""The time edge of request-intake."""

from typing import Final

from habeas.chassis.database import Database
from habeas.chassis.sweep import Swept
from habeas.datamap.postgres import ContactDetails
from habeas.sealing import KeyKind, KeyStore, Place, SubjectKey, open_text, seal_json
from request_intake import lifecycle, store
from request_intake.gateways import AddressBook
from request_intake.lifecycle import Request

_BATCH_ROWS_MAX: Final = 500


async def open_received(db: Database, address_book: AddressBook, keys: KeyStore) -> Swept:
    """Open requests that nobody was told about yet: find where to answer, acknowledge, let work begin.

    Idempotent: each request is opened in the transaction that locks it. While a store is away requests stay received, and their
    deadlines run.
    """
    async with db.transaction("open-received") as tx:
        received = await store.lock_received(tx, _BATCH_ROWS_MAX)
        if not received:
            return Swept(0)
        tx.caused_by(*(request.traceparent for request in received))
        subjects = {request.subject_id for request in received}
        data_keys = await keys.read(tx, subjects, KeyKind.DATA)
        case_keys = await keys.require(tx, subjects, KeyKind.CASE)
        accounts = {
            request.request_id: open_text(
                data_keys[request.subject_id], Place("request", request.request_id, "account"), request.account
            )
            for request in received
            if request.subject_id in data_keys
        }
        contacts = await address_book.contacts(sorted(set(accounts.values())))
        prints = await store.find_fingerprints(tx, subjects)
        opened = []
        for request in received:
            # Without the data key the person was erased since: there is nobody to write to, and nothing that could be read.
            contact = contacts.get(accounts.get(request.request_id, ""))
            sealed = _sealed(contact, request, case_keys[request.subject_id])
            decision = lifecycle.open_request(request, sealed, prints[request.subject_id].hex(), tx.now)
            opened.append(decision.request)
            tx.emit(*decision.events, trace=request.traceparent)
            tx.record(*decision.facts, trace=request.traceparent)
        await store.save_requests(tx, opened)
    return Swept(len(received), more=len(received) == _BATCH_ROWS_MAX)


def _sealed(contact: ContactDetails | None, request: Request, case_key: SubjectKey) -> str | None:
    """Seal the address under the case key, since the outcome is mailed after the data key is gone."""
    if contact is None or contact.address is None:
        return None
    language = request.language or contact.language
    value = {"address": contact.address, "name": contact.name, "language": language}
    return seal_json(case_key, Place("request", request.request_id, "contact"), value)
