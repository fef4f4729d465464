import base64
import gzip
import json
import struct
from itertools import permutations
from pathlib import Path

import pytest
from aiokafka.codec import zstd_encode
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from habeas_demo.canary import Canary, Needle

NEEDLE = Needle("name", 4, "Jürgen Talovesa")
PLAIN = NEEDLE.value.encode()


def scan(tmp_path: Path, content: bytes, name: str = "some.bin") -> list[tuple[str, str]]:
    """Search one file; give form and place of each hit."""
    (tmp_path / name).write_bytes(content)
    found = Canary([NEEDLE]).scan([tmp_path / name])
    assert found.unreadable == []
    return [(hit.form, hit.where) for hit in found.hits]


@pytest.mark.parametrize("before", range(7))
@pytest.mark.parametrize("after", range(4))
def test_base64_is_seen_at_every_alignment(tmp_path: Path, before: int, after: int) -> None:
    """Whatever stands around a value before it is encoded, it is found, in both alphabets and in a dump's hex."""
    inside = b"\xff" * before + PLAIN + b"~" * after
    assert scan(tmp_path, base64.b64encode(inside))
    assert scan(tmp_path, base64.urlsafe_b64encode(inside))
    assert scan(tmp_path, base64.b64encode(inside).hex().encode())


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (b"x" + PLAIN + b"y", "plain"),
        (json.dumps({"a": NEEDLE.value}).encode(), "JSON escape"),
        (json.dumps(json.dumps({"a": NEEDLE.value})).encode(), "JSON escape in JSON"),
        (b"\\\\x" + b"00" + PLAIN.hex().encode() + b"00", "hex"),
        (PLAIN.hex().upper().encode(), "hex"),
        (NEEDLE.value.encode("utf-16"), "UTF-16"),
        (b"?name=J%C3%BCrgen%20Talovesa", "percent"),
        (b"?name=J%C3%BCrgen+Talovesa", "percent"),
        (b"J=C3=BCrgen Talovesa", "quoted-printable"),
        (b"=?utf-8?q?J=C3=BCrgen_Talovesa?=", "quoted-printable"),
        (b"J\xfcrgen Talovesa", "Latin-1"),
        (b"<J\xc3\x9cRGEN TALOVESA>", "upper case"),
    ],
)
def test_writings_are_seen(tmp_path: Path, content: bytes, form: str) -> None:
    """A value is found as the formats of dumps, logs, traces and mails write it."""
    assert scan(tmp_path, content) == [(form, "file")]


def test_compressed_content_is_opened(tmp_path: Path) -> None:
    """Values inside gzip files and compressed Kafka batches are found."""
    assert scan(tmp_path, gzip.compress(PLAIN)) == [("plain", "gzip")]
    for codec in (0, 1, 3, 4):
        builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 100_000)
        for offset in range(50):
            builder.append(offset, 1, b"key", b"value" * 9 + PLAIN, [])
        where = "Kafka batch" if codec else "file"
        hits = scan(tmp_path, bytes(builder.build()), "00000000000000000000.log")
        assert hits.count(("plain", where)) == 50, codec


def test_unreadable_is_not_clean(tmp_path: Path) -> None:
    """A compressed batch that can't be opened is reported: what was not read was not searched."""
    header = struct.pack(">qiibIhiqqqhii", 0, 49 + 20, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 1)
    (tmp_path / "00000000000000000000.log").write_bytes(header + zstd_encode(b"x")[:2] + b"y" * 18)
    assert len(Canary([NEEDLE]).scan([tmp_path]).unreadable) == 1


def test_values_across_chunks_are_seen_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value is found once, wherever the file is cut for reading."""
    monkeypatch.setattr("habeas_demo.canary._CHUNK_BYTES", 64)
    for before in range(130):
        content = b"." * before + PLAIN + b"." * 200
        (tmp_path / "f").write_bytes(content)
        hits = Canary([NEEDLE]).scan([tmp_path]).hits
        assert [hit.offset for hit in hits] == [before]


def test_holes_are_passed_over(tmp_path: Path) -> None:
    """A value after a hole of a sparse file is found, and the hole costs nothing."""
    with (tmp_path / "f").open("wb") as file:
        file.write(PLAIN)
        file.seek(1 << 34)
        file.write(PLAIN)
        file.truncate(1 << 35)
    found = Canary([NEEDLE]).scan([tmp_path])
    assert [hit.offset for hit in found.hits] == [0, 1 << 34]
    assert found.searched_bytes < 1 << 20


def test_neighbours_are_not_confused(tmp_path: Path) -> None:
    """Each person's values are told apart, and a report never repeats a value."""
    needles = [Needle("ip", number, f"100.101.102.{110 + number}") for number in range(3)]
    for order in permutations(needles):
        (tmp_path / "f").write_text(" ".join(needle.value for needle in order))
        hits = Canary(needles).scan([tmp_path]).hits
        assert [hit.person for hit in hits] == [needle.person for needle in order]
        assert "100.101" not in repr(hits)
        assert "100.101" not in repr(needles)


def test_nothing_to_search_is_an_error(tmp_path: Path) -> None:
    """A directory that is not there is not a clean one."""
    with pytest.raises(FileNotFoundError):
        Canary([NEEDLE]).scan([tmp_path / "gone"])
