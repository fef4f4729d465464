"""What platform services send: submissions, retention ticks, policy changes."""

from typing import Annotated, ClassVar, Final, Literal
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints, ValidationInfo, field_validator

from habeas.contracts import topics
from habeas.contracts.model import (
    CalendarDate,
    CountryCode,
    Event,
    Instant,
    LanguageCode,
    Model,
    OpaqueId,
    Slug,
    Text,
    WebAddress,
)
from habeas.contracts.vocabulary import ErasureGround, Right

_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_LAST_CHARACTERS: Final = (_ALPHABET, "", _ALPHABET[::16], _ALPHABET[::4])  # by how many are left of a group of four


def _canonical(value: str) -> str:
    """Refuse base64url of which the last character has bits that no byte has (RFC 4648, section 3.5)."""
    text = value.removeprefix("hpke1.")
    if text[-1] not in _LAST_CHARACTERS[len(text) % 4]:
        message = "must be base64url as RFC 4648 writes it, without padding"
        raise ValueError(message)
    return value


HpkeText = Annotated[
    str, StringConstraints(pattern=r"^hpke1\.[A-Za-z0-9_\-]{64,}$", max_length=65_536), AfterValidator(_canonical)
]
"""A value sealed to request-intake's public key (HPKE, RFC 9180) by the publisher kit."""


NAMES_MAX: Final = 64
"""How many categories or purposes one submission may name."""

LANGUAGES_MAX: Final = 256
"""In how many languages the summary of a change may be told."""

Names = Annotated[tuple[Slug, ...], Field(max_length=NAMES_MAX)]
"""Words of the policy for categories or purposes."""


class SealedDetail(Model):
    """Personal values inside a submission; in clear they are refused."""

    sealed: HpkeText


class AccessDetails(Model):
    """Access, Art. 15: ``categories`` narrows the answer, null means all."""

    right: Literal[Right.ACCESS]
    categories: Names | None = None


class PortabilityDetails(Model):
    """Portability, Art. 20."""

    right: Literal[Right.PORTABILITY]
    categories: Names | None = None


class ErasureDetails(Model):
    """Erasure, Art. 17."""

    right: Literal[Right.ERASURE]
    categories: Names | None = None
    ground: ErasureGround


class RectificationDetails(Model):
    """Rectification, Art. 16: the corrections are personal, hence sealed."""

    right: Literal[Right.RECTIFICATION]
    corrections: SealedDetail


class RestrictionDetails(Model):
    """Restriction, Art. 18(1)(a)-(d)."""

    right: Literal[Right.RESTRICTION]
    ground: Literal["accuracy_contested", "unlawful", "needed_for_claims", "objection_pending"]


class ObjectionDetails(Model):
    """Objection, Art. 21: to named purposes, or to direct marketing."""

    right: Literal[Right.OBJECTION]
    purposes: Annotated[Names, Field(min_length=1)]


class ConsentWithdrawalDetails(Model):
    """Withdrawal of consent, Art. 7(3)."""

    right: Literal[Right.CONSENT_WITHDRAWAL]
    purposes: Annotated[Names, Field(min_length=1)]


Details = Annotated[
    AccessDetails
    | PortabilityDetails
    | ErasureDetails
    | RectificationDetails
    | RestrictionDetails
    | ObjectionDetails
    | ConsentWithdrawalDetails,
    Field(discriminator="right"),
]


class Attestation(Model):
    """A platform service vouches for who asked: Ed25519 over the RFC 8785 form of the message without ``signature``."""

    method: Literal["session", "password", "passkey", "support"]
    acr: Literal["none", "single", "mfa"]
    authenticated_at: Instant
    issuer: Slug
    key_id: Slug
    signature: Annotated[
        str, StringConstraints(pattern=r"^[A-Za-z0-9_\-]{85}[AQgw]$")
    ]  # 64 bytes: the last four bits are 0


class RequestSubmitted(Event):
    """A data subject's request, as a platform service took it (interfaces: "A request")."""

    topic = topics.DSR_REQUESTS
    type: ClassVar[str] = "dsr_request.submitted"
    key_field: ClassVar[str] = "account_id"
    subject_field: ClassVar[str | None] = "request_id"

    request_id: UUID
    right: Right
    account_id: OpaqueId
    received_at: Instant
    channel: Slug
    regime: Slug | None = None
    country: CountryCode | None = None
    language: LanguageCode | None = None
    details: Details | None = None
    attestation: Attestation | None = None

    @field_validator("details")
    @classmethod
    def _details_belong_to_right(cls, details: Details | None, info: ValidationInfo) -> Details | None:
        """Refuse details of another right, by the field's name; a right that is wrong itself is refused by its own."""
        if details is not None and details.right is not info.data.get("right", details.right):
            message = "details.right must be the same as right"
            raise ValueError(message)
        return details


class RetentionTicked(Event):
    """A scheduler says that time has come to purge what is past its retention at ``as_of``."""

    topic = topics.RETENTION_TICKS
    type: ClassVar[str] = "retention.ticked"
    key_field: ClassVar[str] = "tick_id"

    tick_id: UUID
    as_of: Instant
    scope: Literal["all"] | Slug = "all"


class PolicyChanged(Event):
    """The privacy policy will change; a material change is mailed to every account holder."""

    topic = topics.POLICY_CHANGES
    type: ClassVar[str] = "policy.changed"
    key_field: ClassVar[str] = "change_id"

    change_id: Slug
    material: bool
    published_at: Instant
    effective_on: CalendarDate
    version: Slug
    summary: dict[LanguageCode, Annotated[Text, StringConstraints(min_length=1, max_length=4000)]] = Field(
        min_length=1, max_length=LANGUAGES_MAX
    )
    url: WebAddress


EVENTS: tuple[type[Event], ...] = (RequestSubmitted, RetentionTicked, PolicyChanged)
