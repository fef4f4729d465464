"""`policy.yaml`: what a company promises about personal data, as data.

Deadlines, sweeps, erasure plans, the information sheet of an access reply and the record of processing all follow from
this one file. The JSON Schema that `habeas policy schema` prints tells every key.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from habeas.contracts.model import CountryCode, Slug
from habeas.contracts.vocabulary import Right
from habeas.datamap.addresses import BadAddress, mailbox
from habeas.datamap.explain import misfit, one_of, shown
from habeas.datamap.policy.durations import Duration, Unit
from habeas.datamap.policy.retention import CountsFrom, Fixed, RetentionClass, WhileOpen, cutoff, expires_on
from habeas.datamap.source import ConfigurationError, Located, load_yaml, validate

Acr = Literal["none", "single", "mfa"]
ACR_ORDER: Final = ("none", "single", "mfa")
"""How strongly a person was authenticated, weakest first."""

ACR_WITHOUT_WORD: Final[Mapping[Right, Acr]] = {
    Right.ACCESS: "mfa",
    Right.PORTABILITY: "mfa",
    Right.RECTIFICATION: "mfa",
    Right.ERASURE: "mfa",
    Right.RESTRICTION: "single",
    Right.OBJECTION: "single",
    Right.CONSENT_WITHDRAWAL: "single",
}
"""What a right needs where an issuer says nothing: data that would leave or be lost asks for two factors; stopping a
use must stay as easy as allowing it (Art. 7(3))."""

_A_DAY: Final = Duration(24, Unit.HOURS)
_A_MONTH: Final = Duration(30, Unit.DAYS)

WINDOW_WITHOUT_WORD: Final[Mapping[Right, Duration]] = {
    Right.ACCESS: _A_DAY,
    Right.PORTABILITY: _A_DAY,
    Right.RECTIFICATION: _A_DAY,
    Right.ERASURE: _A_DAY,
    Right.RESTRICTION: _A_MONTH,
    Right.OBJECTION: _A_MONTH,
    Right.CONSENT_WITHDRAWAL: _A_MONTH,
}
"""How long before the request a person may have been authenticated, where an issuer says nothing: the longest sessions of
NIST SP 800-63B-4, 24 hours with two factors (section 2.2.3) and 30 days with one (section 2.1.3)."""

KEY_BYTES: Final = 32
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
DataKey = Annotated[str, StringConstraints(pattern=r"^(user|system)(\.[a-z][a-z0-9_]*)*$")]
"""A category of the Fides taxonomy."""


def _known_zone(name: str) -> str:
    if name not in available_timezones():
        raise misfit(f"{shown(name)} is no time zone", one_of(name, sorted(available_timezones())))
    return name


def _in_days(duration: Duration) -> Duration:
    if not duration.whole_days or duration.amount == 0:
        raise misfit(f"`{duration}` can't be counted in dates", "at least one day, such as `30d`")
    return duration


def _a_public_key(text: str) -> str:
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise misfit(f"{shown(text)} is no Ed25519 public key", "the 32 bytes of the public key in base64")
    return text


def _a_mail_address(text: str) -> str:
    try:
        sendable = mailbox(text).isascii()
    except BadAddress:
        sendable = False
    if not sendable:  # it stands in the headers of mails, which are ASCII
        raise misfit(
            f"{shown(text)} is no address that mails can come from", "an address such as `privacy@example.org`"
        )
    return text


def _bare_key(value: object) -> object:
    return {"public_key": _a_public_key(value)} if isinstance(value, str) else value


def _a_date(value: object) -> object:
    """Read the date as a person writes it; a moment, a number or another spelling is none (RFC 3339, full-date)."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    if isinstance(value, str) and _DATE.fullmatch(value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    raise misfit(f"{shown(str(value))} is no date", "a day, such as `2027-11-30`")


