"""The page for other languages is right: its vector, by two implementations, and what it says of artefacts, by Tink alone."""

import io
import json
import re
import shutil
import subprocess
from base64 import b64decode, urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path
from uuid import UUID

import pytest
import rfc8785
import tink
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from tink import json_proto_keyset_format, secret_key_access, streaming_aead

from habeas.contracts.platform import RequestSubmitted
from habeas.kit import BadAttestation, attest, verify
from habeas.sealing.artefact import ArtefactCipher, keyset_json

PAGE = (Path(__file__).parents[2] / "docs" / "any-language.md").read_text(encoding="utf-8")
VECTOR: dict[str, str] = dict(re.findall(r"<!-- vector: (\w+) -->\n```\w+\n(.*?)\n```", PAGE, re.DOTALL))
SEED_OF_RFC_8032 = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")  # 7.1, test 1
EXPORT = UUID("01990c5e-7b1a-7c62-9f0e-3d6a5b1c2d41")


def signed() -> dict[str, object]:
    """The page's message with the page's signature."""
    message = json.loads(VECTOR["message"])
    message["attestation"]["signature"] = VECTOR["signature"]
    return dict(message)


def test_the_vector_is_what_standards_say() -> None:
    """Key, canonical form and signature of the page follow from RFC 8032, RFC 8785 and RFC 4648, each by a library of its own."""
    key = load_pem_private_key(VECTOR["key"].encode(), None)
    assert isinstance(key, Ed25519PrivateKey)
    assert key.private_bytes_raw() == SEED_OF_RFC_8032
    assert key.public_key().public_bytes_raw() == b64decode(VECTOR["public"])
    assert rfc8785.dumps(json.loads(VECTOR["message"])) == VECTOR["canonical"].encode()
    signature = key.sign(VECTOR["canonical"].encode())
    assert urlsafe_b64encode(signature).rstrip(b"=").decode() == VECTOR["signature"]


def test_openssl_makes_the_same_signature(tmp_path: Path) -> None:
    """Another implementation signs the page's bytes with the page's key to the page's signature."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl on this machine")
    (tmp_path / "key.pem").write_text(VECTOR["key"] + "\n")
    (tmp_path / "canonical.json").write_text(VECTOR["canonical"])
    command = [openssl, "pkeyutl", "-sign", "-rawin", "-inkey", "key.pem", "-in", "canonical.json"]
    made = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    assert made.stdout == urlsafe_b64decode(VECTOR["signature"] + "==")


def test_the_kit_and_the_fleet_take_the_vector() -> None:
    """The kit signs so, the intake verifies so, and the message is one that the contract knows."""
    key = Ed25519PrivateKey.from_private_bytes(SEED_OF_RFC_8032)
    assert attest(json.loads(VECTOR["message"]), key) == signed()
    value = json.dumps(signed(), indent=2).encode()
    verify(value, key.public_key())
    assert RequestSubmitted.decode(value).account_id == "acc_7Q2M"


@pytest.mark.parametrize("last", ["B", "C", "P"])
def test_a_signature_has_one_spelling(last: str) -> None:
    """Base64url with bits that no byte has is refused, as the page says, although a lax decoder reads the same 64 bytes."""
    message = signed()
    spelled = VECTOR["signature"][:-1] + last
    assert urlsafe_b64decode(spelled + "==") == urlsafe_b64decode(VECTOR["signature"] + "==")
    message["attestation"] = {**json.loads(VECTOR["message"])["attestation"], "signature": spelled}
    with pytest.raises(BadAttestation):
        verify(json.dumps(message).encode(), Ed25519PublicKey.from_public_bytes(b64decode(VECTOR["public"])))


def test_tink_opens_an_artefact_by_what_the_page_says() -> None:
    """Tink opens an artefact by its keyset and the 16 bytes that the page writes out, and by nothing else."""
    assert str(EXPORT) in PAGE
    spelled = re.search(r"the bytes `([0-9a-f ]+)`", PAGE)
    assert spelled is not None
    aad = bytes.fromhex(spelled[1])
    secret, sealed = ArtefactCipher.new_key(), io.BytesIO()
    with ArtefactCipher.encrypting_writer(sealed, secret, EXPORT.bytes) as writer:
        writer.write(b"a person's data")
    streaming_aead.register()
    handle = json_proto_keyset_format.parse(keyset_json(secret), secret_key_access.TOKEN)
    primitive = handle.primitive(streaming_aead.StreamingAead)
    assert primitive.new_decrypting_stream(io.BytesIO(sealed.getvalue()), aad).read() == b"a person's data"
    for other in (b"", str(EXPORT).encode(), aad[::-1]):
        with pytest.raises(tink.TinkError):
            primitive.new_decrypting_stream(io.BytesIO(sealed.getvalue()), other).read()
