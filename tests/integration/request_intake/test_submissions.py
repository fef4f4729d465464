"""What is one request and what is another, who is one person, and how fresh a word for somebody has to be."""

import hashlib
import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from habeas.chassis.errors import Retry
from habeas.chassis.message import Defect
from habeas.contracts.platform import RequestSubmitted
from habeas.contracts.vocabulary import ParkReason, Right
from habeas.datamap.errors import StoreUnavailable, Unavailability
from habeas.datamap.policy.model import load_policy
from habeas.sealing import KeyKind, Place, SubjectKey, open_text
from habeas_demo.generator import PLATFORM_DIR
from request_intake import lifecycle, sweeps
from request_intake.handlers import Desk
from tests.integration.request_intake.conftest import LOOK, NOW, Counter, Taken

CONFLICT = (Defect(ParkReason.ID_CONFLICT, "request_id"),)
LATER = NOW + timedelta(seconds=90)
UPPER, LOWER = "0197F1C0-5B1E-7C11-8A39-0F6D2C4B9E01", "0197f1c0-5b1e-7c11-8a39-0f6d2c4b9e01"


async def digest(counter: Counter, request_id: str) -> bytes:
    """What is kept of a submission."""
    (row,) = await counter.db.read("test-look", LOOK, UUID(request_id))
    return bytes(row["submission_digest"])


@pytest.mark.parametrize("in_one_batch", [True, False])
async def test_the_same_request_again_changes_nothing(counter: Counter, *, in_one_batch: bool) -> None:
    """Times and signature that a sender makes anew do not make another request: nothing is parked, one row, as it was."""
    first = counter.body()
    again = counter.body(request_id=first["request_id"], received_at=LATER, authenticated_at=LATER)
    assert first["attestation"]["signature"] != again["attestation"]["signature"]
    if in_one_batch:
        taken = await counter.take(first, again)
    else:
        before = await counter.take(first)
        taken = await counter.take(again)
        assert taken.request == before.request
    assert taken.defects == ()
    assert taken.request["received_at"] == NOW
    facts = await counter.db.read("test-facts", "SELECT tail FROM request_intake.audit_outbox")
    assert len(facts) == 1


@pytest.mark.parametrize("in_one_batch", [True, False])
async def test_the_earliest_receipt_counts(counter: Counter, *, in_one_batch: bool) -> None:
    """When the later of two copies comes first, the deadline is that of the earlier one all the same (Art. 12(3): a month from receipt)."""
    late = counter.body(received_at=datetime(2026, 11, 20, 12, tzinfo=UTC))
    early = counter.body(request_id=late["request_id"], received_at=datetime(2026, 11, 2, 12, tzinfo=UTC))
    first = Taken({}) if in_one_batch else await counter.take(late)
    taken = await counter.take(late, early)
    assert (first.defects, taken.defects) == ((), ())
    assert taken.request["received_at"] == datetime(2026, 11, 2, 12, tzinfo=UTC)
    assert taken.request["due_on"] == date(2026, 12, 2)  # 30 days after 2 November
    assert (await counter.take(late)).request["due_on"] == date(2026, 12, 2)


OTHER_CONTENT: list[Mapping[str, Any]] = [
    {"account_id": "acc_2"},
    {"right": "access", "details": None},
    {"channel": "phone"},
    {"country": "FR"},
    {"language": "fr"},
    {"details": {"right": "erasure", "ground": "child"}},
    {"attestation": None},
    {"attestation": {"acr": "single"}},
    {"attestation": {"method": "passkey"}},
]


@pytest.mark.parametrize("other", OTHER_CONTENT, ids=str)
@pytest.mark.parametrize("in_one_batch", [True, False])
async def test_other_content_is_a_conflict(counter: Counter, other: Mapping[str, Any], *, in_one_batch: bool) -> None:
    """Everything but the three that senders make anew is content: a difference is parked, and the first submission stands."""
    first = counter.body()
    clash = counter.body(request_id=first["request_id"], **other)
    if in_one_batch:
        assert (await counter.take(first, clash)).defects == CONFLICT
    else:
        await counter.take(first)
        assert (await counter.take(clash)).defects == CONFLICT
    assert (await counter.take(first)).defects == ()


