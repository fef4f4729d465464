"""Closed vocabularies: every word that crosses a boundary and has a fixed set of values."""

from enum import StrEnum


class Right(StrEnum):
    """What a person asks for (GDPR Art. 7(3), 15-18, 20, 21; CCPA 1798.105-1798.121)."""

    ACCESS = "access"
    PORTABILITY = "portability"
    RECTIFICATION = "rectification"
    ERASURE = "erasure"
    RESTRICTION = "restriction"
    OBJECTION = "objection"
    CONSENT_WITHDRAWAL = "consent_withdrawal"


class ErasureGround(StrEnum):
    """Why data must go, GDPR Art. 17(1)(a)-(f)."""

    NO_LONGER_NECESSARY = "no_longer_necessary"
    CONSENT_WITHDRAWN = "consent_withdrawn"
    OBJECTED = "objected"
    UNLAWFUL = "unlawful"
    LEGAL_DUTY = "legal_duty"
    CHILD = "child"


class KeepGround(StrEnum):
    """Why data may stay in spite of an erasure, GDPR Art. 17(3)."""

    EXPRESSION = "expression"
    LEGAL_OBLIGATION = "legal_obligation"
    PUBLIC_HEALTH = "public_health"
    RESEARCH = "research"
    LEGAL_CLAIMS = "legal_claims"


class TableResult(StrEnum):
    """What happened to a person's rows of one table, and, by the last two, to rows of others for their sake.

    `detached` let go of a row that was deleted, `erased_with_parent` went with it.
    """

    ERASED = "erased"
    ANONYMISED = "anonymised"
    KEPT = "kept"
    DETACHED = "detached"
    ERASED_WITH_PARENT = "erased_with_parent"
    NOTHING_HELD = "nothing_held"

    @property
    def is_of_others(self) -> bool:
        """Whether it tells of rows of others, which no count of the person's rows includes."""
        return self in {TableResult.DETACHED, TableResult.ERASED_WITH_PARENT}


class Outcome(StrEnum):
    """How a request ended for the person."""

    DONE = "done"
    PARTLY_KEPT = "partly_kept"
    NOTHING_HELD = "nothing_held"


class StuckReason(StrEnum):
    """Why work on a request cannot go on without somebody looking."""

    STORE_UNAVAILABLE = "store_unavailable"
    STORE_REFUSED = "store_refused"
    SCHEMA_MISMATCH = "schema_mismatch"
    NOT_ERASED = "not_erased"
    OTHERS_TOUCHED = "others_touched"  # rows that the data map does not name would have changed with it
    KEY_MISSING = "key_missing"
    PARTICIPANT_FAILED = "participant_failed"
    ARTEFACT_UNWRITABLE = "artefact_unwritable"
    MAIL_REFUSED = "mail_refused"
    MAIL_UNCERTAIN = "mail_uncertain"
    NEEDS_A_PERSON = "needs_a_person"
    NEEDS_IDENTITY = "needs_identity"  # nobody vouches for the person well enough: they have to ask again, signed in
    EARLIER_REQUEST = "earlier_request"  # an erasure that lets the person's earlier request for a copy end first
    UNEXPECTED = "unexpected"  # an error that nobody foresaw: the service's log has it
    INTERRUPTED = "interrupted"  # the last attempt ended without a word, with its process


class MailKind(StrEnum):
    """The mails that the fleet writes."""

    ACKNOWLEDGEMENT = "acknowledgement"
    OUTCOME = "outcome"
    POLICY_CHANGE = "policy_change"


class MailRefusal(StrEnum):
    """Why nobody will deliver a mail: the person has to be reached in another way."""

    ADDRESS_SYNTAX = "address_syntax"  # SMTP allows no such address (RFC 5321 section 4.1.2, RFC 6531 section 3.3)
    ADDRESS_DOMAIN = "address_domain"  # its domain can be none (IDNA 2008, RFC 5891)
    ADDRESS_LITERAL = "address_literal"  # no IP address stands between its brackets (RFC 5321 section 4.1.3)
    ADDRESS_TOO_LONG = "address_too_long"  # RFC 5321 section 4.5.3.1
    ADDRESS_UNREADABLE = "address_unreadable"  # what was sealed holds no address, or does not open
    NO_ADDRESS = "no_address"  # nobody knows an address any more
    NO_SMTPUTF8 = "no_smtputf8"  # the server cannot take an address beyond ASCII (RFC 6531 section 3.1)
    SERVER_REFUSED = "server_refused"  # 5yz
    NEVER_TAKEN = "never_taken"  # no server took it for as long as it is tried


class Answered(StrEnum):
    """How a person was answered."""

    MAIL = "mail"  # the mail server took the outcome mail
    PLATFORM = "platform"  # nobody knows an address: the platform that sent the request shows the answer
    NOT_REACHABLE = "not_reachable"  # neither an address nor the account is known to anybody


class ParkReason(StrEnum):
    """Why a message waits for an operator instead of being handled."""

    UNREADABLE = "unreadable"
    TOO_LARGE = "too_large"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    MISSING_HEADER = "missing_header"
    WRONG_HEADER = "wrong_header"
    UNKNOWN_TYPE = "unknown_type"
    MISSING_FIELD = "missing_field"
    UNKNOWN_FIELD = "unknown_field"
    WRONG_VALUE = "wrong_value"
    WRONG_KEY = "wrong_key"
    BAD_SIGNATURE = "bad_signature"
    UNKNOWN_ISSUER = "unknown_issuer"
    ID_CONFLICT = "id_conflict"
    FROM_THE_FUTURE = "from_the_future"
    UNKNOWN_REFERENCE = "unknown_reference"
    EXHAUSTED = "exhausted"


class ResolveReason(StrEnum):
    """Why a parked message is never to take effect, by a person's decision."""

    SENT_AGAIN = "sent_again"  # the producer has mended it and sent it anew
    DONE_BY_HAND = "done_by_hand"  # a person has done what it asked for
    DUPLICATE = "duplicate"  # another message stands for it
    SUPERSEDED = "superseded"  # what it says no longer holds
    FORGED = "forged"  # nobody who may send it has sent it
    UNREADABLE = "unreadable"  # nobody can say what it was