def _named_regime(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise misfit(f"`{name}` stands here twice", "each once", index)
    return names


Day = Annotated[date, BeforeValidator(_a_date, json_schema_input_type=date)]
DayDuration = Annotated[Duration, AfterValidator(_in_days)]
Names = Annotated[tuple[Slug, ...], Field(min_length=1), AfterValidator(_distinct)]


class LawfulBasis(StrEnum):
    """GDPR Art. 6(1)(a)-(f)."""

    CONSENT = "consent"
    CONTRACT = "contract"
    LEGAL_OBLIGATION = "legal_obligation"
    VITAL_INTERESTS = "vital_interests"
    PUBLIC_TASK = "public_task"
    LEGITIMATE_INTEREST = "legitimate_interest"


class Source(StrEnum):
    """Where data came from; a person is told it (Art. 15(1)(g)) and portability rests on it (Art. 20(1))."""

    PERSON = "person"
    OBSERVED = "observed"
    DERIVED = "derived"
    THIRD_PARTY = "third_party"


class Portability(StrEnum):
    """Whether a category goes into a portability export."""

    GIVEN = "given"
    OBSERVED = "observed"
    NO = "no"


class Safeguard(StrEnum):
    """What makes a transfer to a third country lawful (Art. 45, 46, 47, 49)."""

    ADEQUACY = "adequacy"
    SCC = "scc"
    BCR = "bcr"
    CODE_OF_CONDUCT = "code_of_conduct"
    CERTIFICATION = "certification"
    DEROGATION = "derogation"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Controller(_Part):
    """Who decides about the data (Art. 4(7)), and in whose time zone days are counted."""

    name: Text = Field(examples=["Example AI GmbH"])
    country: CountryCode = Field(description="ISO 3166-1, two letters; its public holidays count", examples=["DE"])
    time_zone: Annotated[str, AfterValidator(_known_zone)] = Field(examples=["Europe/Berlin"])
    dpo: Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$"), AfterValidator(_a_mail_address)] = (
        Field(description="address of the data protection officer", examples=["privacy@example.org"])
    )
    authority: Text = Field(description="the supervisory authority to complain to", examples=["name of the authority"])
    address: Text | None = Field(default=None, description="postal address")

    @property
    def zone(self) -> ZoneInfo:
        """The zone in which receipt dates, calendar years and deadlines are read."""
        return ZoneInfo(self.time_zone)


class PolicyHeader(_Part):
    """Which policy this is, and whose."""

    version: Slug = Field(examples=['"2026-03-20"'])
    controller: Controller


class RegimeChoice(_Part):
    """A packaged regime that the policy follows, perhaps with a shorter period than the law's."""

    name: Slug = Field(examples=["gdpr"])
    answer_within: DayDuration | None = Field(default=None, description="stricter than the law", examples=["20d"])


class Children(_Part):
    """Below which age the service is not offered."""

    under: Annotated[int, Field(ge=1, le=21)] = Field(examples=[16])


class Category(_Part):
    """One of the policy's own words for a kind of data."""

    data: Annotated[tuple[DataKey, ...], Field(min_length=1)] = Field(examples=["[user.contact.email]"])
    source: Source = Field(examples=["person"])
    portable: Portability = Field(examples=["given"])

    @model_validator(mode="after")
    def _portable_only_what_the_person_provided(self) -> Self:
        if self.portable is not Portability.NO and self.source in {Source.DERIVED, Source.THIRD_PARTY}:
            raise misfit(f"data from `{self.source}` is not provided by the person (Art. 20(1))", "`no`", "portable")
        return self


class Purpose(_Part):
    """What categories are used for, and on which basis."""

    categories: Names = Field(examples=["[account]"])
    basis: LawfulBasis = Field(examples=["contract"])
    interest: Text | None = Field(default=None, description="the legitimate interest, Art. 13(1)(d)")
    objection: Literal["weighed", "absolute"] | None = Field(
        default=None, description="absolute for direct marketing, Art. 21(2), else weighed, Art. 21(1)"
    )
    law: Text | None = Field(default=None, description="the provision, where the basis is a legal obligation")

    @model_validator(mode="after")
    def _says_what_its_basis_needs(self) -> Self:
        if self.basis is LawfulBasis.LEGITIMATE_INTEREST and self.interest is None:
            raise misfit("a legitimate interest has to be named", '`interest: "…"` beside it', "basis")
        if self.interest is not None and self.basis is not LawfulBasis.LEGITIMATE_INTEREST:
            raise misfit(f"an interest means nothing with the basis `{self.basis}`", "nothing here", "interest")
        open_to_objection = self.basis in {LawfulBasis.LEGITIMATE_INTEREST, LawfulBasis.PUBLIC_TASK}
        if open_to_objection and self.objection is None:
            raise misfit("a person may object to this", "`objection: weighed` or `absolute` beside it", "basis")
        if self.objection is not None and not open_to_objection:
            raise misfit(f"nobody can object where the basis is `{self.basis}`", "nothing here", "objection")
        return self


