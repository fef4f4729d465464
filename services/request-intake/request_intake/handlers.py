"""The message edge of request-intake: what is loaded, decided and saved for each event."""

from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from habeas.chassis.batch import Batch
from habeas.chassis.clock import Clock
from habeas.chassis.database import Transaction
from habeas.chassis.errors import Retry
from habeas.chassis.ids import uuid7
from habeas.contracts.erasure_executor import ErasureCompleted, ErasureStuck
from habeas.contracts.export_builder import ExportCompleted, ExportStuck
from habeas.contracts.notification_mailer import MailRefused, MailSent, MailUncertain
from habeas.contracts.platform import RequestSubmitted
from habeas.contracts.vocabulary import MailKind, ParkReason, StuckReason
from habeas.datamap.errors import StoreError
from habeas.datamap.policy.deadlines import Deadlines, UnknownRegimeError, choose_regimes, compute
from habeas.datamap.policy.model import Policy
from habeas.datamap.policy.regimes import NoLawInForceError
from habeas.kit import BadAttestation, verify
from habeas.sealing import Fingerprinter, KeyKind, KeyStore, Place, SubjectKeys, seal_text
from request_intake import lifecycle, store
from request_intake.gateways import Identities, Spelling
from request_intake.lifecycle import Decision, Request, State

E = TypeVar("E", ErasureCompleted, ErasureStuck, ExportCompleted, ExportStuck, MailSent, MailRefused, MailUncertain)


@dataclass(frozen=True, slots=True)
class Desk:
    """What taking a submission needs besides the database."""

    policy: Policy
    keys: KeyStore
    fingerprinter: Fingerprinter
    identities: Identities
    clock: Clock
    tolerance: timedelta


@dataclass(frozen=True, slots=True)
class _Taken:
    """What was found out about one submission before it becomes a request."""

    account_id: str
    content: bytes
    received_at: datetime
    is_verified: bool
    deadlines: Deadlines
    traceparent: str | None


async def on_request_submitted(batch: Batch[RequestSubmitted], tx: Transaction, desk: Desk) -> None:
    """Store each submission as a request with its deadline.

    Runs once per event. The same request id with the same content is taken once, and the earliest time of receipt counts; with other
    content it is parked. Raises ``Retry`` while a store does not tell how it spells account ids.
    """
    try:
        spelled = await desk.identities.spelling()
    except StoreError as error:
        raise Retry(error.because) from None
    known = await store.find_submissions(tx, [submission.request_id for submission in batch])
    case_keys = await desk.keys.read(tx, {each.subject_id for each in known.values()}, KeyKind.CASE)
    taken: dict[UUID, _Taken] = {}
    earlier: dict[UUID, _Taken] = {}
    for submission in batch:
        one = _take(submission, batch, tx, desk, spelled)
        if one is None:
            continue
        request_id, before = submission.request_id, known.get(submission.request_id)
        if before is None:
            strange = _strange_name(submission, desk.policy)
            if strange is not None:
                batch.reject(ParkReason.WRONG_VALUE, strange)
                continue
            first = taken.setdefault(request_id, one)
            is_same = first.content == one.content
            if is_same and one.received_at < first.received_at:
                taken[request_id] = replace(first, received_at=one.received_at, deadlines=one.deadlines)
        else:
            key = case_keys.get(before.subject_id)
            is_same = lifecycle.is_repeated(before.digest, request_id, key, one.content, batch.value)
            if is_same and one.received_at < earlier.get(request_id, before).received_at:
                earlier[request_id] = one
        if not is_same:
            batch.reject(ParkReason.ID_CONFLICT, "request_id")
    prints = {one.account_id: desk.fingerprinter.fingerprint("account", one.account_id) for one in taken.values()}
    subjects = await store.resolve_subjects(tx, {fingerprint: uuid7(desk.clock) for fingerprint in prints.values()})
    keys = await desk.keys.create(tx, set(subjects.values()), tx.now)
    requests: dict[UUID, Request] = {}
    for submission in batch:
        one = taken.get(submission.request_id)
        if one is None or submission.request_id in requests:
            continue
        request = _request(submission, keys[subjects[prints[one.account_id]]], one)
        requests[request.request_id] = request
        tx.record(lifecycle.receive(request))
    await store.add_requests(tx, list(requests.values()))
    await store.receive_earlier(
        tx, {request_id: (one.received_at, one.deadlines) for request_id, one in earlier.items()}
    )


