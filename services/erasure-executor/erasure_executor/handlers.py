"""The message edge of erasure-executor."""

from erasure_executor import lifecycle, store
from habeas.chassis.batch import Batch
from habeas.chassis.database import Transaction
from habeas.contracts.request_intake import RequestVerified
from habeas.contracts.vocabulary import Right


async def on_request_verified(batch: Batch[RequestVerified], tx: Transaction) -> None:
    """Begin an erasure for each verified request for erasure; other rights are somebody else's.

    A request to erase some categories only is never begun: all or nothing is what this service can do.

    Runs once per event; an erasure that is known already stays as it is, and is told again when it is completed: whoever asks again, as
    after a restored database, has not heard of it. Under another subject the request was taken anew, and so is the erasure.
    """
    begun = {
        verified.request_id: lifecycle.begin_erasure(verified, batch.trace, tx.now)
        for verified in batch
        if verified.right is Right.ERASURE and verified.categories is None
    }
    added = await store.add_erasures(tx, [decision.erasure for decision in begun.values()])
    for request_id in added:
        tx.record(*begun[request_id].facts, trace=begun[request_id].erasure.traceparent)
    for erasure in (await store.lock_erasures(tx, begun.keys() - added)).values():
        tx.emit(*lifecycle.tell_again(erasure), trace=begun[erasure.request_id].erasure.traceparent)
