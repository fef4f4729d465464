"""Statements about mails and contacts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, NamedTuple
from uuid import UUID

import asyncpg

from habeas.chassis.database import Transaction
from habeas.contracts.vocabulary import MailKind
from notification_mailer.lifecycle.mails import Mail, State

_ADD_CONTACTS: Final = """
    INSERT INTO notification_mailer.contacts AS c (request_id, subject_id, contact, taken_at)
    SELECT n.request_id, n.subject_id, n.contact, $4
      FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS n (request_id, subject_id, contact)
    ON CONFLICT (request_id) DO UPDATE SET subject_id = EXCLUDED.subject_id, contact = EXCLUDED.contact, taken_at = EXCLUDED.taken_at
     WHERE c.subject_id <> EXCLUDED.subject_id
"""

_FIND_CONTACTS: Final = """
    SELECT request_id, subject_id, contact FROM notification_mailer.contacts WHERE request_id = ANY($1::uuid[])
"""

_DROP_CONTACTS: Final = """
    DELETE FROM notification_mailer.contacts WHERE request_id = ANY($1::uuid[])
"""

_ADD_REQUEST_MAILS: Final = """
    INSERT INTO notification_mailer.messages (state, queued_at, next_attempt_at, mail_id, kind, request_id, subject_id, content,
                                              traceparent)
    SELECT 'queued', $1::timestamptz, $1, n.mail_id, n.kind, n.request_id, n.subject_id, n.content::jsonb, n.traceparent
      FROM unnest($2::uuid[], $3::text[], $4::uuid[], $5::uuid[], $6::text[], $7::text[])
           AS n (mail_id, kind, request_id, subject_id, content, traceparent)
    ON CONFLICT DO NOTHING
    RETURNING mail_id
"""

_ADD_CAMPAIGN_MAILS: Final = """
    INSERT INTO notification_mailer.messages (state, kind, queued_at, next_attempt_at, campaign_id, traceparent, mail_id, account,
                                              account_fingerprint)
    SELECT 'queued', 'policy_change', $1::timestamptz, $1, $2::uuid, $3::text, n.mail_id, n.account, n.account_fingerprint
      FROM unnest($4::uuid[], $5::text[], $6::bytea[]) AS n (mail_id, account, account_fingerprint)
    ON CONFLICT DO NOTHING
    RETURNING mail_id
"""

# In the order of the fields of Mail.
_MAIL_COLUMNS: Final = """
    SELECT mail_id, kind, state, queued_at, next_attempt_at, request_id, subject_id, campaign_id, account, account_fingerprint,
           content::text, attempt, smtp_code, ended_at, traceparent, doubts, refusal, stuck_reason
      FROM notification_mailer.messages
"""

_FIND_OUTCOMES: Final = _MAIL_COLUMNS + " WHERE request_id = ANY($1::uuid[]) AND kind = 'outcome'"

_LOCK_HELD: Final = (
    _MAIL_COLUMNS
    + """
     WHERE holder = $1 AND (campaign_id IS NOT NULL) = $2
     ORDER BY mail_id
       FOR UPDATE
"""
)

# A server may take long to answer, so the lease is long. A replica whose sign of life is overdue by far answers nobody any more.
_LOCK_ABANDONED: Final = (
    _MAIL_COLUMNS
    + """
     WHERE holder IS NOT NULL
       AND (lease_until < $1
            OR EXISTS (SELECT FROM notification_mailer.replicas AS r
                        WHERE r.instance = messages.holder AND r.expires_at < now() - interval '15 seconds'))
     ORDER BY mail_id
     LIMIT $2
       FOR UPDATE SKIP LOCKED
"""
)

_LOCK_DUE: Final = (
    _MAIL_COLUMNS
    + """
     WHERE holder IS NULL AND ended_at IS NULL AND campaign_id IS NULL AND next_attempt_at <= $1
     ORDER BY next_attempt_at
     LIMIT $2
       FOR UPDATE SKIP LOCKED
"""
)

_LOCK_DUE_OF_CAMPAIGNS: Final = (
    _MAIL_COLUMNS
    + """
     WHERE holder IS NULL AND ended_at IS NULL AND campaign_id IS NOT NULL AND next_attempt_at <= $1
     ORDER BY next_attempt_at
     LIMIT $2
       FOR UPDATE SKIP LOCKED
"""
)

FIND_NEXT_DUE: Final = """
    SELECT min(next_attempt_at) FROM notification_mailer.messages WHERE holder IS NULL AND ended_at IS NULL AND campaign_id IS NULL
