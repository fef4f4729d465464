"""Statements about mails and contacts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

import asyncpg

from habeas.chassis.database import Transaction
from habeas.contracts.vocabulary import MailKind
from notification_mailer.lifecycle.mails import Mail, State

_ADD_CONTACTS: Final = """
    INSERT INTO notification_mailer.contacts (request_id, subject_id, contact, taken_at)
    SELECT n.request_id, n.subject_id, n.contact, $4
      FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS n (request_id, subject_id, contact)
    ON CONFLICT (request_id) DO NOTHING
"""

_FIND_CONTACTS: Final = """
    SELECT request_id, contact FROM notification_mailer.contacts WHERE request_id = ANY($1::uuid[])
"""

_DROP_CONTACTS: Final = """
    DELETE FROM notification_mailer.contacts WHERE request_id = ANY($1::uuid[])
"""

_ADD_MAILS: Final = """
    INSERT INTO notification_mailer.messages (mail_id, kind, state, request_id, subject_id, campaign_id, account, account_fingerprint,
                                              content, next_attempt_at, queued_at, traceparent)
    SELECT n.mail_id, n.kind, n.state, n.request_id, n.subject_id, n.campaign_id, n.account, n.account_fingerprint,
           n.content::jsonb, n.next_attempt_at, n.queued_at, n.traceparent
      FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::uuid[], $6::uuid[], $7::text[], $8::bytea[], $9::text[],
                  $10::timestamptz[], $11::timestamptz[], $12::text[])
           AS n (mail_id, kind, state, request_id, subject_id, campaign_id, account, account_fingerprint, content, next_attempt_at,
                 queued_at, traceparent)
    ON CONFLICT DO NOTHING
    RETURNING mail_id
"""

_FIND_OUTCOMES: Final = """
    SELECT request_id FROM notification_mailer.messages WHERE request_id = ANY($1::uuid[]) AND kind = 'outcome'
"""

_MAIL_COLUMNS: Final = """
    SELECT mail_id, kind, state, request_id, subject_id, campaign_id, account, account_fingerprint, content::text, attempt,
           next_attempt_at, digest, smtp_code, queued_at, ended_at, traceparent
      FROM notification_mailer.messages
"""

_LOCK_HELD: Final = (
    _MAIL_COLUMNS
    + """
     WHERE holder = $1 AND state IN ('sending', 'dot') AND (campaign_id IS NOT NULL) = $2
     ORDER BY mail_id
       FOR UPDATE
"""
)

_LOCK_ABANDONED: Final = (
    _MAIL_COLUMNS
    + """
     WHERE holder IS NOT NULL AND state IN ('sending', 'dot') AND lease_until < $1
     ORDER BY mail_id
     LIMIT $2
       FOR UPDATE SKIP LOCKED
"""
)

_LOCK_DUE: Final = (
    _MAIL_COLUMNS
    + """
     WHERE state = 'queued' AND campaign_id IS NULL AND next_attempt_at <= $1
     ORDER BY next_attempt_at
     LIMIT $2
       FOR UPDATE SKIP LOCKED
"""
)

_LOCK_DUE_OF_CAMPAIGNS: Final = (
    _MAIL_COLUMNS
    + """
     WHERE state = 'queued' AND campaign_id IS NOT NULL AND next_attempt_at <= $1
     ORDER BY next_attempt_at
     LIMIT $2
       FOR UPDATE SKIP LOCKED
"""
)

# The guards: a mail moves on from the state and in the attempt that its sender knows, or not at all.
_ADVANCE_MAILS: Final = """
    UPDATE notification_mailer.messages AS m
       SET state = n.state, attempt = n.attempt, next_attempt_at = n.next_attempt_at, digest = n.digest, smtp_code = n.smtp_code,
           ended_at = n.ended_at, account = n.account, content = n.content::jsonb,
           holder = n.holder, lease_until = n.lease_until
      FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::text[], $5::integer[], $6::timestamptz[], $7::bytea[], $8::integer[],
                  $9::timestamptz[], $10::text[], $11::text[], $12::integer[], $13::timestamptz[])
           AS n (mail_id, from_state, from_attempt, state, attempt, next_attempt_at, digest, smtp_code, ended_at, account, content,
                 holder, lease_until)
     WHERE m.mail_id = n.mail_id AND m.state = n.from_state AND m.attempt = n.from_attempt
    RETURNING m.mail_id
"""

_COUNT_MAILS: Final = """
    SELECT state, count(*) AS mails FROM notification_mailer.messages WHERE campaign_id = $1 GROUP BY state
