import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from copy import copy
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from tink import aead, proto_keyset_format, secret_key_access
from tink.proto import aes_gcm_pb2, tink_pb2

from habeas.contracts.model import SealedText
from habeas.sealing import (
    KeyKind,
    Place,
    SealBroken,
    SubjectKey,
    SubjectKeys,
    open_json,
    open_sealed,
    open_text,
    seal,
    seal_json,
    seal_text,
)

SUBJECT = UUID("0192f0c0-0000-7000-8000-000000000001")
REQUEST = UUID("0192f0c0-0000-7000-8000-000000000002")
SECRET = bytes(range(32))
KEY = SubjectKey(SUBJECT, KeyKind.DATA, SECRET)
PLACE = Place("request", REQUEST, "account")


def hkdf_sha256(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 §2.2 and §2.3, written from the text."""
    pseudo_random_key = hmac.digest(salt or bytes(32), secret, "sha256")
    block, output = b"", b""
    while len(output) < length:
        block = hmac.digest(pseudo_random_key, block + info + bytes([len(output) // 32 + 1]), "sha256")
        output += block
    return output[:length]


def open_with_tink(secret: bytes, sealed: bytes, aad: bytes) -> bytes:
    """AES-256-GCM by Tink's C++ implementation: nonce, ciphertext, tag."""
    aead.register()
    data = tink_pb2.KeyData(
        type_url="type.googleapis.com/google.crypto.tink.AesGcmKey",
        value=aes_gcm_pb2.AesGcmKey(key_value=secret).SerializeToString(),
        key_material_type=tink_pb2.KeyData.SYMMETRIC,
    )
    keyset = tink_pb2.Keyset(primary_key_id=7)
    keyset.key.add(key_data=data, status=tink_pb2.ENABLED, key_id=7, output_prefix_type=tink_pb2.RAW)
    handle = proto_keyset_format.parse(keyset.SerializeToString(), secret_key_access.TOKEN)
    plaintext: bytes = handle.primitive(aead.Aead).decrypt(sealed, aad)
    return plaintext


def test_hkdf_of_this_file_meets_rfc_5869() -> None:
    """The HKDF that other tests compare with gives RFC 5869 appendix A.1 and A.3."""
    a1 = hkdf_sha256(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)), 42)
    assert a1.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    a3 = hkdf_sha256(b"\x0b" * 22, b"", b"", 42)
    assert a3.hex() == "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"


def test_cipher_meets_gcm_test_case_16() -> None:
    """A key's cipher is AES-256-GCM: test case 16 of the GCM specification (McGrew and Viega), used by NIST."""
    secret = bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2)
    plaintext = bytes.fromhex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
    )
    aad = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
    sealed = SubjectKey(SUBJECT, KeyKind.DATA, secret).cipher.encrypt(
        bytes.fromhex("cafebabefacedbaddecaf888"), plaintext, aad
    )
    assert sealed.hex() == (
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
        "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
        "76fc6ece0f4e1768cddf8853bb2d551b"
    )


def test_sealed_text_opens_with_tink() -> None:
    """The text form is base64url of what any AES-GCM opens, the associated data as documented."""
    sealed = seal(KEY, PLACE, b"account 4711")
    version, kind, body = sealed.split(".")
    assert (version, kind) == ("s1", "data")
    aad = b"habeas/1\x00\x04data" + SUBJECT.bytes + b"\x00\x07request" + REQUEST.bytes + b"\x00\x07account"
    raw = urlsafe_b64decode(body + "=" * (-len(body) % 4))
    assert open_with_tink(SECRET, raw, aad) == b"account 4711"


@given(st.binary(max_size=300), st.sampled_from(KeyKind))
def test_opens_what_was_sealed(plaintext: bytes, kind: KeyKind) -> None:
    """Sealing and opening at the same place gives the same bytes, whatever they are."""
    key = SubjectKey.generate(SUBJECT, kind)
    assert open_sealed(key, PLACE, seal(key, PLACE, plaintext)) == plaintext


def test_equal_values_look_different() -> None:
    """Two sealings of one value can not be matched with each other."""
    assert seal(KEY, PLACE, b"same") != seal(KEY, PLACE, b"same")


def test_any_altered_character_is_found() -> None:
    """Replacing any character by any other base64url character, or by a foreign one, never opens."""
    sealed = seal(KEY, PLACE, b"value")
    for at, character in enumerate(sealed):
        for other in "Aa0-_=.+/ \né\ud800":
            if other != character:
                with pytest.raises(SealBroken):
                    open_sealed(KEY, PLACE, sealed[:at] + other + sealed[at + 1 :])


