"""When two submissions under one id are the same request: by content, whatever the times, the spelling of JSON, and the version."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from habeas.contracts.platform import RequestSubmitted
from habeas.sealing import KeyKind, SubjectKey
from request_intake import lifecycle

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
REQUEST = UUID(int=7)

TIMES = st.integers(-10_000_000, 10_000_000).map(lambda ms: (NOW + timedelta(milliseconds=ms)).isoformat())
SIGNATURES = st.text("ABCDEFabcdef0189-_", min_size=85, max_size=85).map(lambda text: text + "A")
CONTENTS = st.fixed_dictionaries(
    {
        "account_id": st.sampled_from(["acc_1", "acc_2"]),
        "right": st.sampled_from(["access", "portability"]),
        "channel": st.sampled_from(["web", "phone"]),
    },
    optional={
        "country": st.sampled_from(["DE", "FR", None]),
        "language": st.sampled_from(["de", None]),
        "regime": st.sampled_from(["gdpr", None]),
    },
)
VOUCHED = st.none() | st.fixed_dictionaries(
    {
        "method": st.sampled_from(["session", "passkey"]),
        "acr": st.sampled_from(["single", "mfa"]),
        "issuer": st.just("accounts"),
        "key_id": st.sampled_from(["k1", "k2"]),
    }
)


@st.composite
def submissions(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """What a submission says but for the three parts that senders make anew, and its bytes with these."""
    said, vouched = draw(CONTENTS), draw(VOUCHED)
    body: dict[str, Any] = {"request_id": str(REQUEST), **said, "received_at": draw(TIMES)}
    if vouched is not None:
        body["attestation"] = {**vouched, "authenticated_at": draw(TIMES), "signature": draw(SIGNATURES)}
    order = draw(st.permutations(list(body)))
    value = json.dumps({name: body[name] for name in order}, indent=draw(st.sampled_from([None, 1]))).encode()
    return {name: part for name, part in {**said, "vouched": vouched}.items() if part is not None}, value


@given(submissions(), submissions(), st.binary(min_size=32, max_size=32))
def test_the_same_request_is_told_by_its_content(
    one: tuple[dict[str, Any], bytes], other: tuple[dict[str, Any], bytes], secret: bytes
) -> None:
    """Of any two submissions under one id the second repeats the first exactly when they say the same apart from the three parts."""
    key = SubjectKey(UUID(int=1), KeyKind.CASE, secret)
    contents = []
    for _, value in (one, other):
        submission = RequestSubmitted.decode(value)
        contents.append(lifecycle.content_of(submission, submission.account_id))
    kept = lifecycle.digest_of(contents[0], REQUEST, key)
    assert lifecycle.is_repeated(kept, REQUEST, key, contents[1], other[1]) is (one[0] == other[0])


@given(submissions(), st.binary(min_size=32, max_size=32))
def test_nothing_can_be_told_without_the_case_key(one: tuple[dict[str, Any], bytes], secret: bytes) -> None:
    """What is kept fits no other person's key, no other request, and nothing once the key is destroyed."""
    submission = RequestSubmitted.decode(one[1])
    content = lifecycle.content_of(submission, submission.account_id)
    key, stranger = SubjectKey(UUID(int=1), KeyKind.CASE, secret), SubjectKey.generate(UUID(int=1), KeyKind.CASE)
    kept = lifecycle.digest_of(content, REQUEST, key)
    assert lifecycle.is_repeated(kept, REQUEST, key, content, one[1])
    assert not lifecycle.is_repeated(kept, REQUEST, None, content, one[1])
    assert not lifecycle.is_repeated(kept, REQUEST, stranger, content, one[1])
    assert not lifecycle.is_repeated(kept, UUID(int=8), key, content, one[1])