class Recipient(_Part):
    """Somebody who gets data, and how they are told of erasure, rectification and restriction (Art. 19)."""

    role: Literal["processor", "controller", "joint_controller", "authority"] = Field(examples=["processor"])
    categories: Names = Field(examples=["[account]"])
    country: CountryCode = Field(examples=["IE"])
    safeguard: Safeguard | None = Field(default=None, description="for a transfer to a third country, Art. 44-49")
    told_by: Literal["http", "kafka", "mail", "none"] = Field(examples=["http"])
    name: Text | None = Field(default=None, description="legal name, where the key isn't enough")


class AutomatedDecision(_Part):
    """A decision without a human in it (Art. 22), as a person must be told of it (Art. 15(1)(h))."""

    name: Slug = Field(examples=["credit-check"])
    categories: Names = Field(examples=["[usage]"])
    basis: Literal["contract", "law", "consent"] = Field(description="Art. 22(2)(a)-(c)", examples=["contract"])
    logic: Text = Field(description="how it decides, for a person to understand")
    consequences: Text = Field(description="what follows from it for the person")
    review: Text = Field(description="how a person gets a human to look at it, Art. 22(3)")


class IssuerKey(_Part):
    """A key that an issuer signs with, and from when until when it is believed."""

    public_key: Annotated[str, AfterValidator(_a_public_key)] = Field(
        description="Ed25519 public key, 32 bytes in base64"
    )
    valid_from: Day | None = Field(default=None, description="first day on which it is believed")
    valid_until: Day | None = Field(
        default=None, description="last day; messages that are signed and still under way after it are parked"
    )

    @model_validator(mode="after")
    def _begins_before_it_ends(self) -> Self:
        if self.valid_from and self.valid_until and self.valid_until < self.valid_from:
            raise misfit("the key ends before it begins", "a day that is no earlier than `valid_from`", "valid_until")
        return self

    @property
    def raw(self) -> bytes:
        """The 32 bytes."""
        return base64.b64decode(self.public_key)

    def begins_by(self, moment: datetime, zone: ZoneInfo) -> bool:
        """Whether the key is believed from this moment or an earlier one on; days are those of the zone."""
        return self.valid_from is None or self.valid_from <= moment.astimezone(zone).date()

    def ends_before(self, moment: datetime, zone: ZoneInfo) -> bool:
        """Whether the key's last day was over at this moment."""
        return self.valid_until is not None and self.valid_until < moment.astimezone(zone).date()


class AttestationIssuer(_Part):
    """A platform service that may vouch for who asked."""

    keys: Annotated[
        Mapping[Slug, Annotated[IssuerKey, BeforeValidator(_bare_key, json_schema_input_type=str | IssuerKey)]],
        Field(min_length=1),
    ] = Field(description="key id to Ed25519 public key, 32 bytes in base64; alone, or with the days of its validity")
    minimum_acr: Mapping[Right, Acr] = Field(default={}, description="how strong the authentication must be, per right")
    authenticated_within: Mapping[Right, Duration] = Field(
        default={}, description="how long before the request the person may have been authenticated, per right"
    )

    def suffices(self, right: Right, acr: str) -> bool:
        """Whether an authentication of strength `acr` is enough for `right`; an unknown strength never is."""
        if acr not in ACR_ORDER:
            return False
        wanted = self.minimum_acr.get(right, ACR_WITHOUT_WORD[right])
        return ACR_ORDER.index(acr) >= ACR_ORDER.index(wanted)

    def window(self, right: Right) -> Duration:
        """How long before a request for `right` the person may have been authenticated."""
        return self.authenticated_within.get(right, WINDOW_WITHOUT_WORD[right])


