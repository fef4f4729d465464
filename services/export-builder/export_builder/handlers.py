"""The message edge of export-builder."""

from export_builder import lifecycle, store
from habeas.chassis.batch import Batch
from habeas.chassis.database import Transaction
from habeas.contracts.erasure_executor import ErasureCompleted
from habeas.contracts.request_intake import RequestVerified
from habeas.contracts.vocabulary import Right
from habeas.sealing import KeyStore

_EXPORTED = frozenset({Right.ACCESS, Right.PORTABILITY})


async def on_request_verified(batch: Batch[RequestVerified], tx: Transaction) -> None:
    """Begin an export for each verified request for access or portability; other rights are somebody else's.

    An export that is known already stays as it is, and is told again when it is completed: whoever asks again, as after a restored
    database, has not heard of it. Under another subject the request was taken anew, and so is the export.
    """
    begun = {
        verified.request_id: lifecycle.begin_export(verified, batch.trace, tx.now)
        for verified in batch
        if verified.right in _EXPORTED
    }
    added = await store.add_exports(tx, [decision.export for decision in begun.values()])
    for request_id in added:
        tx.record(*begun[request_id].facts, trace=begun[request_id].export.traceparent)
    for export in await store.lock_of_requests(tx, begun.keys() - added):
        tx.emit(*lifecycle.tell_again(export), trace=begun[export.request_id].export.traceparent)


async def on_erasure_completed(batch: Batch[ErasureCompleted], tx: Transaction, keys: KeyStore) -> None:
    """Withdraw every artefact of an erased person, and remember that nothing is held any more."""
    subjects = {event.subject_id for event in batch}
    keys.forget(subjects)
    await store.add_erased(tx, subjects)
    completed = await store.lock_completed_of_subjects(tx, subjects)
    await store.save_exports(tx, [lifecycle.withdraw(export, tx.now) for export in completed])
