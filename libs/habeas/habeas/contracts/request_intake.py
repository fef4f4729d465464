"""What request-intake tells everyone: the life of a request, and the flags of a person."""

from typing import ClassVar
from uuid import UUID

from habeas.contracts import topics
from habeas.contracts.model import Event, Hex64, Instant, LanguageTag, SealedText, Slug, date
from habeas.contracts.outcomes import CategoryOutcome
from habeas.contracts.vocabulary import Answered, Outcome, Right


class _RequestEvent(Event):
    topic = topics.REQUESTS
    key_field: ClassVar[str] = "request_id"

    request_id: UUID
    subject_id: UUID


class RequestAccepted(_RequestEvent):
    """The request is open and its deadline is known.

    ``contact`` is JSON ``{"address", "name", "language"}`` sealed under the case key, null when no store knows an address.
    ``subject_ref`` stands for the person in the audit log; it differs in every request. With ``needs_identity`` nobody works on the
    request: the person has to prove first who they are.
    """

    type: ClassVar[str] = "request.accepted"

    right: Right
    regime: Slug
    law_version: Slug
    received_at: Instant
    accepted_at: Instant
    due_on: date
    legal_limit_on: date
    language: LanguageTag | None
    contact: SealedText | None
    subject_ref: Hex64
    needs_identity: bool = False


class RequestIdentityRequested(_RequestEvent):
    """The attestation was missing or too weak for the right; proof of identity is needed (Art. 12(6))."""

    type: ClassVar[str] = "request.identity_requested"

    right: Right
    requested_at: Instant


class RequestVerified(_RequestEvent):
    """The person is who they say; work may begin. ``account`` is the platform's account id under the data key."""

    type: ClassVar[str] = "request.verified"

    right: Right
    account: SealedText
    categories: tuple[Slug, ...] | None
    due_on: date
    subject_ref: Hex64
    verified_at: Instant


class RequestExtended(_RequestEvent):
    """The deadline moved, with reasons told inside the first month (Art. 12(3))."""

    type: ClassVar[str] = "request.extended"

    due_on: date
    extended_at: Instant


class RequestRestricted(_RequestEvent):
    """Processing of the person's data is restricted (Art. 18)."""

    type: ClassVar[str] = "request.restricted"

    restricted_at: Instant


class RequestFulfilled(_RequestEvent):
    """Every store has answered and was read again; what is left is to tell the person, in the words of ``regime``.

    ``export_id`` is null where there is no copy; ``copies_deleted`` says that an erasure took copies with it that had been made before.
    """

    type: ClassVar[str] = "request.fulfilled"

    right: Right
    regime: Slug | None = None
    outcome: Outcome
    categories: tuple[CategoryOutcome, ...]
    export_id: UUID | None
    copies_deleted: bool = False
    fulfilled_at: Instant


class RequestCompleted(_RequestEvent):
    """Nothing is left to do; ``answered`` says how the person was told, null in events from before it was recorded.

    With ``platform`` this event is the answer, for the platform that sent the request to show.
    """

    type: ClassVar[str] = "request.completed"

    right: Right
    outcome: Outcome
    categories: tuple[CategoryOutcome, ...]
    answered: Answered | None = None
    completed_at: Instant


class RequestDenied(_RequestEvent):
    """A person (never the machine) refused the request, with basis, complaint right and remedy (Art. 12(4))."""

    type: ClassVar[str] = "request.denied"

    basis: Slug
    denied_at: Instant


class RequestWithdrawn(_RequestEvent):
    """The data subject took the request back."""

    type: ClassVar[str] = "request.withdrawn"

    withdrawn_at: Instant


class RequestExpired(_RequestEvent):
    """Identity was not proved in time."""

    type: ClassVar[str] = "request.expired"

    expired_at: Instant


class SubjectFlagged(Event):
    """The processing flags of a person, newest wins (compacted).

    The key is a keyed fingerprint of the account id, since a compacted topic keeps its keys for ever
    (``docs/decisions/0004``). Whoever follows flags has to be given the fingerprints of the accounts that it serves.
    """

    topic = topics.SUBJECT_FLAGS
    type: ClassVar[str] = "subject.flagged"
    key_field: ClassVar[str] = "account_fingerprint"
    subject_field: ClassVar[str | None] = "request_id"

    account_fingerprint: Hex64
    subject_id: UUID
    request_id: UUID
    erasing: bool = False
    erased: bool = False
    restricted: bool = False
    flagged_at: Instant


EVENTS: tuple[type[Event], ...] = (
    RequestAccepted,
    RequestIdentityRequested,
    RequestVerified,
    RequestExtended,
    RequestRestricted,
    RequestFulfilled,
    RequestCompleted,
    RequestDenied,
    RequestWithdrawn,
    RequestExpired,
    SubjectFlagged,
)
