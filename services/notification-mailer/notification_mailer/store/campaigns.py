"""Statements about policy-change campaigns."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final
from uuid import UUID

import asyncpg

from habeas.chassis.database import Transaction
from notification_mailer.lifecycle.campaigns import Campaign, State, WrappedKey

_ADD_CAMPAIGN: Final = """
    INSERT INTO notification_mailer.campaigns (campaign_id, change_id, state, version, summary, url, content_digest, effective_on,
                                               earliest_effective_on, scheduled_at, kek_id, wrapped_key, warned_on, ended_at,
                                               traceparent)
    VALUES ($1, $2, $3, $4, $5::jsonb, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
"""

_ADD_READING: Final = """
    INSERT INTO notification_mailer.readings (campaign_id) VALUES ($1)
"""

_CAMPAIGN_COLUMNS: Final = """
    SELECT campaign_id, change_id, state, version, summary::text, url, content_digest, effective_on, earliest_effective_on,
           scheduled_at, kek_id, wrapped_key, warned_on, last_sent_at, sent, refused, uncertain, suppressed, ended_at, traceparent
      FROM notification_mailer.campaigns
"""

_LOCK_CAMPAIGNS: Final = _CAMPAIGN_COLUMNS + " WHERE change_id = ANY($1::text[]) ORDER BY campaign_id FOR UPDATE"

_FIND_CAMPAIGNS: Final = _CAMPAIGN_COLUMNS + " WHERE campaign_id = ANY($1::uuid[])"

_LOCK_CAMPAIGN: Final = _CAMPAIGN_COLUMNS + " WHERE campaign_id = $1 FOR UPDATE"

_LOCK_TOO_EARLY: Final = (
    _CAMPAIGN_COLUMNS
    + """
     WHERE state <> 'recorded' AND effective_on < earliest_effective_on AND (warned_on IS NULL OR warned_on < $1)
     ORDER BY campaign_id
     LIMIT $2
       FOR UPDATE SKIP LOCKED
"""
)

_LOCK_ENDING: Final = (
    _CAMPAIGN_COLUMNS
    + """
     WHERE state = 'mailing'
       AND NOT EXISTS (SELECT FROM notification_mailer.messages AS m
                        WHERE m.campaign_id = campaigns.campaign_id AND m.ended_at IS NULL)
     ORDER BY campaign_id
     LIMIT 1
       FOR UPDATE SKIP LOCKED
"""
)

_LOCK_READING: Final = """
    SELECT campaign_id, store, last_read FROM notification_mailer.readings ORDER BY campaign_id LIMIT 1 FOR UPDATE SKIP LOCKED
"""

_SAVE_READING: Final = """
    UPDATE notification_mailer.readings SET store = $2, last_read = $3 WHERE campaign_id = $1
"""

_DROP_READING: Final = """
    DELETE FROM notification_mailer.readings WHERE campaign_id = $1
"""

# Neither last_sent_at nor earliest_effective_on is written here: NOTE_NOTICES moves them while nobody holds the row.
_SAVE_CAMPAIGN: Final = """
    UPDATE notification_mailer.campaigns
       SET state = $2, effective_on = $3, kek_id = $4, wrapped_key = $5, warned_on = $6, sent = $7, refused = $8, uncertain = $9,
           suppressed = $10, ended_at = $11
     WHERE campaign_id = $1
"""

_RECALL_CAMPAIGN: Final = """
    UPDATE notification_mailer.campaigns SET version = $2, summary = $3::jsonb, url = $4, content_digest = $5 WHERE campaign_id = $1
"""

_NOTE_NOTICES: Final = """
    UPDATE notification_mailer.campaigns
       SET last_sent_at = greatest(last_sent_at, $2), earliest_effective_on = greatest(earliest_effective_on, $3::date)
     WHERE campaign_id = ANY($1::uuid[])
"""


@dataclass(frozen=True, slots=True)
class Reading:
    """How far a campaign's account holders were read; ``last_read`` is sealed."""

    campaign_id: UUID
    store: str | None
    last_read: str | None


async def add_campaign(tx: Transaction, campaign: Campaign) -> None:
    """Insert a new campaign, and where its readers begin."""
    await tx.execute_exactly(
        1,
        _ADD_CAMPAIGN,
        campaign.campaign_id,
        campaign.change_id,
        campaign.state,
        campaign.version,
        json.dumps(dict(campaign.summary)),
        campaign.url,
        campaign.content_digest,
        campaign.effective_on,
        campaign.earliest_effective_on,
        campaign.scheduled_at,
        campaign.key.kek_id if campaign.key else None,
        campaign.key.wrapped if campaign.key else None,
        campaign.warned_on,
        campaign.ended_at,
        campaign.traceparent,
    )
    if campaign.state is State.GATHERING:
        await tx.execute_exactly(1, _ADD_READING, campaign.campaign_id)


async def lock_campaigns(tx: Transaction, change_ids: Sequence[object]) -> dict[str, Campaign]:
    """Lock the campaigns of some changes and give those that exist."""
    return {row["change_id"]: _campaign(row) for row in await tx.fetch(_LOCK_CAMPAIGNS, change_ids)}


async def find_campaigns(tx: Transaction, campaign_ids: Iterable[UUID]) -> dict[UUID, Campaign]:
    """Give some campaigns as they are now."""
    return {row["campaign_id"]: _campaign(row) for row in await tx.fetch(_FIND_CAMPAIGNS, list(campaign_ids))}


async def lock_campaign(tx: Transaction, campaign_id: UUID) -> Campaign:
    """Lock one campaign, which exists."""
    (row,) = await tx.fetch(_LOCK_CAMPAIGN, campaign_id)
    return _campaign(row)


async def lock_too_early(tx: Transaction, today: date, limit: int) -> list[Campaign]:
    """Lock campaigns whose change would take effect too early and of which that was not said today."""
    return [_campaign(row) for row in await tx.fetch(_LOCK_TOO_EARLY, today, limit)]


async def lock_ending(tx: Transaction) -> Campaign | None:
    """Lock a campaign that has nobody left to tell."""
    row = await tx.fetchrow(_LOCK_ENDING)
    return None if row is None else _campaign(row)


async def lock_reading(tx: Transaction) -> Reading | None:
    """Lock the place where the account holders of a campaign have to be read on, if there is one."""
    row = await tx.fetchrow(_LOCK_READING)
    return None if row is None else Reading(row["campaign_id"], row["store"], row["last_read"])


async def save_reading(tx: Transaction, reading: Reading) -> None:
    """Move the place on."""
    await tx.execute_exactly(1, _SAVE_READING, reading.campaign_id, reading.store, reading.last_read)


async def drop_reading(tx: Transaction, campaign_id: UUID) -> None:
    """Forget the place: every account holder was read."""
    await tx.execute_exactly(1, _DROP_READING, campaign_id)


async def save_campaign(tx: Transaction, campaign: Campaign) -> None:
    """Write what was decided about a locked campaign."""
    await tx.execute_exactly(
        1,
        _SAVE_CAMPAIGN,
        campaign.campaign_id,
        campaign.state,
        campaign.effective_on,
        campaign.key.kek_id if campaign.key else None,
        campaign.key.wrapped if campaign.key else None,
        campaign.warned_on,
        campaign.sent,
        campaign.refused,
        campaign.uncertain,
        campaign.suppressed,
        campaign.ended_at,
    )


async def recall_campaign(tx: Transaction, campaign: Campaign) -> None:
    """Write what the change of a locked campaign says."""
    said = (campaign.version, json.dumps(dict(campaign.summary)), campaign.url, campaign.content_digest)
    await tx.execute_exactly(1, _RECALL_CAMPAIGN, campaign.campaign_id, *said)


async def note_notices(tx: Transaction, campaign_ids: Iterable[UUID], earliest: date) -> None:
    """Say that mails of these campaigns were accepted now: the changes may take effect no earlier than ``earliest``."""
    ids = sorted(campaign_ids)
    if ids:
        await tx.execute(_NOTE_NOTICES, ids, tx.now, earliest)


def _campaign(row: asyncpg.Record) -> Campaign:
    return Campaign(
        campaign_id=row["campaign_id"],
        change_id=row["change_id"],
        state=State(row["state"]),
        version=row["version"],
        summary=json.loads(row["summary"]),
        url=row["url"],
        content_digest=row["content_digest"],
        effective_on=row["effective_on"],
        earliest_effective_on=row["earliest_effective_on"],
        scheduled_at=row["scheduled_at"],
        key=None if row["wrapped_key"] is None else WrappedKey(row["kek_id"], row["wrapped_key"]),
        warned_on=row["warned_on"],
        last_sent_at=row["last_sent_at"],
        sent=row["sent"],
        refused=row["refused"],
        uncertain=row["uncertain"],
        suppressed=row["suppressed"],
        ended_at=row["ended_at"],
        traceparent=row["traceparent"],
    )