async def test_a_submission_is_kept_by_a_key_that_goes_with_the_case(counter: Counter) -> None:
    """Neither the SHA-256 of the bytes nor of the content is kept, and without the case key nothing can be told from it."""
    body = counter.body()
    taken = await counter.take(body)
    content = lifecycle.content_of(RequestSubmitted.model_validate(body), body["account_id"])
    kept = taken.request["submission_digest"]
    assert hashlib.sha256(content).digest() not in kept
    async with counter.db.transaction("test-key") as tx:
        subject = UUID(bytes=taken.request["subject_id"].bytes)
        key = (await counter.desk.keys.require(tx, [subject], KeyKind.CASE))[subject]
    request_id = UUID(body["request_id"])
    assert lifecycle.is_repeated(kept, request_id, key, content, b"")
    assert not lifecycle.is_repeated(kept, request_id, None, content, b"")
    assert not lifecycle.is_repeated(kept, request_id, SubjectKey.generate(subject, KeyKind.CASE), content, b"")
    assert not lifecycle.is_repeated(kept, UUID(int=9), key, content, b"")


async def test_rows_of_an_earlier_version_still_compare(counter: Counter) -> None:
    """A message that comes again after the upgrade is no conflict, before its bare digest was keyed and afterwards; others still are."""
    body, orphan = counter.body(), counter.body(account_id="acc_9")
    await counter.take(body)
    await counter.take(orphan)
    bare = hashlib.sha256(json.dumps(body).encode()).digest()
    await counter.owner.execute("UPDATE request_intake.requests SET submission_digest = $1", bare)
    await counter.owner.execute(
        "DELETE FROM sealing.subject_keys WHERE kind = 'case' AND subject_id ="
        " (SELECT subject_id FROM request_intake.requests WHERE request_id = $1)",
        UUID(orphan["request_id"]),
    )
    clash = counter.body(request_id=body["request_id"], channel="phone")
    assert (await counter.take(body)).defects == ()
    assert (await counter.take(clash)).defects == CONFLICT
    assert (await sweeps.rekey_digests(counter.db, counter.desk.keys)).handled == 2
    assert (await sweeps.rekey_digests(counter.db, counter.desk.keys)).handled == 0
    for each in (body, orphan):
        assert bare not in await digest(counter, each["request_id"])
    assert (await counter.take(body)).defects == ()
    assert (await counter.take(clash)).defects == CONFLICT
    assert (await counter.take(orphan)).defects == CONFLICT


@pytest.mark.parametrize(
    ("kind", "spellings", "canonical"),
    [
        ("uuid", (UPPER, LOWER, LOWER.replace("-", "")), LOWER),
        ("bigint", ("42", "0042"), "42"),
        ("text", (LOWER,), LOWER),
    ],
)
async def test_two_spellings_of_one_account_are_one_person(
    counter: Counter, kind: str, spellings: tuple[str, ...], canonical: str
) -> None:
    """However an id is spelled, there is one subject, and the account is sealed as the store spells it."""
    counter.identities.kind = kind
    rows = [(await counter.take(counter.body(account_id=spelled))).request for spelled in spellings]
    assert len({row["subject_id"] for row in rows}) == 1
    subject = UUID(bytes=rows[0]["subject_id"].bytes)
    async with counter.db.transaction("test-key") as tx:
        key = (await counter.desk.keys.require(tx, [subject], KeyKind.DATA))[subject]
    for row in rows:
        place = Place("request", UUID(bytes=row["request_id"].bytes), "account")
        assert open_text(key, place, row["account"]) == canonical


async def test_text_is_taken_as_it_is(counter: Counter) -> None:
    """Where the column is text, two spellings are two accounts: erasing one must not erase the other."""
    rows = [(await counter.take(counter.body(account_id=spelled))).request for spelled in (UPPER, LOWER)]
    assert len({row["subject_id"] for row in rows}) == 2


async def test_the_same_request_in_another_spelling_is_the_same(counter: Counter) -> None:
    """Sent again with the id spelled otherwise it is no conflict."""
    counter.identities.kind = "uuid"
    body = counter.body(account_id=UPPER)
    assert (await counter.take(body)).defects == ()
    assert (await counter.take(counter.body(request_id=body["request_id"], account_id=LOWER))).defects == ()


