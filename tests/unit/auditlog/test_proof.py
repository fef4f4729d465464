from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from habeas.auditlog.checkpoint import Checkpoint, sign_checkpoint
from habeas.auditlog.errors import AuditLogError, BadProof
from habeas.auditlog.notes import Signer
from habeas.auditlog.proof import Proof, check_proof, encode_proof, parse_proof
from habeas.auditlog.tree import Frontier, HashTree, hash_leaves
from tests.support.audit_log import ORIGIN, SIGNER, Producers

ENTRIES = list(Producers().entries(11))
FRONTIER, _ = Frontier.empty().append(hash_leaves(ENTRIES))
NOTE = sign_checkpoint(Checkpoint(ORIGIN, 11, FRONTIER.root()), SIGNER)
TREE = HashTree(11, lambda _level, _number, _width: hash_leaves(ENTRIES))


def a_proof(index: int, extra: bytes = b"") -> bytes:
    """The proof file of one entry."""
    return encode_proof(Proof(index, tuple(TREE.inclusion_proof(index)), NOTE, extra))


def test_every_entry_has_a_proof() -> None:
    """Each entry is proved by its file alone and the log's key; the same file proves no other entry."""
    for index, entry in enumerate(ENTRIES):
        assert check_proof(a_proof(index), entry, SIGNER.verifier).size == 11
        with pytest.raises(BadProof):
            check_proof(a_proof(index), ENTRIES[index - 1], SIGNER.verifier)


def test_file_is_laid_out_as_specified() -> None:
    """Header, optional extra, index, a hash a line, an empty line, the checkpoint as served (C2SP tlog-proof)."""
    lines = a_proof(10, b"case").decode().split("\n")
    assert lines[:3] == ["c2sp.org/tlog-proof@v1", "extra Y2FzZQ==", "index 10"]
    assert lines[5:] == ["", *NOTE.decode().split("\n")]
    assert parse_proof(a_proof(10, b"case")).extra == b"case"


def test_any_flipped_bit_is_found() -> None:
    """No bit of the file can change without the proof failing."""
    raw = a_proof(4)
    for bit in range(len(raw) * 8):
        altered = bytearray(raw)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(AuditLogError):
            check_proof(bytes(altered), ENTRIES[4], SIGNER.verifier)


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: b"",
        lambda raw: raw.replace(b"proof@v1", b"proof@v2"),
        lambda raw: raw.replace(b"index 4", b"index 04"),
        lambda raw: raw.replace(b"index 4\n", b""),
        lambda raw: raw.replace(b"\n\n", b"\n", 1),
        lambda raw: raw.replace(b"index 4\n", b"index 4\nAAAA\n"),
        lambda raw: raw.replace(b"index 4\n", b"index 4\n" + (b"A" * 43 + b"=\n") * 64),
        lambda raw: raw.replace(b"index 4\n", "index 4\né\n".encode()),
        lambda raw: raw.replace(b"index 4\n", b"extra !\nindex 4\n"),
    ],
)
def test_what_is_no_proof_is_refused(change: Callable[[bytes], bytes]) -> None:
    """Another version, odd numbers, missing parts, too many or short hashes are refused."""
    with pytest.raises(AuditLogError):
        check_proof(change(a_proof(4)), ENTRIES[4], SIGNER.verifier)


def test_another_logs_key_proves_nothing() -> None:
    """A proof is worth what the key is that signed its checkpoint."""
    stranger = Signer(ORIGIN, Ed25519PrivateKey.generate())
    with pytest.raises(AuditLogError):
        check_proof(a_proof(4), ENTRIES[4], stranger.verifier)
