from base64 import urlsafe_b64encode
from pathlib import Path
from threading import Barrier, Thread
from uuid import UUID

import pytest

from habeas.sealing import (
    EnvironmentKek,
    FileKek,
    Fingerprinter,
    KekMismatch,
    KekMissing,
    KekSettings,
    Protector,
    SealBroken,
    new_key_ring,
    open_kek,
)
from habeas.sealing.kek import KeyRing, RingTokens, read_ring, replace_ring
from habeas.sealing.keys import KeyKind, context_of
from habeas.sealing.rotation import Stage, announce, promote, retire, stage_of

AAD = context_of(UUID(int=1), KeyKind.DATA)
SECRET = bytes(range(32))


def text_of(secret: bytes) -> str:
    """A key as key rings spell it."""
    return urlsafe_b64encode(secret).rstrip(b"=").decode()


def a_ring(*wrapping: int, deriving: int = 99) -> KeyRing:
    """A ring of keys that are one byte repeated."""
    keys = " ".join(f"wrap={text_of(bytes([n]) * 32)}" for n in wrapping)
    return KeyRing(f"{keys} derive={text_of(bytes([deriving]) * 32)}")


def test_unwraps_what_it_wrapped() -> None:
    """A wrapped key comes back, and has 60 bytes, as the table demands."""
    ring = a_ring(1)
    kek_id, wrapped = ring.wrap(SECRET, AAD)
    assert (kek_id, len(wrapped)) == (ring.kek_id, 60)
    assert ring.unwrap(kek_id, wrapped, AAD) == SECRET


def test_any_flipped_bit_of_a_wrapped_key_is_found() -> None:
    """A wrapped key that was altered, cut, or belongs to another subject or kind, never unwraps."""
    ring = a_ring(1)
    wrapped = ring.wrap(SECRET, AAD).wrapped
    for bit in range(len(wrapped) * 8):
        altered = bytearray(wrapped)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(KekMismatch):
            ring.unwrap(ring.kek_id, bytes(altered), AAD)
    for end in range(len(wrapped)):
        with pytest.raises(KekMismatch):
            ring.unwrap(ring.kek_id, wrapped[:end], AAD)
    for aad in (context_of(UUID(int=2), KeyKind.DATA), context_of(UUID(int=1), KeyKind.CASE), b""):
        with pytest.raises(KekMismatch):
            ring.unwrap(ring.kek_id, wrapped, aad)


def test_another_kek_is_a_mismatch() -> None:
    """A key ring without the KEK that wrapped refuses, and a KEK can not pass under another one's name."""
    ours, other = a_ring(1), a_ring(2)
    wrapped = ours.wrap(SECRET, AAD).wrapped
    for kek_id in (ours.kek_id, other.kek_id, ""):
        with pytest.raises(KekMismatch):
            other.unwrap(kek_id, wrapped, AAD)


def test_rotation_unwraps_the_old_and_derives_the_same() -> None:
    """After rotation the new key wraps, the retired one still unwraps, and nothing derived has changed."""
    before, after = a_ring(1), a_ring(2, 1)
    assert after.kek_id != before.kek_id
    assert after.unwrap(*before.wrap(SECRET, AAD), AAD) == SECRET
    assert after.derive("fingerprint") == before.derive("fingerprint")
    assert a_ring(1, deriving=98).derive("fingerprint") != before.derive("fingerprint")
    assert before.derive("a") != before.derive("b")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "wrap=",
        f"wrap={text_of(SECRET)}",
        f"derive={text_of(SECRET)}",
        f"wrap={text_of(SECRET)} derive={text_of(SECRET)} derive={text_of(SECRET)}",
        f"wrap={text_of(SECRET[:31])} derive={text_of(SECRET)}",
        f"wrap={text_of(SECRET)}= derive={text_of(SECRET)}",
        f"wrap={text_of(SECRET)} derive={text_of(SECRET)} key={text_of(SECRET)}",
        f"next={text_of(SECRET)} derive={text_of(SECRET)}",
        f"wrap={text_of(SECRET)} next={text_of(SECRET)} next={text_of(SECRET)} derive={text_of(SECRET)}",
    ],
)
def test_unreadable_rings_are_refused_unquoted(text: str) -> None:
    """A text that is not exactly a key ring is KekMissing, and the message does not show it."""
    with pytest.raises(KekMissing) as caught:
        KeyRing(text)
    assert text_of(SECRET)[:12] not in str(caught.value)


