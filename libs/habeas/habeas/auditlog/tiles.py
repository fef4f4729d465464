"""Files of a log as C2SP tlog-tiles (c2sp.org/tlog-tiles) lays them out below one directory.

`checkpoint`, `tile/<L>/<N>[.p/<W>]` with 32 bytes per hash, `tile/entries/<N>[.p/<W>]` with big-endian uint16 length and
bytes per entry. N in groups of three digits, all but the last prefixed `x`.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from habeas.auditlog.errors import BadTile
from habeas.auditlog.tree import HASH_BYTES, TILE_HEIGHT, TILE_WIDTH, Tile, width_at

ENTRIES: Final = "entries"
CHECKPOINT: Final = "checkpoint"
OFFERED_KEY: Final = "vkey"
ENTRY_BYTES_MAX: Final = 65_535
LEVEL_MAX: Final = 63
PATH: Final = re.compile(r"tile/(entries|0|[1-9][0-9]?)/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?", re.ASCII)


class TilePath(NamedTuple):
    """Which tile a file holds: `level` None is an entry bundle; `width` below 256 is a partial one."""

    level: int | None
    number: int
    width: int = TILE_WIDTH

    @property
    def text(self) -> str:
        """Path relative to the log's directory."""
        kind = ENTRIES if self.level is None else self.level
        digits = f"{self.number:0{-(-len(str(self.number)) // 3) * 3}d}"
        groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
        name = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
        return f"tile/{kind}/{name}" + ("" if self.width == TILE_WIDTH else f".p/{self.width}")

    @property
    def full(self) -> "TilePath":
        """The same tile at full width."""
        return self._replace(width=TILE_WIDTH)


def parse_path(text: str) -> TilePath:
    """Read a path in its one canonical spelling; BadTile for anything else."""
    found = PATH.fullmatch(text)
    if found is None:
        raise BadTile("not the path of a tile")
    kind, name, width = found.groups()
    path = TilePath(
        level=None if kind == ENTRIES else int(kind),
        number=int(name.replace("x", "").replace("/", "")),
        width=TILE_WIDTH if width is None else int(width),
    )
    if path.text != text or (path.level or 0) > LEVEL_MAX or (width is not None and path.width >= TILE_WIDTH):
        raise BadTile("not the canonical path of a tile")
    return path


def path_of(tile: Tile) -> TilePath:
    """Path of a full or partial tile."""
    return TilePath(tile.level, tile.number, tile.width)


def paths_at(size: int) -> Iterable[TilePath]:
    """Every file that a log of that size consists of, the checkpoint aside: bundles first, then level by level."""
    yield from _row(None, size)
    level = 0
    while count := size >> TILE_HEIGHT * level:
        yield from _row(level, count)
        level += 1


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Pack 1 to 256 entries; BadTile when there are more, or one is longer than 65,535 bytes."""
    if not 0 < len(entries) <= TILE_WIDTH:
        raise BadTile("an entry bundle holds 1 to 256 entries")
    if max(map(len, entries)) > ENTRY_BYTES_MAX:
        raise BadTile("an entry is longer than 65,535 bytes")
    return b"".join([len(entry).to_bytes(2, "big") + entry for entry in entries])


def decode_bundle(raw: bytes, width: int) -> list[bytes]:
    """Unpack exactly `width` entries; BadTile when bytes are missing or left over."""
    entries: list[bytes] = []
    at, end = 0, len(raw)
    while at + 2 <= end:
        start = at + 2
        at = start + (raw[at] << 8 | raw[at + 1])
        entries.append(raw[start:at])
    if at != end or len(entries) != width:
        raise BadTile(f"the entry bundle does not hold exactly {width} whole entries")
    return entries


def check_tile(raw: bytes, width: int) -> bytes:
    """Return the hashes of a tile file; BadTile when it has not exactly that width."""
    if len(raw) != width * HASH_BYTES:
        raise BadTile(f"the tile does not hold exactly {width} hashes")
    return raw


def _row(level: int | None, count: int) -> Iterable[TilePath]:
    for number in range(count >> TILE_HEIGHT):
        yield TilePath(level, number)
    if width := width_at(count, 0):
        yield TilePath(level, count >> TILE_HEIGHT, width)