"""

FIND_NEXT_DUE_OF_CAMPAIGNS: Final = """
    SELECT min(next_attempt_at) FROM notification_mailer.messages WHERE holder IS NULL AND ended_at IS NULL AND campaign_id IS NOT NULL
"""

FIND_NEXT_ABANDONED: Final = """
    SELECT min(least(m.lease_until, (SELECT max(r.expires_at) + interval '15 seconds' FROM notification_mailer.replicas AS r
                                      WHERE r.instance = m.holder)))
      FROM notification_mailer.messages AS m
     WHERE m.holder IS NOT NULL
"""

# The guards: a mail moves on from the state and in the attempt that its sender knows, or not at all.
_CLAIM_MAILS: Final = """
    UPDATE notification_mailer.messages AS m
       SET state = $3, attempt = $4, holder = $5, lease_until = $6, stuck_reason = NULL
     WHERE m.mail_id = ANY($7::uuid[]) AND m.state = $1 AND m.attempt = $2
    RETURNING m.mail_id
"""

# What a mail says and to whom only ever goes, and so need not be sent to and fro with every step.
_ADVANCE_MAILS: Final = """
    UPDATE notification_mailer.messages
       SET state = $3, attempt = $4, holder = $5, lease_until = $6, next_attempt_at = coalesce($8, next_attempt_at), smtp_code = $9,
           ended_at = $10, doubts = $13, refusal = $14,
           account = CASE WHEN $11 THEN NULL ELSE account END,
           content = CASE WHEN $12 THEN NULL ELSE content END
     WHERE mail_id = ANY($7::uuid[]) AND state = $1 AND attempt = $2
    RETURNING mail_id
"""

_PUT_OFF: Final = """
    UPDATE notification_mailer.messages AS m
       SET attempt = n.attempt, next_attempt_at = n.next_attempt_at, stuck_reason = n.stuck_reason
      FROM unnest($1::uuid[], $2::integer[], $3::timestamptz[], $4::text[]) AS n (mail_id, attempt, next_attempt_at, stuck_reason)
     WHERE m.mail_id = n.mail_id AND m.state = 'queued'
"""

_COUNT_MAILS: Final = """
    SELECT state, count(*) AS mails FROM notification_mailer.messages WHERE campaign_id = $1 GROUP BY state