@pytest.mark.parametrize(
    ("kind", "account_id"),
    [
        ("uuid", "acc_1"),
        ("uuid", LOWER + "0"),
        ("uuid", LOWER[:-1] + "_"),
        ("bigint", "acc_1"),
        ("bigint", "0x2A"),
        ("smallint", "32768"),
    ],
)
async def test_an_id_that_no_account_can_have_is_parked(counter: Counter, kind: str, account_id: str) -> None:
    """What the identity column cannot hold is parked with its field; others of the batch are taken."""
    counter.identities.kind = kind
    good = counter.body(account_id=LOWER if kind == "uuid" else "17")
    taken = await counter.take(good, counter.body(account_id=account_id))
    assert taken.defects == (Defect(ParkReason.WRONG_VALUE, "account_id"),)
    assert taken.request


async def test_a_store_that_does_not_tell_its_spelling_is_waited_for(counter: Counter) -> None:
    """Nothing is guessed while a store is away, and nothing is lost: the message is tried again."""
    counter.identities.failure = StoreUnavailable("platform", Unavailability.NO_CONNECTION)
    with pytest.raises(Retry, match="store_unavailable"):
        await counter.take(counter.body())
    counter.identities.failure = None
    assert (await counter.take(counter.body())).request


@pytest.mark.parametrize(
    ("right", "authenticated_at", "is_verified"),
    [
        ("erasure", NOW, True),
        ("erasure", NOW - timedelta(hours=24), True),
        ("erasure", NOW - timedelta(hours=24, seconds=1), False),
        ("erasure", NOW + timedelta(seconds=300), True),
        ("erasure", datetime(2001, 1, 1, tzinfo=UTC), False),
        ("erasure", datetime(1970, 1, 1, tzinfo=UTC), False),
        ("objection", NOW - timedelta(days=29), True),
        ("objection", NOW - timedelta(days=31), False),
    ],
)
async def test_a_stale_authentication_proves_nobody(
    counter: Counter, right: str, authenticated_at: datetime, *, is_verified: bool
) -> None:
    """From longer before the request than the window of the right it is taken, and waits for proof of identity."""
    details = (
        {"right": right, "purposes": ["analytics"]} if right == Right.OBJECTION else {"right": right, "ground": "child"}
    )
    taken = await counter.take(counter.body(right=right, details=details, authenticated_at=authenticated_at))
    assert (taken.defects, taken.request["is_verified"]) == ((), is_verified)


@pytest.mark.parametrize("ahead", [timedelta(seconds=301), timedelta(days=1), timedelta(days=365 * 973)])
async def test_an_authentication_in_the_future_is_parked(counter: Counter, ahead: timedelta) -> None:
    """Nobody can have been authenticated tomorrow, or in 2999."""
    taken = await counter.take(counter.body(authenticated_at=NOW + ahead))
    assert taken.defects == (Defect(ParkReason.FROM_THE_FUTURE, "attestation.authenticated_at"),)
    assert not taken.request


def keyed(counter: Counter, tmp_path: Path, days: str) -> Desk:
    """The desk under a policy that gives the issuer's key days."""
    public = b64encode(counter.issuer.private_key.public_key().public_bytes_raw()).decode()
    key = f'{{public_key: "{public}", {days}}}'
    text = (PLATFORM_DIR / "policy.yaml").read_text(encoding="utf-8")
    issuers = f"attestation_issuers:\n  {counter.issuer.name}: {{keys: {{{counter.issuer.key_id}: {key}}}}}\n"
    file = tmp_path / "keyed.yaml"
    file.write_text(f"{text}\n{issuers}", encoding="utf-8")
    return replace(counter.desk, policy=load_policy(file))


@pytest.mark.parametrize("days", ["valid_from: 2026-11-25", "valid_until: 2026-11-23"])
async def test_a_key_outside_of_its_days_vouches_for_nobody(counter: Counter, tmp_path: Path, days: str) -> None:
    """Signed by a key that is not believed yet, or no longer: parked, whatever times the message claims."""
    counter.desk = keyed(counter, tmp_path, days)
    taken = await counter.take(counter.body(authenticated_at=NOW - timedelta(hours=20)))
    assert taken.defects == (Defect(ParkReason.UNKNOWN_ISSUER, "attestation.key_id"),)