def _take(
    submission: RequestSubmitted, batch: Batch[RequestSubmitted], tx: Transaction, desk: Desk, spelled: Spelling
) -> _Taken | None:
    """Look at one submission by itself; an invalid one is parked."""
    account_id = spelled(submission.account_id)
    if account_id is None:
        batch.reject(ParkReason.WRONG_VALUE, "account_id")
        return None
    if submission.received_at > tx.now + desk.tolerance:
        batch.reject(ParkReason.FROM_THE_FUTURE, "received_at")
        return None
    try:
        regimes = choose_regimes(desk.policy, submission.country, submission.regime)
        deadlines = compute(desk.policy, regimes, submission.received_at)
    except UnknownRegimeError:
        batch.reject(ParkReason.WRONG_VALUE, "regime")
        return None
    except NoLawInForceError:
        batch.reject(ParkReason.WRONG_VALUE, "received_at")
        return None
    is_verified = _is_verified(submission, batch, tx.now, desk)
    if batch.is_rejected:
        return None
    content = lifecycle.content_of(submission, account_id)
    return _Taken(account_id, content, submission.received_at, is_verified, deadlines, batch.trace)


async def on_erasure_completed(batch: Batch[ErasureCompleted], tx: Transaction, keys: KeyStore) -> None:
    """Take the outcome, close the subject and forget its keys.

    A person who is known is closed, also where the request is not: a database that was restored may lack it, and nobody waits for it here.
    """
    prints = await store.find_fingerprints(tx, {event.subject_id for event in batch})
    copied = await store.find_with_copies(tx, {event.subject_id for event in batch})

    def decide(request: Request, event: ErasureCompleted) -> Decision:
        fingerprint = prints[event.subject_id].hex()
        return lifecycle.take_erasure(request, event, fingerprint, tx.now, had_copies=event.subject_id in copied)

    await _advance(batch, tx, decide, people=prints)
    keys.forget({event.subject_id for event in batch})
    await store.close_subjects(tx, {event.subject_id for event in batch})


async def on_erasure_stuck(batch: Batch[ErasureStuck], tx: Transaction) -> None:
    """Keep the request open with the reason."""
    await _advance(batch, tx, lambda request, event: lifecycle.take_stuck(request, event.reason))


async def on_export_completed(batch: Batch[ExportCompleted], tx: Transaction) -> None:
    """Take the export as the answer."""
    await _advance(batch, tx, lambda request, event: lifecycle.take_export(request, event, tx.now))


async def on_export_stuck(batch: Batch[ExportStuck], tx: Transaction) -> None:
    """Keep the request open with the reason."""
    await _advance(batch, tx, lambda request, event: lifecycle.take_stuck(request, event.reason))


async def on_mail_sent(batch: Batch[MailSent], tx: Transaction) -> None:
    """The outcome mail is out: the request is done. Acknowledgements change nothing."""
    await _advance(batch, tx, lambda request, event: _answered(request, event, tx))


async def on_mail_refused(batch: Batch[MailRefused], tx: Transaction) -> None:
    """Keep the request open: the person has not been answered."""
    await _advance(batch, tx, lambda request, event: _unanswered(request, event.kind, StuckReason.MAIL_REFUSED))


async def on_mail_uncertain(batch: Batch[MailUncertain], tx: Transaction) -> None:
    """Keep the request open: nobody knows whether the person has been answered."""
    await _advance(batch, tx, lambda request, event: _unanswered(request, event.kind, StuckReason.MAIL_UNCERTAIN))


def _answered(request: Request, event: MailSent, tx: Transaction) -> Decision:
    return lifecycle.take_answered(request, tx.now) if event.kind is MailKind.OUTCOME else Decision(request)


def _unanswered(request: Request, kind: MailKind, reason: StuckReason) -> Decision:
    return lifecycle.take_unanswered(request, reason) if kind is MailKind.OUTCOME else Decision(request)