"""


_HELD: Final = frozenset({State.SENDING, State.DOT})
_CLAIM_PARAMETERS: Final = 6


class Contact(NamedTuple):
    """Where to write to about a request: sealed under the case key of its subject, null where nobody knows an address."""

    subject_id: UUID
    sealed: str | None


class Step(NamedTuple):
    """A mail before and after, as decided."""

    before: Mail
    after: Mail


@dataclass(frozen=True, slots=True)
class Hold:
    """Who holds the mails that a step puts into sending or dot, and for how long at most."""

    holder: int
    lease: timedelta


async def add_contacts(tx: Transaction, contacts: Mapping[UUID, tuple[UUID, str | None]]) -> None:
    """Keep subject and sealed contact of each request; the first one stays, unless the request was taken anew for another subject."""
    rows = [(request_id, subject_id, contact) for request_id, (subject_id, contact) in contacts.items()]
    if rows:
        await tx.execute(_ADD_CONTACTS, *_columns(rows), tx.now)


async def find_contacts(tx: Transaction, request_ids: Iterable[UUID]) -> dict[UUID, Contact]:
    """Return the contact of each request that has not been answered."""
    rows = await tx.fetch(_FIND_CONTACTS, list(request_ids))
    return {row["request_id"]: Contact(row["subject_id"], row["contact"]) for row in rows}


async def drop_contacts(tx: Transaction, request_ids: Iterable[UUID]) -> None:
    """Forget where to write to; forgetting twice changes nothing."""
    ids = sorted(request_ids)
    if ids:
        await tx.execute(_DROP_CONTACTS, ids)


async def add_request_mails(tx: Transaction, mails: Sequence[Mail]) -> set[UUID]:
    """Insert new mails about requests, queued as of now; one that is there already stays as it is. Gives the ids of those that are new."""
    if not mails:
        return set()
    rows = [
        (each.mail_id, each.kind, each.request_id, each.subject_id, each.content, each.traceparent) for each in mails
    ]
    return {row["mail_id"] for row in await tx.fetch(_ADD_REQUEST_MAILS, tx.now, *_columns(rows))}


async def add_campaign_mails(tx: Transaction, mails: Sequence[Mail]) -> set[UUID]:
    """Insert new mails of one campaign, all of one cause; otherwise like ``add_request_mails``."""
    if not mails:
        return set()
    campaign_id, trace = mails[0].campaign_id, mails[0].traceparent
    rows = [(each.mail_id, each.account, each.account_fingerprint) for each in mails]
    added = await tx.fetch(_ADD_CAMPAIGN_MAILS, tx.now, campaign_id, trace, *_columns(rows))
    return {row["mail_id"] for row in added}


async def find_outcomes(tx: Transaction, request_ids: Sequence[object]) -> dict[UUID, Mail]:
    """Return the outcome mails of those of the requests that have one already."""
    return {row["request_id"]: _mail(row) for row in await tx.fetch(_FIND_OUTCOMES, request_ids)}


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
    """Write steps, one statement for all that are alike, and give the ids of the mails that moved.

    A mail that is not any more in the state and attempt that the step starts from, because another replica has taken it over,
    stays as it is.
    """
    alike: dict[tuple[object, ...], list[Mail]] = {}
    for before, after in steps:
        is_held = after.state in _HELD
        holder = (hold.holder, tx.now + hold.lease) if is_held else (None, None)
        move: tuple[object, ...] = (before.state, before.attempt, after.state, after.attempt, *holder)
        if after.state is not State.SENDING:
            again_at = None if after.next_attempt_at == before.next_attempt_at else after.next_attempt_at
            move += (again_at, after.smtp_code, after.ended_at, after.account is None, after.content is None)
            move += (after.doubts, after.refusal)
        alike.setdefault(move, []).append(after)
    moved: set[UUID] = set()
    for move, mails in alike.items():
        ids = [mail.mail_id for mail in mails]
        if len(move) == _CLAIM_PARAMETERS:
            rows = await tx.fetch(_CLAIM_MAILS, *move, ids)
        else:
            rows = await tx.fetch(_ADVANCE_MAILS, *move[:_CLAIM_PARAMETERS], ids, *move[_CLAIM_PARAMETERS:])
        moved.update(row["mail_id"] for row in rows)
    return moved


async def put_off(tx: Transaction, mails: Sequence[Mail]) -> None:
    """Write down why no letter could be written for mails that this transaction has locked, and when that is tried again."""
    rows = [(each.mail_id, each.attempt, each.next_attempt_at, each.stuck_reason) for each in mails]
    if rows:
        await tx.execute_exactly(len(rows), _PUT_OFF, *_columns(rows))


async def count_mails(tx: Transaction, campaign_id: UUID) -> dict[State, int]:
    """Count a campaign's mails by state."""
    return {State(row["state"]): row["mails"] for row in await tx.fetch(_COUNT_MAILS, campaign_id)}


def _columns(rows: Sequence[Sequence[object]]) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _mail(row: asyncpg.Record) -> Mail:
    mail_id, kind, state, *rest = row
    return Mail(mail_id, MailKind(kind), State(state), *rest)


# As the indexes say it, one by one: a mail without an end is queued, or somebody has it.
COUNT_WAITING: Final = """
    SELECT kind, count(*) AS mails, min(queued_at) AS oldest_at
      FROM (SELECT kind, queued_at FROM notification_mailer.messages
             WHERE holder IS NULL AND ended_at IS NULL AND campaign_id IS NULL
            UNION ALL
            SELECT kind, queued_at FROM notification_mailer.messages
             WHERE holder IS NULL AND ended_at IS NULL AND campaign_id IS NOT NULL
            UNION ALL
            SELECT kind, queued_at FROM notification_mailer.messages WHERE holder IS NOT NULL) AS m
     GROUP BY kind
"""

# A mail that was tried more than once waits for a server to take it, unless no letter could be written. Read as above.
COUNT_STUCK: Final = """
    SELECT 'mail' AS work, coalesce(stuck_reason, 'mail_postponed') AS reason, count(*) AS rows, min(queued_at) AS oldest_at
      FROM (SELECT stuck_reason, attempt, queued_at FROM notification_mailer.messages
             WHERE holder IS NULL AND ended_at IS NULL AND campaign_id IS NULL
            UNION ALL
            SELECT stuck_reason, attempt, queued_at FROM notification_mailer.messages
             WHERE holder IS NULL AND ended_at IS NULL AND campaign_id IS NOT NULL) AS m
     WHERE stuck_reason IS NOT NULL OR attempt > 1
     GROUP BY coalesce(stuck_reason, 'mail_postponed')
"""
