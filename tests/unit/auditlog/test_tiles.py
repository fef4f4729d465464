from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from habeas.auditlog.errors import BadTile
from habeas.auditlog.publish import drop_partial_tiles, write_checkpoint, write_tiles
from habeas.auditlog.tiles import TilePath, check_tile, decode_bundle, encode_bundle, parse_path, paths_at


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (TilePath(0, 0), "tile/0/000"),
        (TilePath(1, 999), "tile/1/999"),
        (TilePath(0, 1_234_067), "tile/0/x001/x234/067"),
        (TilePath(0, 1_000), "tile/0/x001/000"),
        (TilePath(5, 0, 1), "tile/5/000.p/1"),
        (TilePath(None, 273, 112), "tile/entries/273.p/112"),
        (TilePath(None, 70_000), "tile/entries/x070/000"),
    ],
)
def test_paths_are_the_specifications(path: TilePath, text: str) -> None:
    """Paths are spelled as C2SP tlog-tiles does, 1234067 as x001/x234/067, and read back."""
    assert path.text == text
    assert parse_path(text) == path


@pytest.mark.parametrize(
    "text",
    [
        "checkpoint",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/x000/001",
        "tile/00/000",
        "tile/64/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p",
        "tile/0/001/000",
        "tile/entries/000/",
        "tile/data/000",
        "/tile/0/000",
        "tile/0/../0/000",
        "tile/0/\u0660\u0660\u0660",
    ],
)
def test_other_spellings_are_refused(text: str) -> None:
    """Each tile has one path; anything else is BadTile."""
    with pytest.raises(BadTile):
        parse_path(text)


@given(st.integers(0, 10**12), st.integers(1, 256), st.sampled_from([None, 0, 1, 63]))
def test_paths_read_back(number: int, width: int, level: int | None) -> None:
    """Every path reads back as itself."""
    path = TilePath(level, number, width)
    assert parse_path(path.text) == path


def test_files_of_a_log_are_the_specifications_example() -> None:
    """A log of 70,000 entries consists of the files that C2SP tlog-tiles lists for that size."""
    paths = {path.text for path in paths_at(70_000)}
    assert {"tile/0/272", "tile/0/273.p/112", "tile/1/000", "tile/1/001.p/17", "tile/2/000.p/1"} <= paths
    assert not paths & {"tile/0/273", "tile/0/274", "tile/1/001", "tile/2/000", "tile/3/000.p/1"}
    assert len(paths) == 274 + 274 + 2 + 1
    assert [path.text for path in paths_at(256)] == ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]
    assert list(paths_at(0)) == []


def test_bundle_is_length_and_bytes() -> None:
    """Each entry has its big-endian length in two bytes before it; 65,535 bytes are the most."""
    assert encode_bundle([b"ab", b"", b"c"]) == b"\x00\x02ab\x00\x00\x00\x01c"
    longest = bytes(65_535)
    assert decode_bundle(encode_bundle([longest]), 1) == [longest]
    for entries in ([], [bytes(65_536)], [b""] * 257):
        with pytest.raises(BadTile):
            encode_bundle(entries)


@given(st.lists(st.binary(max_size=400), min_size=1, max_size=256))
def test_bundles_read_back(entries: list[bytes]) -> None:
    """A bundle gives back its entries, and only at its own width and length."""
    raw = encode_bundle(entries)
    assert decode_bundle(raw, len(entries)) == entries
    for wrong, width in ((raw[:-1], len(entries)), (raw + b"\0", len(entries)), (raw, len(entries) + 1)):
        with pytest.raises(BadTile):
            decode_bundle(wrong, width)


def test_tile_has_its_width() -> None:
    """A tile of another width than its path says is refused."""
    assert check_tile(bytes(64), 2) == bytes(64)
    for raw in (b"", bytes(63), bytes(96)):
        with pytest.raises(BadTile):
            check_tile(raw, 2)


def test_published_tiles_never_change(tmp_path: Path) -> None:
    """Writing the same again changes nothing; other bytes at the same place are refused and the first ones stay."""
    path = TilePath(0, 1_000, 3)
    write_tiles(tmp_path, [(path, b"abc")])
    write_tiles(tmp_path, [(path, b"abc")])
    with pytest.raises(BadTile, match=r"tile/0/x001/000\.p/3"):
        write_tiles(tmp_path, [(path, b"abd")])
    assert (tmp_path / path.text).read_bytes() == b"abc"


def test_checkpoint_is_replaced_whole(tmp_path: Path) -> None:
    """The newest checkpoint takes the place of the one before; no draft is left."""
    write_checkpoint(tmp_path, b"one")
    write_checkpoint(tmp_path, b"two")
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {"checkpoint": b"two"}


def test_partial_tiles_go_only_when_the_full_one_is_there(tmp_path: Path) -> None:
    """Partial versions are removed after their full tile was published, and never before."""
    partial, full = TilePath(0, 0, 3), TilePath(0, 0)
    write_tiles(tmp_path, [(partial, b"abc")])
    drop_partial_tiles(tmp_path, [full, partial])
    assert (tmp_path / partial.text).exists()
    write_tiles(tmp_path, [(full, b"abcdef")])
    drop_partial_tiles(tmp_path, [full, partial])
    assert not (tmp_path / partial.text).exists()
    assert (tmp_path / full.text).exists()
