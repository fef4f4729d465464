"""The life of a policy-change campaign, decided without I/O, clock or randomness.

A material change is mailed to every account holder, and may not take effect before the last of these notices is as old as the
policy promises (``notice_of_changes``).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from enum import StrEnum
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

from habeas.chassis.lifecycle import row, table
from habeas.contracts.audit import Action, AuditFact, AuditOutcome
from habeas.contracts.model import Event
from habeas.contracts.notification_mailer import (
    PolicyChangeNotified,
    PolicyChangeScheduled,
    PolicyChangeTooEarly,
    campaign_id_of,
)
from habeas.contracts.platform import PolicyChanged
from habeas.datamap.policy.durations import Duration
from notification_mailer.lifecycle.mails import State as MailState

FORGOTTEN: Final = bytes(32)
"""The digest of a change that was announced in a time which the database has lost: what it says is not known here yet."""


class State(StrEnum):
    """Where a campaign stands."""

    RECORDED = "recorded"  # the change is not material: nobody is mailed
    GATHERING = "gathering"  # account holders are being read; those found are mailed already
    MAILING = "mailing"  # all are known
    NOTIFIED = "notified"  # everybody was told, apart from those counted


TRANSITIONS: Final = table(
    State.GATHERING,
    row(State.GATHERING, "every page was read", State.MAILING),
    row(State.MAILING, "nobody is left to tell", State.NOTIFIED),
)


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """The key under which a campaign's account ids are sealed, itself wrapped by the KEK."""

    kek_id: str
    wrapped: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Campaign:
    """One announced change of the privacy policy; ``content_digest`` fixes what must not change under its id."""

    campaign_id: UUID
    change_id: str
    state: State
    version: str
    summary: Mapping[str, str]
    url: str
    content_digest: bytes
    effective_on: date
    earliest_effective_on: date
    scheduled_at: datetime
    key: WrappedKey | None = None
    warned_on: date | None = None
    last_sent_at: datetime | None = None
    sent: int = 0
    refused: int = 0
    uncertain: int = 0
    suppressed: int = 0
    ended_at: datetime | None = None
    traceparent: str | None = None

    @property
    def too_early(self) -> bool:
        """Whether the change would take effect before the promised notice is over."""
        return self.state is not State.RECORDED and self.effective_on < self.earliest_effective_on

    def becomes(self, state: State, **changes: object) -> "Campaign":
        """Give the campaign in its next state. Raises ``Invariant`` for a step that the table does not have."""
        TRANSITIONS.check(self.state, state)
        return replace(self, state=state, **changes)  # type: ignore[arg-type]  # the fields are checked by replace


@dataclass(frozen=True, slots=True)
class Decision:
    """The campaign as it is now, and what is to be told."""

    campaign: Campaign
    events: tuple[Event, ...] = ()
    facts: tuple[AuditFact, ...] = ()


@dataclass(frozen=True, slots=True)
class Notice:
    """The promised notice period, counted in days of the controller's zone."""

    period: Duration
    zone: ZoneInfo

    def earliest(self, told_at: datetime) -> date:
        """Give the first day on which a change may take effect for whoever was told at this moment."""
        return self.period.after_date(self.day(told_at))

    def day(self, moment: datetime) -> date:
        """Give the controller's calendar day of a moment."""
        return moment.astimezone(self.zone).date()


def digest_of(change: PolicyChanged) -> bytes:
    """Fix everything about a change but its dates: a date that was too early may be mended, a text that was mailed may not."""
    said = [change.material, change.version, str(change.url), sorted(change.summary.items())]
    return hashlib.sha256(json.dumps(said).encode()).digest()


def schedule(change: PolicyChanged, key: WrappedKey, notice: Notice, trace: str | None, now: datetime) -> Decision:
    """Begin a campaign for a material change; record one that is not material and mail nobody."""
    campaign = Campaign(
        campaign_id=campaign_id_of(change.change_id),
        change_id=change.change_id,
        state=State.GATHERING if change.material else State.RECORDED,
        version=change.version,
        summary=dict(change.summary),
        url=str(change.url),
        content_digest=digest_of(change),
        effective_on=change.effective_on,
        earliest_effective_on=notice.earliest(now) if change.material else change.effective_on,
        scheduled_at=now,
        key=key if change.material else None,
        ended_at=None if change.material else now,
        traceparent=trace,
    )
    if not change.material:
        return Decision(campaign, (), (AuditFact(Action.CAMPAIGN_SCHEDULED, count=0),))
    return _announced(campaign, notice, now)


def recall(campaign: Campaign, change: PolicyChanged) -> Campaign:
    """Take over what a forgotten change says; it was announced, so that nobody is mailed again."""
    return replace(
        campaign,
        version=change.version,
        summary=dict(change.summary),
        url=str(change.url),
        content_digest=digest_of(change),
    )


def amend(campaign: Campaign, change: PolicyChanged, notice: Notice, now: datetime) -> Decision:
    """Take another date for a change that is known already; nobody is mailed again, whoever was told stays told."""
    if change.effective_on == campaign.effective_on:
        return Decision(campaign)
    moved = replace(campaign, effective_on=change.effective_on, warned_on=None)
    return Decision(moved) if campaign.state is State.RECORDED else _announced(moved, notice, now)


def warn(campaign: Campaign, notice: Notice, now: datetime) -> Decision:
    """Say that the change would take effect too early; once a day until its date is mended."""
    today = notice.day(now)
    if not campaign.too_early or campaign.warned_on == today:
        return Decision(campaign)
    early = PolicyChangeTooEarly(
        change_id=campaign.change_id,
        effective_on=campaign.effective_on,
        earliest_effective_on=campaign.earliest_effective_on,
        noticed_at=now,
    )
    return Decision(replace(campaign, warned_on=today), (early,), (AuditFact(Action.CAMPAIGN_TOO_EARLY),))


def gathered(campaign: Campaign) -> Campaign:
    """Every account holder is written down."""
    return campaign.becomes(State.MAILING)


def finish(campaign: Campaign, counts: Mapping[MailState, int], now: datetime) -> Decision:
    """Everybody was told, apart from those counted; the campaign's key goes, and with it the way back to accounts."""
    done = campaign.becomes(
        State.NOTIFIED,
        key=None,
        ended_at=now,
        sent=counts.get(MailState.SENT, 0),
        refused=counts.get(MailState.REFUSED, 0),
        uncertain=counts.get(MailState.UNCERTAIN, 0),
        suppressed=counts.get(MailState.SUPPRESSED, 0),
    )
    notified = PolicyChangeNotified(
        change_id=done.change_id,
        sent=done.sent,
        refused=done.refused,
        uncertain=done.uncertain,
        suppressed=done.suppressed,
        last_sent_at=done.last_sent_at,
        earliest_effective_on=done.earliest_effective_on,
        notified_at=now,
    )
    fact = AuditFact(Action.CAMPAIGN_NOTIFIED, outcome=AuditOutcome.POLICY_CHANGE, count=done.sent)
    return Decision(done, (notified,), (fact,))


def _announced(campaign: Campaign, notice: Notice, now: datetime) -> Decision:
    scheduled = PolicyChangeScheduled(
        change_id=campaign.change_id,
        effective_on=campaign.effective_on,
        earliest_effective_on=campaign.earliest_effective_on,
        scheduled_at=now,
    )
    warned = warn(campaign, notice, now)
    facts = (AuditFact(Action.CAMPAIGN_SCHEDULED, outcome=AuditOutcome.POLICY_CHANGE), *warned.facts)
    return Decision(warned.campaign, (scheduled, *warned.events), facts)
