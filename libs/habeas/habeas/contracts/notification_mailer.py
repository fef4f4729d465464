"""What notification-mailer tells: mails by state, and policy-change campaigns."""

from typing import ClassVar, Final
from uuid import UUID, uuid5

from pydantic import Field

from habeas.contracts import topics
from habeas.contracts.model import Event, Instant, Slug, date
from habeas.contracts.vocabulary import MailKind, MailRefusal

MAILS: Final = UUID("6f7d1d0e-0f0c-5b53-8a8e-5d0c9a0b7a41")
"""The namespace of the ids of mails."""

_CAMPAIGNS: Final = UUID("0c4a5a0c-9b53-5f0f-9a0e-6f1f0b1d2c77")


def mail_id_of(request_id: UUID, kind: MailKind) -> UUID:
    """Return the id, and so the Message-ID, of the one mail of a kind about a request (UUIDv5, RFC 9562 section 5.5)."""
    return uuid5(MAILS, f"{request_id}\0{kind.value}")


def campaign_id_of(change_id: str) -> UUID:
    """Return the id of the one campaign that a policy change gets (UUIDv5, RFC 9562 section 5.5)."""
    return uuid5(_CAMPAIGNS, change_id)


class _MailEvent(Event):
    topic = topics.DELIVERIES
    key_field: ClassVar[str] = "request_id"

    request_id: UUID
    mail_id: UUID
    kind: MailKind


class MailSent(_MailEvent):
    """The mail server took the mail (250 to the final dot, RFC 5321 section 4.2.5)."""

    type: ClassVar[str] = "mail.sent"

    sent_at: Instant


class MailRefused(_MailEvent):
    """Nobody will deliver the mail, for the ``reason``; a person has to find another way to answer."""

    type: ClassVar[str] = "mail.refused"

    reason: MailRefusal | None = None
    smtp_code: int | None = Field(ge=400, le=599)
    refused_at: Instant


class MailUncertain(_MailEvent):
    """The connection was lost after the final dot: the mail may have been taken (RFC 1047).

    ``times`` counts how often that happened to this mail. ``again_at`` is set when it will be sent once more, as an acknowledgement
    is for a few times; else it is not sent again.
    """

    type: ClassVar[str] = "mail.uncertain"

    times: int = Field(1, ge=1)
    again_at: Instant | None = None
    lost_at: Instant


class _CampaignEvent(Event):
    topic = topics.DELIVERIES
    key_field: ClassVar[str] = "change_id"

    change_id: Slug


class PolicyChangeScheduled(_CampaignEvent):
    """A campaign begins; the change may not take effect before ``earliest_effective_on``."""

    type: ClassVar[str] = "policy_change.scheduled"

    effective_on: date
    earliest_effective_on: date
    scheduled_at: Instant


class PolicyChangeTooEarly(_CampaignEvent):
    """The effective date breaks the promised notice period; repeated until mended."""

    type: ClassVar[str] = "policy_change.too_early"

    effective_on: date
    earliest_effective_on: date
    noticed_at: Instant


class PolicyChangeNotified(_CampaignEvent):
    """Every account holder has been told, apart from those counted."""

    type: ClassVar[str] = "policy_change.notified"

    sent: int = Field(ge=0)
    refused: int = Field(ge=0)
    uncertain: int = Field(ge=0)
    suppressed: int = Field(ge=0)
    last_sent_at: Instant | None
    earliest_effective_on: date
    notified_at: Instant


EVENTS: tuple[type[Event], ...] = (
    MailSent,
    MailRefused,
    MailUncertain,
    PolicyChangeScheduled,
    PolicyChangeTooEarly,
    PolicyChangeNotified,
)
