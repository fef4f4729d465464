from base64 import b64encode

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from habeas.auditlog.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint, sign_checkpoint
from habeas.auditlog.errors import BadCheckpoint, BadNote
from habeas.auditlog.notes import Signer, Verifier, decode_base64, encode_note, open_note, parse_note, sign_note

# The example of Go's golang.org/x/mod/sumdb/note documentation.
PETER_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
).encode()
# The key of Go's public checksum database, as its client is shipped with.
GO_SUM_VKEY = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"

SIGNER = Signer("log.example/one", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
OTHER = Signer("witness.example", Ed25519PrivateKey.from_private_bytes(bytes(32)))
TEXT = "first line\n\nafter an empty line\n"


def test_go_example_verifies() -> None:
    """The signed note in Go's documentation opens with its key, and its key id is computed, not believed."""
    verifier = Verifier.parse(PETER_VKEY)
    note = open_note(PETER_NOTE, [verifier])
    assert note.text.startswith("If you think")
    assert note.text.endswith("problem is.\n")
    assert verifier.vkey == PETER_VKEY
    assert Verifier.parse(GO_SUM_VKEY).vkey == GO_SUM_VKEY


def test_rfc_8032_key_and_signature() -> None:
    """Test 2 of RFC 8032 §7.1 gives the same public key and verifies through a verifier's `accepts`."""
    private = Ed25519PrivateKey.from_private_bytes(
        bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    )
    public = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    signature = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert private.public_key().public_bytes_raw() == public
    assert Verifier("k", Ed25519PublicKey.from_public_bytes(public)).accepts("r", signature)


def test_signed_note_opens() -> None:
    """What was signed opens with either key and keeps the verified signatures only; text may hold empty lines."""
    raw = sign_note(TEXT, SIGNER, OTHER)
    assert open_note(raw, [SIGNER.verifier]).text == TEXT
    assert [s.name for s in open_note(raw, [SIGNER.verifier]).signatures] == [SIGNER.verifier.name]
    assert len(open_note(raw, [SIGNER.verifier, OTHER.verifier]).signatures) == 2
    assert encode_note(parse_note(raw)) == raw


def test_any_flipped_bit_is_found() -> None:
    """A note with one signature does not open when any bit of it was flipped."""
    raw = sign_note(TEXT, SIGNER)
    for bit in range(len(raw) * 8):
        altered = bytearray(raw)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadNote):
            open_note(bytes(altered), [SIGNER.verifier])


def test_trusted_key_with_wrong_signature_spoils_the_note() -> None:
    """One valid signature does not excuse an invalid one of another trusted key; an unknown key is ignored."""
    good = parse_note(sign_note(TEXT, SIGNER))
    foreign = parse_note(sign_note("another text\n", OTHER))
    mixed = encode_note(good.__class__(good.text, good.signatures + foreign.signatures))
    assert open_note(mixed, [SIGNER.verifier]).text == TEXT
    with pytest.raises(BadNote, match="witness"):
        open_note(mixed, [SIGNER.verifier, OTHER.verifier])
    with pytest.raises(BadNote, match="no signature of a trusted key"):
        open_note(sign_note(TEXT, SIGNER), [OTHER.verifier])


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"text\n",
        b"text\n\n",
        b"text\n\nno dash AAAAAAAA\n",
        "text\n\n— name\n".encode(),
        "text\n\n— name AAAA\n".encode(),
        "text\n\n— na+me AAAAAAAA\n".encode(),
        "text\n\n— name AAAAAAAA".encode(),
        "te\txt\n\n— name AAAAAAAA\n".encode(),
        "text\x85\n\n— name AAAAAAAA\n".encode(),
        "text\r\n\n— name AAAAAAAA\n".encode(),
        b"\xff\n\n\xe2\x80\x94 name AAAAAAAA\n",
        ("text\n\n" + "— name AAAAAAAA\n" * 101).encode(),
        b"a" * 1_000_001,
    ],
)
def test_what_is_no_note_is_refused(raw: bytes) -> None:
    """Missing parts, control characters, bad names, too many signatures and other than UTF-8 are BadNote."""
    with pytest.raises(BadNote):
        parse_note(raw)


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "PeterNeumann",
        PETER_VKEY.replace("c74f20a3", "c74f20a4"),
        PETER_VKEY.replace("PeterNeumann", "Peter Neumann"),
        PETER_VKEY[:-4],
        PETER_VKEY.replace("+ARpc", "+Arpc"),
        PETER_VKEY + "=",
    ],
)
def test_wrong_verifier_keys_are_refused(vkey: str) -> None:
    """A verifier key with another name, id, type or length is BadNote."""
    with pytest.raises(BadNote):
        Verifier.parse(vkey)


def test_signer_keeps_its_key() -> None:
    """The repr of a signer shows no key bytes; a text without its last newline is not signed."""
    assert "hidden" in repr(SIGNER)
    with pytest.raises(BadNote):
        SIGNER.sign("no newline")


def test_base64_has_one_spelling() -> None:
    """Spare bits, missing padding and foreign characters are refused."""
    assert decode_base64("AA==") == b"\0"
    for text in ("AB==", "AA=", "AA", "A A==", "AA==\n", "é"):
        with pytest.raises(BadNote):
            decode_base64(text)


def test_checkpoint_is_written_as_specified() -> None:
    """The text is the example of C2SP tlog-checkpoint: origin, size, base64 root, each on a line."""
    root = decode_base64("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=")
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    assert Checkpoint("example.com/behind-the-sofa", 20_852_163, root).text == text
    assert parse_checkpoint(text) == Checkpoint("example.com/behind-the-sofa", 20_852_163, root)
    assert parse_checkpoint(text + "ext 1\n").extensions == ("ext 1",)


def test_checkpoint_opens_for_its_log_only() -> None:
    """The log's own signature and origin are needed, and the signer must be the log."""
    checkpoint = Checkpoint(SIGNER.verifier.name, 5, bytes(32))
    raw = sign_checkpoint(checkpoint, SIGNER, OTHER)
    assert open_checkpoint(raw, SIGNER.verifier) == checkpoint
    with pytest.raises(BadCheckpoint):
        open_checkpoint(raw, OTHER.verifier)
    with pytest.raises(BadCheckpoint):
        sign_checkpoint(checkpoint, OTHER)
    with pytest.raises(BadCheckpoint):
        sign_checkpoint(checkpoint)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "o\n5\n",
        f"\n5\n{b64encode(bytes(32)).decode()}\n",
        f"o\n05\n{b64encode(bytes(32)).decode()}\n",
        f"o\n-5\n{b64encode(bytes(32)).decode()}\n",
        f"o\n5 \n{b64encode(bytes(32)).decode()}\n",
        f"o\n\u0665\n{b64encode(bytes(32)).decode()}\n",
        f"o\n5\n{b64encode(bytes(31)).decode()}\n",
        f"o\n5\n{b64encode(bytes(32)).decode()}",
        f"o\n5\n{b64encode(bytes(32)).decode()}\n\n",
        f"o\n5\n{b64encode(bytes(32)).decode()[:-2]}B=\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    """Missing lines, odd numbers, roots of another length and empty extensions are BadCheckpoint."""
    with pytest.raises(BadCheckpoint):
        parse_checkpoint(text)