class Answers(_Part):
    """Where people get what they asked for."""

    download_url: Annotated[str, StringConstraints(pattern=r"^https://[^\s<>\"]+$", max_length=2048)] | None = Field(
        default=None,
        description="page where people fetch their copies; without it mails ask them to write to the controller's `dpo`",
        examples=["https://example.org/privacy/copies"],
    )


class Policy(_Part):
    """The whole of `policy.yaml`."""

    policy: PolicyHeader
    regimes: Annotated[
        tuple[Annotated[RegimeChoice, BeforeValidator(_named_regime, json_schema_input_type=str | RegimeChoice)], ...],
        Field(min_length=1),
    ] = Field(examples=["[gdpr]"])
    answer_within: DayDuration = Field(description="our own promise; the earlier of it and the law", examples=["30d"])
    notice_of_changes: DayDuration = Field(description="notice before a material change", examples=["30d"])
    answers: Answers = Answers()
    children: Children = Field(examples=["{under: 16}"])
    categories: Annotated[Mapping[Slug, Category], Field(min_length=1)]
    purposes: Annotated[Mapping[Slug, Purpose], Field(min_length=1)]
    retention: Annotated[Mapping[Slug, RetentionClass], Field(min_length=1)]
    recipients: Mapping[Slug, Recipient] = {}
    decisions: tuple[AutomatedDecision, ...] = ()
    attestation_issuers: Mapping[Slug, AttestationIssuer] = {}
    data_subjects: tuple[Text, ...] = Field(default=("account holders",), description="Art. 30(1)(c)")
    security: tuple[Text, ...] = Field(default=(), description="technical and organisational measures, Art. 30(1)(g)")

    @property
    def controller(self) -> Controller:
        """Whose policy it is."""
        return self.policy.controller

    @property
    def zone(self) -> ZoneInfo:
        """The controller's time zone."""
        return self.policy.controller.zone

    @property
    def version(self) -> str:
        """Which version of the company's policy this is."""
        return self.policy.version

    def issuer_key(self, issuer: str, key_id: str, now: datetime, tolerance: timedelta) -> IssuerKey | None:
        """Give an issuer's key, or None when issuer or key isn't registered, or the key isn't believed at this moment.

        `tolerance` is for clocks that differ, at both ends.
        """
        found = self.attestation_issuers.get(issuer)
        key = None if found is None else found.keys.get(key_id)
        if key is None or key.ends_before(now - tolerance, self.zone) or not key.begins_by(now + tolerance, self.zone):
            return None
        return key

    def attestation_suffices(self, issuer: str, right: Right, acr: str) -> bool:
        """Whether what `issuer` attests is strong enough for `right`; nobody unregistered can attest anything."""
        found = self.attestation_issuers.get(issuer)
        return found is not None and found.suffices(right, acr)

    def authentication_is_fresh(
        self, issuer: str, right: Right, authenticated_at: datetime, received_at: datetime
    ) -> bool:
        """Whether a person was authenticated at most as long before the request as the right allows.

        One that came after the request is fresh: the person was asked for it then.
        """
        found = self.attestation_issuers.get(issuer)
        return found is not None and authenticated_at >= found.window(right).before(received_at, self.zone)


def load_policy(path: Path) -> Policy:
    """Read and check a policy file. Raises ConfigurationError with every problem that was found."""
    return check_policy(load_yaml(path))


def check_policy(located: Located) -> Policy:
    """Validate what was read and check it as a whole. Raises ConfigurationError."""
    # Here, because the checks need the models above.
    from habeas.datamap.policy.checks import problems_of  # noqa: PLC0415 - a cycle otherwise

    policy = validate(Policy, located)
    problems = problems_of(policy, located)
    if problems:
        raise ConfigurationError(problems)
    return policy


__all__ = [
    "Answers",
    "AttestationIssuer",
    "AutomatedDecision",
    "Category",
    "Children",
    "Controller",
    "CountsFrom",
    "Duration",
    "Fixed",
    "IssuerKey",
    "LawfulBasis",
    "Policy",
    "PolicyHeader",
    "Portability",
    "Purpose",
    "Recipient",
    "RegimeChoice",
    "RetentionClass",
    "Safeguard",
    "Source",
    "Unit",
    "WhileOpen",
    "check_policy",
    "cutoff",
    "expires_on",
    "load_policy",
]
