"""Campaigns: who is to be told is read page by page, the end is counted, the notice period is watched."""

from typing import Final
from uuid import UUID

from habeas.chassis.database import Database
from habeas.chassis.errors import Invariant
from habeas.chassis.sweep import Swept
from habeas.sealing import Fingerprinter, Place, SubjectKey, open_text, seal_text
from notification_mailer.gateways import Audience, CampaignKeys
from notification_mailer.lifecycle import campaigns, mails
from notification_mailer.lifecycle.campaigns import Campaign, Notice
from notification_mailer.store import campaigns as store
from notification_mailer.store import messages
from notification_mailer.store.campaigns import Reading

_WARNINGS_MAX: Final = 100


async def gather_recipients(
    db: Database, audience: Audience, keys: CampaignKeys, fingerprinter: Fingerprinter, page_accounts_max: int
) -> Swept:
    """Write one page of account holders down to be told.

    Idempotent: the page and the place after it are committed together, and nobody is written down twice for one campaign.
    Accounts that are opened while a campaign is read may be missed: they have agreed to the policy as announced.
    """
    async with db.transaction("recipients-gather") as tx:
        reading = await store.lock_reading(tx)
        if reading is None:
            return Swept(0)
        campaign = (await store.find_campaigns(tx, [reading.campaign_id]))[reading.campaign_id]
        tx.caused_by(campaign.traceparent)
        key = _key(campaign, keys)
        last_read = None if reading.last_read is None else open_text(key, _place(campaign), reading.last_read)
        page = await audience.account_ids(reading.store, last_read, page_accounts_max)
        if page is None:
            await store.drop_reading(tx, reading.campaign_id)
            await store.save_campaign(tx, campaigns.gathered(await store.lock_campaign(tx, reading.campaign_id)))
            return Swept(1)
        found = [_recipient(campaign, account_id, key, fingerprinter) for account_id in page.account_ids]
        queued = [mails.notify(campaign.campaign_id, *each, campaign.traceparent, tx.now) for each in found]
        added = await messages.add_campaign_mails(tx, queued)
        tx.record(*mails.queued(mail for mail in queued if mail.mail_id in added), trace=campaign.traceparent)
        last = None if page.last is None else seal_text(key, _place(campaign), page.last)
        await store.save_reading(tx, Reading(campaign.campaign_id, page.store, last))
    return Swept(max(1, len(page.account_ids)), more=True)


async def close_campaigns(db: Database) -> Swept:
    """End a campaign that has nobody left to tell: count, tell, destroy its key."""
    async with db.transaction("campaigns-close") as tx:
        campaign = await store.lock_ending(tx)
        if campaign is None:
            return Swept(0)
        decision = campaigns.finish(campaign, await messages.count_mails(tx, campaign.campaign_id), tx.now)
        await store.save_campaign(tx, decision.campaign)
        tx.emit(*decision.events, trace=campaign.traceparent)
        tx.record(*decision.facts, trace=campaign.traceparent)
    return Swept(1, more=True)


async def watch_notice(db: Database, notice: Notice) -> Swept:
    """Say once a day of every change that would take effect before the promised notice is over, until its date is mended."""
    async with db.transaction("notice-watch") as tx:
        early = await store.lock_too_early(tx, notice.day(tx.now), _WARNINGS_MAX)
        for campaign in early:
            decision = campaigns.warn(campaign, notice, tx.now)
            await store.save_campaign(tx, decision.campaign)
            tx.emit(*decision.events, trace=campaign.traceparent)
            tx.record(*decision.facts, trace=campaign.traceparent)
    return Swept(len(early), more=len(early) == _WARNINGS_MAX)


def _recipient(
    campaign: Campaign, account_id: str, key: SubjectKey, fingerprinter: Fingerprinter
) -> tuple[UUID, str, bytes]:
    fingerprint = fingerprinter.fingerprint("account", account_id)
    mail_id = mails.mail_id_in(campaign.campaign_id, fingerprint)
    return mail_id, seal_text(key, Place("mail", mail_id, "account"), account_id), fingerprint


def _key(campaign: Campaign, keys: CampaignKeys) -> SubjectKey:
    if campaign.key is None:
        message = "a campaign that is being read has no key"
        raise Invariant(message)
    return keys.open(campaign.campaign_id, campaign.key)


def _place(campaign: Campaign) -> Place:
    return Place("campaign", campaign.campaign_id, "last_read")