async def _advance(
    batch: Batch[E], tx: Transaction, decide: Callable[[Request, E], Decision], *, people: Container[UUID] = ()
) -> None:
    """Lock the requests of the batch, decide for each event in order, save what changed in one statement.

    Erasures that waited for a request which is waited for no longer look again at once.

    An event about an unknown request is poison, unless it is about one of the ``people``, for whom it has its effect elsewhere.
    """
    requests = await store.lock_requests(tx, [event.request_id for event in batch])
    changed: dict[UUID, Request] = {}
    waited_for = {each.request_id for each in requests.values() if lifecycle.is_waited_for(each)}
    for event in batch:
        if event.request_id not in requests and getattr(event, "subject_id", None) in people:
            continue
        before = batch.require(requests, event.request_id, unknown="request_id")
        if not lifecycle.concerns(before, event):
            continue
        decision = decide(before, event)
        if decision.request is not before:
            requests[before.request_id] = changed[before.request_id] = decision.request
        tx.emit(*decision.events)
        tx.record(*decision.facts)
    await store.save_requests(tx, list(changed.values()))
    ended = {
        each.subject_id
        for each in changed.values()
        if each.request_id in waited_for and not lifecycle.is_waited_for(each)
    }
    await store.let_go_on(tx, ended)


def _is_verified(submission: RequestSubmitted, batch: Batch[RequestSubmitted], now: datetime, desk: Desk) -> bool:
    """Answer whether the attestation is good, strong and fresh enough; park the submission when it is false."""
    attestation, policy = submission.attestation, desk.policy
    if attestation is None:
        return False
    key = policy.issuer_key(attestation.issuer, attestation.key_id, now, desk.tolerance)
    if key is None:
        batch.reject(ParkReason.UNKNOWN_ISSUER, "attestation.key_id")
        return False
    try:
        verify(batch.value, Ed25519PublicKey.from_public_bytes(key.raw))
    except BadAttestation:
        batch.reject(ParkReason.BAD_SIGNATURE, "attestation.signature")
        return False
    if attestation.authenticated_at > now + desk.tolerance:
        batch.reject(ParkReason.FROM_THE_FUTURE, "attestation.authenticated_at")
        return False
    return (
        policy.attestation_suffices(attestation.issuer, submission.right, attestation.acr)
        and policy.authentication_is_fresh(
            attestation.issuer, submission.right, attestation.authenticated_at, submission.received_at
        )
        and key.begins_by(attestation.authenticated_at, policy.zone)
    )


def _strange_name(submission: RequestSubmitted, policy: Policy) -> str | None:
    """Return the field that names a category or a purpose which the policy does not have; None when all are its own."""
    known = {"categories": policy.categories, "purposes": policy.purposes}
    for field, names in known.items():
        if any(each not in names for each in getattr(submission.details, field, None) or ()):
            return f"details.{field}"
    return None


def _request(submission: RequestSubmitted, keys: SubjectKeys, taken: _Taken) -> Request:
    """Make the request that a submission asks for, with its deadline; what names the person is sealed."""
    deadlines = taken.deadlines
    request_id = submission.request_id
    details = submission.details
    categories = getattr(details, "categories", None)
    return Request(
        request_id=request_id,
        subject_id=keys.data.subject_id,
        right=submission.right,
        state=State.RECEIVED,
        regime=deadlines.regime,
        law_version=deadlines.law_version,
        channel=submission.channel,
        language=submission.language,
        received_at=taken.received_at,
        due_on=deadlines.due_on,
        legal_limit_on=deadlines.legal_limit_on,
        is_verified=taken.is_verified,
        account=seal_text(keys.data, Place("request", request_id, "account"), taken.account_id),
        details=None
        if details is None
        else seal_text(keys.data, Place("request", request_id, "details"), details.model_dump_json()),
        categories=categories,
        subject_ref=keys.case.reference(request_id.bytes).hex(),
        submission_digest=lifecycle.digest_of(taken.content, request_id, keys.case),
        traceparent=taken.traceparent,
    )
