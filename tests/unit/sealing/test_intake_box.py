from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from pydantic import TypeAdapter
from tink import hybrid, proto_keyset_format, secret_key_access
from tink.proto import hpke_pb2, tink_pb2

from habeas.contracts.platform import HpkeText
from habeas.sealing import (
    SealBroken,
    intake_private_key,
    new_key_ring,
    open_from_publisher,
    public_key_of,
    public_key_text,
    seal_to_intake,
)
from habeas.sealing.kek import KeyRing

# RFC 9180 appendix A.2.1 (DHKEM(X25519, HKDF-SHA256)): skRm and pkRm.
RFC_PRIVATE = bytes.fromhex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb")
RFC_PUBLIC = bytes.fromhex("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a")
PRIVATE = X25519PrivateKey.from_private_bytes(RFC_PRIVATE)
INFO = b"dsr_request.submitted/account"


def tink_keyset(key_type: str, value: bytes, material: int) -> tink_pb2.Keyset:
    """A keyset of one key without prefix."""
    data = tink_pb2.KeyData(
        type_url=f"type.googleapis.com/google.crypto.tink.{key_type}", value=value, key_material_type=material
    )
    keyset = tink_pb2.Keyset(primary_key_id=3)
    keyset.key.add(key_data=data, status=tink_pb2.ENABLED, key_id=3, output_prefix_type=tink_pb2.RAW)
    return keyset


def tink_pair() -> tuple[hybrid.HybridEncrypt, hybrid.HybridDecrypt]:
    """The same key and suite in Tink's implementation of RFC 9180."""
    hybrid.register()
    params = hpke_pb2.HpkeParams(
        kem=hpke_pb2.DHKEM_X25519_HKDF_SHA256, kdf=hpke_pb2.HKDF_SHA256, aead=hpke_pb2.AES_256_GCM
    )
    public = hpke_pb2.HpkePublicKey(params=params, public_key=RFC_PUBLIC)
    private = hpke_pb2.HpkePrivateKey(public_key=public, private_key=RFC_PRIVATE)
    keyset = tink_keyset("HpkePrivateKey", private.SerializeToString(), tink_pb2.KeyData.ASYMMETRIC_PRIVATE)
    handle = proto_keyset_format.parse(keyset.SerializeToString(), secret_key_access.TOKEN)
    return (
        handle.public_keyset_handle().primitive(hybrid.HybridEncrypt),
        handle.primitive(hybrid.HybridDecrypt),
    )


def raw_of(sealed: str) -> bytes:
    """Bytes of the text form."""
    body = sealed.removeprefix("hpke1.")
    return urlsafe_b64decode(body + "=" * (-len(body) % 4))


def text_of(raw: bytes) -> str:
    """Text form of the bytes."""
    return "hpke1." + urlsafe_b64encode(raw).rstrip(b"=").decode()


def test_key_pair_is_the_rfcs() -> None:
    """The private key of RFC 9180 A.2.1 gives its public key, also through the text handed to publishers."""
    assert PRIVATE.public_key().public_bytes_raw() == RFC_PUBLIC
    assert public_key_of(public_key_text(PRIVATE.public_key())).public_bytes_raw() == RFC_PUBLIC


def test_tink_opens_ours_and_we_open_tinks() -> None:
    """Another implementation of RFC 9180 reads what we seal, and we read what it seals."""
    encrypt, decrypt = tink_pair()
    ours = seal_to_intake(X25519PublicKey.from_public_bytes(RFC_PUBLIC), b"account 4711", INFO)
    assert decrypt.decrypt(raw_of(ours), INFO) == b"account 4711"
    assert open_from_publisher(PRIVATE, text_of(encrypt.encrypt(b"account 4712", INFO)), INFO) == b"account 4712"


def test_any_flipped_bit_is_found() -> None:
    """Every bit of encapsulated key, ciphertext and tag counts."""
    raw = raw_of(seal_to_intake(PRIVATE.public_key(), b"value", INFO))
    for bit in range(len(raw) * 8):
        altered = bytearray(raw)
        altered[bit // 8] ^= 1 << bit % 8
        # X25519 ignores the top bit of a public key (RFC 7748 §5), but HPKE hashes the key as it came.
        with pytest.raises(SealBroken):
            open_from_publisher(PRIVATE, text_of(bytes(altered)), INFO)


def test_another_info_key_or_form_does_not_open() -> None:
    """What was sealed for one message and one fleet opens for no other, and odd texts are refused."""
    sealed = seal_to_intake(PRIVATE.public_key(), b"value", INFO)
    with pytest.raises(SealBroken):
        open_from_publisher(PRIVATE, sealed, INFO + b"2")
    with pytest.raises(SealBroken):
        open_from_publisher(X25519PrivateKey.generate(), sealed, INFO)
    for text in [
        *(sealed[:end] for end in range(len(sealed))),
        sealed + "=",
        "s1.data." + sealed.removeprefix("hpke1."),
        "hpke1." + "A" * 64,
    ]:
        with pytest.raises(SealBroken):
            open_from_publisher(PRIVATE, text, INFO)


def test_intake_key_follows_from_the_ring() -> None:
    """Every instance with the same ring has the same intake key; another ring has another."""
    text = new_key_ring()
    one, same, other = (intake_private_key(KeyRing(ring)) for ring in (text, text, new_key_ring()))
    assert one.private_bytes_raw() == same.private_bytes_raw() != other.private_bytes_raw()


@pytest.mark.parametrize("text", ["", "AAAA", "A" * 44, public_key_text(PRIVATE.public_key()) + "="])
def test_odd_public_keys_are_refused(text: str) -> None:
    """A publisher's configuration that holds no public key is refused."""
    with pytest.raises(SealBroken):
        public_key_of(text)


def test_text_is_the_contracts() -> None:
    """Even an empty value is a text that the contract of `dsr_request.submitted` takes."""
    for plaintext in (b"", b"account 4711"):
        TypeAdapter(HpkeText).validate_python(seal_to_intake(PRIVATE.public_key(), plaintext, INFO))
