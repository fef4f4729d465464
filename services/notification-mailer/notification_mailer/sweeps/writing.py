"""Writing letters: the sealed is opened, the template filled, in memory only."""

import asyncio
from collections.abc import Sequence
from typing import Final, TypeAlias
from uuid import UUID

from habeas.chassis import log
from habeas.chassis.database import Transaction
from habeas.chassis.together import Limits, collect_together
from habeas.contracts.vocabulary import MailKind, StuckReason
from habeas.sealing import KeyStore, Place, SealingError, SubjectKey, open_json, try_open_text
from notification_mailer.errors import Unaddressable
from notification_mailer.gateways import Audience, CampaignKeys, Letter, Letters, Recipient
from notification_mailer.lifecycle.mails import Mail
from notification_mailer.store import campaigns, messages

_LETTERS_IN_A_ROW: Final = 100

_CONTACTS: Final = Limits(2.0, 0.005, round_s=6.0)  # a transaction of the own database is open meanwhile

Written: TypeAlias = tuple[Mail, Letter | Unaddressable | StuckReason | None]
"""A mail with its letter; with an error when no letter can go to its address; with None when nobody is left to write to; with the
reason for which no letter could be written now."""


async def write_request_letters(
    tx: Transaction, due: Sequence[Mail], letters: Letters, keys: KeyStore
) -> list[Written]:
    """Write acknowledgements and outcomes to the contacts that came with the requests, opened under the case keys.

    Whoever has no data key any more was erased, with every copy: a mail that is written now names none.
    """
    contacts = await messages.find_contacts(tx, {mail.request_id for mail in due if mail.request_id is not None})
    alive, case_keys = await keys.read_both(tx, {contact.subject_id for contact in contacts.values()})
    written: list[Written] = []
    for mail in due:
        await _breathe(written)
        contact = None if mail.request_id is None else contacts.get(mail.request_id)
        key = None if contact is None else case_keys.get(contact.subject_id)
        if mail.request_id is None or contact is None or contact.sealed is None or key is None:
            written.append((mail, None))
            continue
        try:
            recipient = _opened(key, mail.request_id, contact.sealed)
            if mail.kind is MailKind.OUTCOME:
                written.append(
                    (mail, letters.outcome(mail, recipient, tx.now, is_erased=contact.subject_id not in alive))
                )
            else:
                written.append((mail, letters.acknowledgement(mail, recipient, tx.now)))
        except Unaddressable as error:
            written.append((mail, error))
        except SealingError as error:
            log.event("mail.contact_unreadable", error=error, mail_id=mail.mail_id)
            written.append((mail, Unaddressable()))
        except Exception as error:  # noqa: BLE001 -- whatever is wrong with one letter must not hold the others up
            written.append((mail, _unexpected(mail, error)))
    return written


async def write_campaign_letters(
    tx: Transaction, due: Sequence[Mail], letters: Letters, keys: CampaignKeys, audience: Audience
) -> list[Written]:
    """Write notices to the addresses that the stores hold now: who was erased since is not written to.

    Raises ``StoreError`` when a store does not answer for anybody; nothing is claimed then.
    """
    found = await campaigns.find_campaigns(tx, {mail.campaign_id for mail in due if mail.campaign_id is not None})
    opened = {
        campaign_id: keys.open(campaign_id, campaign.key)
        for campaign_id, campaign in found.items()
        if campaign.key is not None
    }
    accounts: dict[UUID, str] = {}
    broken: set[UUID] = set()
    for mail in due:
        if mail.campaign_id in opened and mail.account is not None:
            account = try_open_text(opened[mail.campaign_id], Place("mail", mail.mail_id, "account"), mail.account)
            if account is None:
                broken.add(mail.mail_id)
            else:
                accounts[mail.mail_id] = account
    contacts, failures = await collect_together(sorted(set(accounts.values())), audience.contacts, _CONTACTS)
    if failures and not contacts and all(failure.is_shared for failure in failures.values()):
        raise next(iter(failures.values())).error
    written: list[Written] = []
    for mail in due:
        await _breathe(written)
        account = accounts.get(mail.mail_id, "")
        contact = contacts.get(account)
        if mail.mail_id in broken:
            written.append((mail, StuckReason.KEY_MISSING))
            continue
        if account in failures:
            written.append((mail, failures[account].reason))
            continue
        if mail.campaign_id is None or contact is None or not contact.address:
            written.append((mail, None))
            continue
        recipient = Recipient(contact.address, contact.name, contact.language)
        try:
            written.append((mail, letters.policy_change(mail, found[mail.campaign_id], recipient, tx.now)))
        except Unaddressable as error:
            written.append((mail, error))
        except Exception as error:  # noqa: BLE001 -- whatever is wrong with one letter must not hold the others up
            written.append((mail, _unexpected(mail, error)))
    return written


def _unexpected(mail: Mail, error: Exception) -> StuckReason:
    log.event("mail.not_written", error=error, mail_id=mail.mail_id)
    return StuckReason.UNEXPECTED


async def _breathe(written: Sequence[Written]) -> None:
    """Let others run from time to time: a hundred letters take some milliseconds."""
    if len(written) % _LETTERS_IN_A_ROW == 0:
        await asyncio.sleep(0)


def _opened(key: SubjectKey, request_id: UUID, sealed: str) -> Recipient:
    contact = open_json(key, Place("request", request_id, "contact"), sealed)
    address, name, language = contact.get("address"), contact.get("name"), contact.get("language")
    if not isinstance(address, str):
        raise Unaddressable
    return Recipient(address, name if isinstance(name, str) else None, language if isinstance(language, str) else None)
