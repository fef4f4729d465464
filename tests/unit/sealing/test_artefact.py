import io
import json
import os
from base64 import b64decode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from habeas.sealing import SealBroken
from habeas.sealing.artefact import ArtefactCipher, keyset_json

KEY = bytes(range(32))
AAD = b"export/1"
SEGMENT = 64 * 1024


def sealed(plaintext: bytes) -> bytes:
    """An artefact in memory."""
    target = io.BytesIO()
    with ArtefactCipher.encrypting_writer(target, KEY, AAD) as writer:
        writer.write(plaintext)
    return target.getvalue()


def opened(ciphertext: bytes, key: bytes = KEY, aad: bytes = AAD) -> bytes:
    """Its content."""
    with ArtefactCipher.decrypting_reader(io.BytesIO(ciphertext), key, aad) as reader:
        return reader.read()


def open_by_the_book(ciphertext: bytes) -> bytes:
    """Tink's published AES-GCM-HKDF streaming format, written from its description.

    Header: 1 byte header length, 32 bytes salt, 7 bytes nonce prefix; segments of 1 MiB, the first one shorter by the
    header; nonce = prefix, 4 bytes segment number, 1 byte 1 for the last segment; key = HKDF-SHA256(salt, info = AAD).
    """
    assert ciphertext[0] == 40
    salt, prefix = ciphertext[1:33], ciphertext[33:40]
    cipher = AESGCM(HKDF(hashes.SHA256(), 32, salt=salt, info=AAD).derive(KEY))
    ends = [*range(SEGMENT, len(ciphertext), SEGMENT), len(ciphertext)]
    segments = [ciphertext[start:end] for start, end in zip([40, *ends], ends, strict=False)]
    return b"".join(
        cipher.decrypt(prefix + number.to_bytes(4, "big") + bytes([number == len(segments) - 1]), segment, None)
        for number, segment in enumerate(segments)
    )


@pytest.mark.parametrize(
    "size", [0, 1, SEGMENT - 57, SEGMENT - 56, SEGMENT - 55, 2 * SEGMENT - 72, 2 * SEGMENT, 3 * SEGMENT + 5]
)
def test_format_is_tinks(size: int) -> None:
    """Artefacts around every segment border are what Tink's format description says, and open again."""
    plaintext = os.urandom(size)
    ciphertext = sealed(plaintext)
    assert open_by_the_book(ciphertext) == plaintext
    assert opened(ciphertext) == plaintext


def test_keyset_is_what_others_need() -> None:
    """The keyset in Tink's JSON form holds our 32 bytes and the parameters of AES256_GCM_HKDF with segments of 64 KiB."""
    keyset = json.loads(keyset_json(KEY))
    (entry,) = keyset["key"]
    assert entry["keyData"]["typeUrl"] == "type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey"
    assert (entry["outputPrefixType"], entry["status"]) == ("RAW", "ENABLED")
    value = b64decode(entry["keyData"]["value"])
    assert value.endswith(KEY)
    # protobuf: params{segment size 65536, derived key 32, SHA256}, in Tink's own form
    assert bytes.fromhex("0880800410201803") in value


def test_small_writes_add_up() -> None:
    """However the plaintext is cut into writes, the reader gets it whole, also piece by piece."""
    plaintext = os.urandom(SEGMENT + 4321)
    target = io.BytesIO()
    with ArtefactCipher.encrypting_writer(target, KEY, AAD) as writer:
        for start in range(0, len(plaintext), 7_001):
            piece = memoryview(plaintext)[start : start + 7_001]
            assert writer.write(piece) == len(piece)
    reader = ArtefactCipher.decrypting_reader(io.BytesIO(target.getvalue()), KEY, AAD)
    assert b"".join(iter(lambda: reader.read(3_333), b"")) == plaintext


def test_any_flipped_bit_is_found() -> None:
    """Every bit of header, ciphertext and tag counts."""
    ciphertext = sealed(b"a short artefact")
    for bit in range(len(ciphertext) * 8):
        altered = bytearray(ciphertext)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SealBroken):
            opened(bytes(altered))


def test_cut_joined_and_swapped_artefacts_are_found() -> None:
    """Cutting at any border, adding bytes, and swapping segments do not open; no error quotes the content."""
    ciphertext = sealed(bytes(3 * SEGMENT))
    swapped = (
        ciphertext[:SEGMENT]
        + ciphertext[2 * SEGMENT : 3 * SEGMENT]
        + ciphertext[SEGMENT : 2 * SEGMENT]
        + ciphertext[3 * SEGMENT :]
    )
    for altered in (
        b"",
        ciphertext[:40],
        ciphertext[:SEGMENT],
        ciphertext[: 2 * SEGMENT],
        ciphertext[:-1],
        ciphertext + b"\0",
        swapped,
    ):
        with pytest.raises(SealBroken):
            opened(altered)


def test_another_key_or_place_does_not_open() -> None:
    """The artefact opens with its own key at its own place only."""
    ciphertext = sealed(b"x")
    with pytest.raises(SealBroken):
        opened(ciphertext, key=bytes(32))
    with pytest.raises(SealBroken):
        opened(ciphertext, aad=b"export/2")
    with pytest.raises(ValueError, match="32 bytes"):
        opened(ciphertext, key=bytes(16))


def test_path_gets_the_artefact_only_when_complete(tmp_path: Path) -> None:
    """The file appears whole at closing, readable by its owner alone; nothing else is left in the directory."""
    path = tmp_path / "export.bin"
    writer = ArtefactCipher.encrypting_writer(path, KEY, AAD)
    writer.write(b"content")
    assert not path.exists()
    writer.close()
    writer.close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["export.bin"]
    with ArtefactCipher.decrypting_reader(path, KEY, AAD) as reader:
        assert reader.read() == b"content"


def test_failed_writing_leaves_nothing_that_opens(tmp_path: Path) -> None:
    """An error inside the block leaves the path as it was, and a file object without a valid end."""
    path = tmp_path / "export.bin"
    path.write_bytes(b"earlier")
    target = io.BytesIO()

    def fail_at(place: Path | io.BytesIO) -> None:
        with ArtefactCipher.encrypting_writer(place, KEY, AAD) as writer:
            writer.write(bytes(2 * SEGMENT))
            raise KeyError

    for place in (path, target):
        with pytest.raises(KeyError):
            fail_at(place)
    assert path.read_bytes() == b"earlier"
    assert [entry.name for entry in tmp_path.iterdir()] == ["export.bin"]
    with pytest.raises(SealBroken):
        opened(target.getvalue())
    assert not target.closed


def test_every_artefact_has_its_own_key() -> None:
    """Keys are 32 bytes and never repeat."""
    keys = {ArtefactCipher.new_key() for _ in range(100)}
    assert len(keys) == 100
    assert {len(key) for key in keys} == {32}