"""


@dataclass(frozen=True, slots=True)
class Step:
    """A mail before and after, as decided."""

    before: Mail
    after: Mail


@dataclass(frozen=True, slots=True)
class Hold:
    """Who holds the mails that a step puts into sending or dot, and for how long at most."""

    holder: int
    lease: timedelta


async def add_contacts(tx: Transaction, contacts: Mapping[UUID, tuple[UUID, str | None]]) -> None:
    """Keep subject and sealed contact of each request; the first one stays."""
    rows = [(request_id, subject_id, contact) for request_id, (subject_id, contact) in contacts.items()]
    if rows:
        await tx.execute(_ADD_CONTACTS, *_columns(rows), tx.now)


async def find_contacts(tx: Transaction, request_ids: Iterable[UUID]) -> dict[UUID, str | None]:
    """Give the sealed contact of each request that has not been answered; null where nobody knows an address."""
    return {row["request_id"]: row["contact"] for row in await tx.fetch(_FIND_CONTACTS, list(request_ids))}


async def drop_contacts(tx: Transaction, request_ids: Iterable[UUID]) -> None:
    """Forget where to write to; forgetting twice changes nothing."""
    ids = sorted(request_ids)
    if ids:
        await tx.execute(_DROP_CONTACTS, ids)


async def add_mails(tx: Transaction, mails: Sequence[Mail]) -> set[UUID]:
    """Insert new mails in one statement; one that is there already stays as it is. Gives the ids of those that are new."""
    rows = [
        (
            each.mail_id,
            each.kind,
            each.state,
            each.request_id,
            each.subject_id,
            each.campaign_id,
            each.account,
            each.account_fingerprint,
            each.content,
            each.next_attempt_at,
            each.queued_at,
            each.traceparent,
        )
        for each in mails
    ]
    if not rows:
        return set()
    return {row["mail_id"] for row in await tx.fetch(_ADD_MAILS, *_columns(rows))}


async def find_outcomes(tx: Transaction, request_ids: Sequence[object]) -> set[UUID]:
    """Give those of the requests that have an outcome mail already."""
    return {row["request_id"] for row in await tx.fetch(_FIND_OUTCOMES, request_ids)}


async def lock_held(tx: Transaction, holder: int, *, of_campaigns: bool) -> list[Mail]:
    """Lock the mails that a replica left in the middle of an attempt."""
    return [_mail(row) for row in await tx.fetch(_LOCK_HELD, holder, of_campaigns)]


async def lock_abandoned(tx: Transaction, limit: int) -> list[Mail]:
    """Lock mails whose replica went silent."""
    return [_mail(row) for row in await tx.fetch(_LOCK_ABANDONED, tx.now, limit)]


async def lock_due(tx: Transaction, limit: int, *, of_campaigns: bool) -> list[Mail]:
    """Lock mails whose time has come, the longest due first, passing over those that another replica holds."""
    statement = _LOCK_DUE_OF_CAMPAIGNS if of_campaigns else _LOCK_DUE
    return [_mail(row) for row in await tx.fetch(statement, tx.now, limit)]


async def advance_mails(tx: Transaction, steps: Sequence[Step], hold: Hold) -> set[UUID]:
    """Write steps in one statement and give the ids of the mails that moved.

    A mail that is not any more in the state and attempt that the step starts from, because another replica has taken it over,
    stays as it is.
    """
    if not steps:
        return set()
    until = tx.now + hold.lease
    rows = []
    for step in steps:
        before, after = step.before, step.after
        is_held = after.state in {State.SENDING, State.DOT}
        rows.append(
            (
                before.mail_id,
                before.state,
                before.attempt,
                after.state,
                after.attempt,
                after.next_attempt_at,
                after.digest,
                after.smtp_code,
                after.ended_at,
                after.account,
                after.content,
                hold.holder if is_held else None,
                until if is_held else None,
            )
        )
    return {row["mail_id"] for row in await tx.fetch(_ADVANCE_MAILS, *_columns(rows))}


async def count_mails(tx: Transaction, campaign_id: UUID) -> dict[State, int]:
    """Count a campaign's mails by state."""
    return {State(row["state"]): row["mails"] for row in await tx.fetch(_COUNT_MAILS, campaign_id)}


def _columns(rows: Sequence[Sequence[object]]) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _mail(row: asyncpg.Record) -> Mail:
    return Mail(
        mail_id=row["mail_id"],
        kind=MailKind(row["kind"]),
        state=State(row["state"]),
        queued_at=row["queued_at"],
        next_attempt_at=row["next_attempt_at"],
        request_id=row["request_id"],
        subject_id=row["subject_id"],
        campaign_id=row["campaign_id"],
        account=row["account"],
        account_fingerprint=row["account_fingerprint"],
        content=row["content"],
        attempt=row["attempt"],
        digest=row["digest"],
        smtp_code=row["smtp_code"],
        ended_at=row["ended_at"],
        traceparent=row["traceparent"],
    )