@pytest.mark.parametrize(("hours", "is_verified"), [(1, True), (20, False)])
async def test_an_authentication_from_before_the_key_proves_nobody(
    counter: Counter, tmp_path: Path, hours: int, *, is_verified: bool
) -> None:
    """A key cannot vouch for a day on which it was not valid: the request is taken and waits for proof of identity."""
    counter.desk = keyed(counter, tmp_path, "valid_from: 2026-11-24")
    taken = await counter.take(counter.body(authenticated_at=NOW - timedelta(hours=hours)))
    assert (taken.defects, taken.request["is_verified"]) == ((), is_verified)


async def test_a_request_older_than_an_outage_is_as_good(counter: Counter) -> None:
    """The window counts from the receipt, not from when the message arrived: a sender may have been away for weeks."""
    received_at = NOW - timedelta(days=20)
    taken = await counter.take(counter.body(received_at=received_at, authenticated_at=received_at))
    assert (taken.defects, taken.request["is_verified"]) == ((), True)


NARROWED = [
    ("access", {"categories": ["account", "no_such_kind"]}, "details.categories"),
    ("portability", {"categories": ["Account".lower(), "a" * 80]}, "details.categories"),
    ("erasure", {"categories": ["no_such_kind"], "ground": "child"}, "details.categories"),
    ("objection", {"purposes": ["no_such_use"]}, "details.purposes"),
    ("consent_withdrawal", {"purposes": ["analytics", "no_such_use"]}, "details.purposes"),
]


@pytest.mark.parametrize(("right", "details", "field"), NARROWED)
async def test_a_name_that_the_policy_does_not_know_is_parked(
    counter: Counter, right: str, details: Mapping[str, Any], field: str
) -> None:
    """A category or a purpose is one of the policy's own words: nobody could act upon another; a good one in the batch is taken."""
    strange = counter.body(right=right, details={"right": right, **details})
    good = counter.body(right="access", details={"right": "access", "categories": ["account", "usage"]})
    assert (await counter.take(strange)).defects == (Defect(ParkReason.WRONG_VALUE, field),)
    taken = await counter.take(good, strange)
    assert taken.defects == (Defect(ParkReason.WRONG_VALUE, field),)
    assert taken.request["categories"] == ["account", "usage"]


async def test_a_name_that_the_policy_no_longer_knows_makes_no_repetition_wrong(
    counter: Counter, tmp_path: Path
) -> None:
    """The same request again changes nothing, though its category has gone from the policy since."""
    body = counter.body(right="access", details={"right": "access", "categories": ["account"]})
    assert (await counter.take(body)).defects == ()
    policy = counter.desk.policy
    without = policy.model_copy(update={"categories": {k: v for k, v in policy.categories.items() if k != "account"}})
    counter.desk = replace(counter.desk, policy=without)
    assert (await counter.take(body)).defects == ()


TOO_MUCH: list[tuple[Mapping[str, Any], str]] = [
    ({"language": "de" + "-aaaaaaaa" * 9}, "language"),
    ({"language": "de" + "-aaaaaaaa" * 166_666}, "language"),
    ({"right": "access", "details": {"right": "access", "categories": ["account"] * 65}}, "details.access.categories"),
    ({"right": "objection", "details": {"right": "objection", "purposes": ["a"] * 65}}, "details.objection.purposes"),
    ({"channel": "a" * 81}, "channel"),
    ({"account_id": "a" * 129}, "account_id"),
]


@pytest.mark.parametrize(("parts", "field"), TOO_MUCH, ids=lambda each: each if isinstance(each, str) else "")
async def test_what_is_too_long_is_parked_by_its_field(counter: Counter, parts: Mapping[str, Any], field: str) -> None:
    """Every text and list of a submission has a bound; one beyond it is a wrong value of its own field."""
    value = json.dumps(counter.body(**parts)).encode()
    with pytest.raises(ValidationError) as caught:
        RequestSubmitted.decode(value)
    (first,) = caught.value.errors(include_input=False, include_context=False)
    assert ".".join(map(str, first["loc"])) == field