def test_file_is_made_private_and_only_once(tmp_path: Path) -> None:
    """The first start makes a key ring of mode 0600; the next one finds it unchanged, and no draft is left over."""
    path = tmp_path / "keys" / "kek"
    first = FileKek.create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    assert FileKek.create(path).kek_id == first.kek_id == FileKek(path).kek_id
    assert path.read_text() == text
    assert [entry.name for entry in path.parent.iterdir()] == ["kek"]


def test_two_first_starts_end_with_one_key(tmp_path: Path) -> None:
    """Whoever loses the race for making the file uses the winner's key."""
    path, barrier, found = tmp_path / "kek", Barrier(8), []

    def start() -> None:
        barrier.wait()
        found.append(FileKek.create(path).kek_id)

    threads = [Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_a_rotated_file_is_followed_without_a_restart(tmp_path: Path) -> None:
    """A process wraps by the key that the file names first now, and unwraps what others wrapped by a key that came since."""
    path = tmp_path / "kek"
    FileKek.create(path)
    process, other = FileKek(path), FileKek(path)
    before = process.wrap(SECRET, AAD)
    ring = promote(announce(RingTokens.parse(read_ring(path))))
    replace_ring(path, ring.text())
    after = other.wrap(SECRET, AAD)
    assert after.kek_id != before.kek_id
    assert process.unwrap(*after, AAD) == process.unwrap(*before, AAD) == SECRET
    assert process.wrap(SECRET, AAD).kek_id == after.kek_id
    replace_ring(path, retire(ring).text())
    with pytest.raises(KekMismatch):
        process.unwrap(*before, AAD)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["kek"]


def test_a_file_that_cannot_be_read_meanwhile_changes_nothing(tmp_path: Path) -> None:
    """Gone, open to others, or half written: a process goes on with what it has, and takes the file up again once it is whole."""
    path = tmp_path / "kek"
    process = FileKek.create(path)
    text, wrapped = path.read_text(), process.wrap(SECRET, AAD)
    for spoil in (path.unlink, lambda: path.write_text(text[:20]), lambda: path.chmod(0o644)):
        path.write_text(text)
        path.chmod(0o600)
        spoil()
        assert process.unwrap(*wrapped, AAD) == SECRET
    path.chmod(0o600)
    replace_ring(path, promote(announce(RingTokens.parse(text))).text())
    assert process.wrap(SECRET, AAD).kek_id != wrapped.kek_id


def test_a_file_of_another_fleet_is_refused(tmp_path: Path) -> None:
    """A ring that derives otherwise would find nobody again: nothing is wrapped by it."""
    path = tmp_path / "kek"
    process = FileKek.create(path)
    wrapped = process.wrap(SECRET, AAD)
    replace_ring(path, new_key_ring())
    with pytest.raises(KekMismatch, match="derive"):
        process.wrap(SECRET, AAD)
    with pytest.raises(KekMismatch, match="derive"):
        process.unwrap(*wrapped, AAD)


def test_a_rotation_goes_through_three_rings() -> None:
    """Announced, the new key unwraps and the old one wraps; promoted, the other way round; retired, the old one is gone."""
    first = RingTokens.parse(a_ring_text := new_key_ring())
    assert (stage_of(first), first.text()) == (Stage.AT_REST, a_ring_text)
    second = announce(first)
    third = promote(second)
    last = retire(third)
    rings = [KeyRing(ring.text()) for ring in (first, second, third, last)]
    old, new = rings[0].kek_id, rings[3].kek_id
    assert [stage_of(ring) for ring in (second, third, last)] == [Stage.ANNOUNCED, Stage.CHANGING, Stage.AT_REST]
    assert [(ring.kek_id, ring.kek_ids) for ring in rings] == [
        (old, (old,)),
        (old, (old, new)),
        (new, (new, old)),
        (new, (new,)),
    ]
    assert len({ring.derive("fingerprint") for ring in rings}) == 1


def test_file_open_to_others_is_refused(tmp_path: Path) -> None:
    """A key ring that the group or the world may read is not used."""
    path = tmp_path / "kek"
    path.write_text(new_key_ring())
    for mode in (0o640, 0o604, 0o622):
        path.chmod(mode)
        with pytest.raises(KekMissing, match="0600"):
            FileKek(path)


def test_absent_keys_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file, no variable, an empty variable: KekMissing, never a default."""
    monkeypatch.delenv("HABEAS_KEK", raising=False)
    with pytest.raises(KekMissing):
        FileKek(tmp_path / "kek")
    with pytest.raises(KekMissing):
        EnvironmentKek("HABEAS_KEK")
    monkeypatch.setenv("HABEAS_KEK", "")
    with pytest.raises(KekMissing):
        EnvironmentKek("HABEAS_KEK")


def test_settings_name_exactly_one_ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Production never makes a key; the demo may; none or two places are refused."""
    path = tmp_path / "kek"
    for settings in (
        KekSettings(),
        KekSettings(file=path),
        KekSettings(file=path, create=True),
        KekSettings(file=path, variable="HABEAS_KEK", production=False),
        KekSettings(variable="HABEAS_KEK"),
    ):
        with pytest.raises(KekMissing):
            open_kek(settings)
    assert not path.exists()
    made = open_kek(KekSettings(file=path, create=True, production=False))
    monkeypatch.setenv("HABEAS_KEK", path.read_text())
    assert open_kek(KekSettings(variable="HABEAS_KEK")).unwrap(*made.wrap(SECRET, AAD), AAD) == SECRET


def test_rings_keep_their_secrets() -> None:
    """The repr of a ring, a protector and a fingerprinter shows no key."""
    ring = a_ring(1)
    for shown in (repr(ring), repr(Protector(ring)), repr(Fingerprinter(ring))):
        assert "hidden" in shown
        assert "01" * 16 not in shown
        assert r"\x01\x01" not in shown


def test_fingerprints_match_equal_values_of_one_domain_only() -> None:
    """32 bytes, the same for the same domain and value under the same ring, and never by moving a border."""
    one, same, other = Fingerprinter(a_ring(1)), Fingerprinter(a_ring(2, 1)), Fingerprinter(a_ring(1, deriving=5))
    assert len(one.fingerprint("email", "ada@example.org")) == 32
    assert one.fingerprint("email", "ada@example.org") == same.fingerprint("email", "ada@example.org")
    different = {
        one.fingerprint("email", "ada@example.org"),
        one.fingerprint("account", "ada@example.org"),
        one.fingerprint("emaila", "da@example.org"),
        one.fingerprint("email", "Ada@example.org"),
        other.fingerprint("email", "ada@example.org"),
    }
    assert len(different) == 5


def test_protector_opens_in_another_process_and_refuses_changes() -> None:
    """Protected bytes open wherever the ring is; any flipped bit, cut, or other associated data does not."""
    sealed = Protector(a_ring(1)).seal(b"message", b"topic/3/17")
    reader = Protector(a_ring(7, 1))
    assert reader.open(sealed, b"topic/3/17") == b"message"
    for bit in range(len(sealed) * 8):
        altered = bytearray(sealed)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SealBroken):
            reader.open(bytes(altered), b"topic/3/17")
    for end in range(len(sealed)):
        with pytest.raises(SealBroken):
            reader.open(sealed[:end], b"topic/3/17")
    with pytest.raises(SealBroken):
        reader.open(sealed, b"topic/3/18")
    with pytest.raises(SealBroken):
        Protector(a_ring(1, deriving=5)).open(sealed, b"topic/3/17")


def test_protector_changes_its_key_before_nonces_run_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the allowed number of messages a new salt is drawn, and the old messages still open."""
    monkeypatch.setattr("habeas.sealing.protector.MESSAGES_PER_SALT_MAX", 2)
    protector = Protector(a_ring(1))
    sealed = [protector.seal(b"m", b"") for _ in range(5)]
    assert len({one[1:17] for one in sealed}) == 3
    assert [protector.open(one, b"") for one in sealed] == [b"m"] * 5


def test_protector_tells_repeats_from_changes() -> None:
    """The message fingerprint is equal for equal bytes, in every process with the ring, and for nothing else."""
    one, same = Protector(a_ring(1)), Protector(a_ring(1))
    assert one.fingerprint(b"a") == same.fingerprint(b"a") != one.fingerprint(b"b")
    assert len(one.fingerprint(b"")) == 32