def test_any_flipped_bit_is_found() -> None:
    """Every single bit of nonce, ciphertext and tag counts."""
    sealed = seal(KEY, PLACE, b"value")
    body = sealed.removeprefix("s1.data.")
    raw = urlsafe_b64decode(body + "=" * (-len(body) % 4))
    for bit in range(len(raw) * 8):
        altered = bytearray(raw)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SealBroken):
            open_sealed(KEY, PLACE, "s1.data." + urlsafe_b64encode(altered).rstrip(b"=").decode())


def test_cut_and_padded_texts_are_refused() -> None:
    """A text that was cut anywhere, or got more characters, does not open."""
    sealed = seal(KEY, PLACE, b"value")
    for text in [
        *(sealed[:end] for end in range(len(sealed))),
        sealed + "A",
        sealed + "=",
        sealed + "\n",
        " " + sealed,
    ]:
        with pytest.raises(SealBroken):
            open_sealed(KEY, PLACE, text)


@pytest.mark.parametrize(
    "place",
    [
        Place("requests", REQUEST, "account"),
        Place("request", SUBJECT, "account"),
        Place("request", REQUEST, "contact"),
        Place("requesta", REQUEST, "ccount"),
        Place("", REQUEST, "account"),
    ],
)
def test_another_place_does_not_open(place: Place) -> None:
    """A sealed value that was moved to another entity, row or field stays shut, and the error quotes no value."""
    with pytest.raises(SealBroken) as caught:
        open_sealed(KEY, place, seal(KEY, PLACE, b"secret value"))
    assert "secret" not in str(caught.value)
    assert str(REQUEST) not in str(caught.value)


def test_another_subject_or_kind_does_not_open() -> None:
    """Even with the same secret, a value of one subject or kind does not open as another's."""
    sealed = seal(KEY, PLACE, b"value")
    with pytest.raises(SealBroken):
        open_sealed(SubjectKey(REQUEST, KeyKind.DATA, SECRET), PLACE, sealed)
    case = SubjectKey(SUBJECT, KeyKind.CASE, SECRET)
    with pytest.raises(SealBroken):
        open_sealed(case, PLACE, sealed)
    with pytest.raises(SealBroken):
        open_sealed(case, PLACE, sealed.replace("s1.data.", "s1.case."))


def test_fields_travel_as_text_and_json() -> None:
    """Text and JSON fields come back as they were; text that is no JSON object is refused without being quoted."""
    contact = {"address": "ada@example.org", "name": "Ada Žižková", "language": "cs"}
    assert open_json(KEY, PLACE, seal_json(KEY, PLACE, contact)) == contact
    assert open_text(KEY, PLACE, seal_text(KEY, PLACE, "Žižková")) == "Žižková"
    for text in ("Ada", "[1]", '"Ada"'):
        with pytest.raises(SealBroken) as caught:
            open_json(KEY, PLACE, seal_text(KEY, PLACE, text))
        assert "Ada" not in f"{caught.value!r}{caught.value.__cause__!r}"


def test_keys_keep_their_secret() -> None:
    """Neither repr nor str shows key bytes, and a key can not be serialised or copied (one mechanism)."""
    pair = SubjectKeys(data=KEY, case=SubjectKey(SUBJECT, KeyKind.CASE, SECRET))
    for shown in (repr(KEY), str(KEY), repr(pair), f"{KEY}"):
        assert SECRET.hex() not in shown
        assert repr(SECRET) not in shown
        assert str(SUBJECT) not in shown
    with pytest.raises(TypeError):
        copy(KEY)


def test_key_of_wrong_length_is_refused() -> None:
    """A subject's key has 32 bytes, no more and no less."""
    for length in (0, 16, 31, 33):
        with pytest.raises(ValueError, match="32 bytes"):
            SubjectKey(SUBJECT, KeyKind.DATA, bytes(length))


def test_reference_is_hkdf_and_differs_per_purpose() -> None:
    """A subject's reference is HKDF-SHA256 of the key, and two requests give unlinkable ones."""
    info = b"habeas subject reference\x00" + REQUEST.bytes
    assert KEY.reference(REQUEST.bytes) == hkdf_sha256(SECRET, b"", info, 32)
    assert KEY.reference(SUBJECT.bytes) != KEY.reference(REQUEST.bytes)
    assert KEY.reference(b"") not in {SECRET, hashlib.sha256(SECRET).digest()}


def test_pair_gives_each_kind() -> None:
    """`of` picks the key of the kind asked for."""
    case = SubjectKey(SUBJECT, KeyKind.CASE, SECRET)
    pair = SubjectKeys(data=KEY, case=case)
    assert pair.of(KeyKind.DATA) is KEY
    assert pair.of(KeyKind.CASE) is case


def test_text_is_the_contracts() -> None:
    """Even an empty value is a text that the contracts' `SealedText` takes."""
    for plaintext in (b"", bytes(1000)):
        TypeAdapter(SealedText).validate_python(seal(KEY, PLACE, plaintext))
