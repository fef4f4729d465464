"""The message edge of notification-mailer: mails are written down here, never sent."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from habeas.chassis.batch import Batch
from habeas.chassis.database import Transaction
from habeas.contracts.notification_mailer import campaign_id_of
from habeas.contracts.platform import PolicyChanged
from habeas.contracts.request_intake import (
    RequestAccepted,
    RequestCompleted,
    RequestDenied,
    RequestExpired,
    RequestFulfilled,
    RequestWithdrawn,
)
from habeas.contracts.vocabulary import ParkReason
from notification_mailer.gateways import CampaignKeys
from notification_mailer.lifecycle import campaigns, mails
from notification_mailer.lifecycle.campaigns import Notice
from notification_mailer.lifecycle.mails import Mail
from notification_mailer.store import campaigns as campaign_store
from notification_mailer.store import messages

E = TypeVar("E", RequestCompleted, RequestDenied, RequestExpired, RequestWithdrawn)


@dataclass(frozen=True, slots=True)
class Desk:
    """What taking a policy change needs besides the database."""

    notice: Notice
    keys: CampaignKeys


async def on_request_accepted(batch: Batch[RequestAccepted], tx: Transaction) -> None:
    """Keep where to write to, and write the acknowledgement down; without an address nobody is mailed."""
    contacts = {}
    queued = []
    for event in batch:
        contacts[event.request_id] = (event.subject_id, event.contact)
        if event.contact is not None:
            queued.append(mails.acknowledge(event, batch.trace, tx.now))
    await messages.add_contacts(tx, contacts)
    added = await messages.add_request_mails(tx, queued)
    _record_queued(tx, [mail for mail in queued if mail.mail_id in added])


async def on_request_fulfilled(batch: Batch[RequestFulfilled], tx: Transaction) -> None:
    """Write the outcome mail down; a request that was never accepted here is poison, so that nobody stays untold unseen.

    Where it has been written down already, nothing is sent again. What became of it is told again: whoever says this again, as after a
    restored database, has not heard it.
    """
    request_ids = [event.request_id for event in batch]
    known = await messages.find_contacts(tx, request_ids)
    told = await messages.find_outcomes(tx, request_ids)
    queued = []
    for event in batch:
        if (mail := told.get(event.request_id)) is not None:
            tx.emit(*mails.tell_again(mail))
            continue
        if batch.require(known, event.request_id, unknown="request_id").sealed is not None:
            queued.append(mails.answer(event, batch.trace, tx.now))
    added = await messages.add_request_mails(tx, queued)
    _record_queued(tx, [mail for mail in queued if mail.mail_id in added])
    await messages.drop_contacts(tx, {request_id for request_id, contact in known.items() if contact.sealed is None})


async def on_request_completed(batch: Batch[RequestCompleted], tx: Transaction) -> None:
    """The person has been answered: forget where to write to."""
    await _forget(batch, tx)


async def on_request_denied(batch: Batch[RequestDenied], tx: Transaction) -> None:
    """A person has answered: forget where to write to."""
    await _forget(batch, tx)


async def on_request_expired(batch: Batch[RequestExpired], tx: Transaction) -> None:
    """Nobody waits for an answer: forget where to write to."""
    await _forget(batch, tx)


async def on_request_withdrawn(batch: Batch[RequestWithdrawn], tx: Transaction) -> None:
    """Nobody waits for an answer: forget where to write to."""
    await _forget(batch, tx)


async def on_policy_changed(batch: Batch[PolicyChanged], tx: Transaction, desk: Desk) -> None:
    """Begin a campaign for each new change; one that is known may only get another date.

    Everything else under a known id is parked: it was mailed to people as it was. Where the database has forgotten what was mailed, the
    change is taken at its word, and nobody is mailed again.
    """
    known = await campaign_store.lock_campaigns(tx, batch.field("change_id"))
    for change in batch:
        before = known.get(change.change_id)
        if before is not None and before.content_digest == campaigns.FORGOTTEN:
            before = campaigns.recall(before, change)
            await campaign_store.recall_campaign(tx, before)
        if before is None:
            key = desk.keys.make(campaign_id_of(change.change_id))
            decision = campaigns.schedule(change, key, desk.notice, batch.trace, tx.now)
            await campaign_store.add_campaign(tx, decision.campaign)
        elif before.content_digest != campaigns.digest_of(change):
            batch.reject(ParkReason.ID_CONFLICT, "change_id")
            continue
        else:
            decision = campaigns.amend(before, change, desk.notice, tx.now)
            await campaign_store.save_campaign(tx, decision.campaign)
        known[change.change_id] = decision.campaign
        tx.emit(*decision.events)
        tx.record(*decision.facts)


def _record_queued(tx: Transaction, queued: Iterable[Mail]) -> None:
    """Say in the log that mails were written down, each within the trace of its request."""
    for mail in queued:
        tx.record(*mails.queued([mail]), trace=mail.traceparent)


async def _forget(batch: Batch[E], tx: Transaction) -> None:
    await messages.drop_contacts(tx, {event.request_id for event in batch})
