"""The hash tree of RFC 6962 §2.1 (= RFC 9162 §2.1), grown in batches and kept as tiles of 256 hashes.

Hashes travel as one `bytes` object, 32 bytes each: folding a whole batch level by level in comprehensions is what makes
a million leaves a matter of a second or two.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Final, NamedTuple

from habeas.auditlog.errors import BadProof, BadTile

HASH_BYTES: Final = 32
TILE_HEIGHT: Final = 8
TILE_WIDTH: Final = 1 << TILE_HEIGHT
TILE_BYTES: Final = TILE_WIDTH * HASH_BYTES
EMPTY_ROOT: Final = sha256(b"").digest()
TILES_REMEMBERED: Final = 256


class Tile(NamedTuple):
    """Some or all of the 256 hashes of one tile; entry i covers 256**level leaves."""

    level: int
    number: int
    hashes: bytes

    @property
    def width(self) -> int:
        """Number of hashes, 1 to 256."""
        return len(self.hashes) // HASH_BYTES


def hash_leaf(entry: bytes) -> bytes:
    """SHA-256(0x00 || entry)."""
    return sha256(b"\x00" + entry).digest()


def hash_leaves(entries: Iterable[bytes]) -> bytes:
    """Leaf hashes of the entries, one after the other."""
    return b"".join([sha256(b"\x00" + entry).digest() for entry in entries])


def hash_node(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


def root_of(hashes: bytes) -> bytes:
    """Root over neighbouring subtrees of equal size, of which only the last may be smaller; the empty tree's for none."""
    if not hashes:
        return EMPTY_ROOT
    while len(hashes) > HASH_BYTES:
        paired = len(hashes) // (2 * HASH_BYTES) * 2 * HASH_BYTES
        hashes = _fold(hashes[:paired]) + hashes[paired:]  # an odd last one rises as it is
    return hashes


def fold_tiles(hashes: bytes) -> bytes:
    """Give the root of each full tile; the length must be a multiple of a tile's."""
    for _ in range(TILE_HEIGHT):
        hashes = _fold(hashes)
    return hashes


@dataclass(frozen=True, slots=True)
class Frontier:
    """The right edge of a tree: its size, and per tile level the hashes that fill no tile yet.

    It is all that appending needs, a few kilobytes whatever the size, and it is a value: appending gives a new one.
    """

    size: int
    levels: tuple[bytes, ...]

    @classmethod
    def empty(cls) -> "Frontier":
        """Start a tree without leaves."""
        return cls(0, ())

    @classmethod
    def of(cls, size: int, partial_tiles: Iterable[Tile]) -> "Frontier":
        """Rebuild from the partial tiles at that size; BadTile when one is missing, spare or of the wrong width."""
        given = {(tile.level, tile.number): tile.hashes for tile in partial_tiles}
        levels = [given.pop((level, size >> TILE_HEIGHT * (level + 1)), b"") for level in range(_levels_of(size))]
        widths = [len(hashes) for hashes in levels]
        if given or widths != [width_at(size, level) * HASH_BYTES for level in range(len(levels))]:
            raise BadTile(f"the partial tiles are not those of a tree of {size} leaves")
        return cls(size, tuple(levels))

    def append(self, leaf_hashes: bytes) -> "tuple[Frontier, list[Tile]]":
        """Add leaves; return the new edge and the tiles that became full, lower levels first."""
        if len(leaf_hashes) % HASH_BYTES:
            raise ValueError("leaf hashes have 32 bytes each")
        made: list[Tile] = []
        levels: list[bytes] = []
        carry = leaf_hashes
        while carry or len(levels) < len(self.levels):
            level = len(levels)
            row = (self.levels[level] if level < len(self.levels) else b"") + carry
            full = len(row) // TILE_BYTES * TILE_BYTES
            first = self.size >> TILE_HEIGHT * (level + 1)
            made += [
                Tile(level, first + at // TILE_BYTES, row[at : at + TILE_BYTES]) for at in range(0, full, TILE_BYTES)
            ]
            levels.append(row[full:])
            carry = fold_tiles(row[:full]) if full else b""
        return Frontier(self.size + len(leaf_hashes) // HASH_BYTES, tuple(levels)), made

    def root(self) -> bytes:
        """Root hash of the tree."""
        right = b""
        for hashes in self.levels:
            row = hashes + right
            right = root_of(row) if row else b""
        return right or EMPTY_ROOT

    def partial_tiles(self) -> list[Tile]:
        """Tiles that are begun and not full; C2SP tlog-tiles serves them at every checkpointed size."""
        return [
            Tile(level, self.size >> TILE_HEIGHT * (level + 1), hashes)
            for level, hashes in enumerate(self.levels)
            if hashes
        ]


def width_at(size: int, level: int) -> int:
    """Width of the partial tile of a level at a tree size, 0 when there is none."""
    return (size >> TILE_HEIGHT * level) % TILE_WIDTH


class HashTree:
    """Roots and proofs of a tree of which only the tiles are at hand.

    `read_tile(level, number, width)` returns at least the first `width` hashes of a tile. What it returns is not checked:
    a wrong tile gives a proof that does not verify.
    """

    def __init__(self, size: int, read_tile: Callable[[int, int, int], bytes]) -> None:
        self.size = size
        self._layers = lru_cache(maxsize=TILES_REMEMBERED)(lambda level, number: self._load(read_tile, level, number))

    def root(self) -> bytes:
        """Root hash at the tree's size."""
        return self._range(0, self.size) if self.size else EMPTY_ROOT

    def inclusion_proof(self, index: int) -> list[bytes]:
        """Path from the leaf to the root, lowest hash first (RFC 9162 §2.1.3.1)."""
        if not 0 <= index < self.size:
            raise BadProof(f"a tree of {self.size} leaves has no leaf {index}")
        path: list[bytes] = []
        start, end = 0, self.size
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                path.append(self._range(middle, end))
                end = middle
            else:
                path.append(self._range(start, middle))
                start = middle
        return path[::-1]

    def consistency_proof(self, old_size: int) -> list[bytes]:
        """Show that the tree is the one of `old_size` with leaves added at the end (RFC 9162 §2.1.4.1)."""
        if not 0 <= old_size <= self.size:
            raise BadProof(f"a tree of {self.size} leaves never had {old_size}")
        path: list[bytes] = []
        start, end = 0, self.size
        while old_size not in {0, end}:
            middle = start + _split(end - start)
            if old_size <= middle:
                path.append(self._range(middle, end))
                end = middle
            else:
                path.append(self._range(start, middle))
                start = middle
        if start:
            path.append(self._range(start, end))
        return path[::-1]

    def _range(self, start: int, end: int) -> bytes:
        """Root over the leaves of a range that starts at a multiple of a power of two not below its length."""
        parts: list[bytes] = []
        while start < end:
            height = (end - start).bit_length() - 1
            parts.append(self._node(height, start >> height))
            start += 1 << height
        root = parts.pop()
        while parts:
            root = hash_node(parts.pop(), root)
        return root

    def _node(self, height: int, index: int) -> bytes:
        level, within = divmod(height, TILE_HEIGHT)
        tile, at = divmod(index, TILE_WIDTH >> within)
        return self._layers(level, tile)[within][at * HASH_BYTES : (at + 1) * HASH_BYTES]

    def _load(self, read_tile: Callable[[int, int, int], bytes], level: int, number: int) -> list[bytes]:
        width = min(TILE_WIDTH, (self.size >> TILE_HEIGHT * level) - number * TILE_WIDTH)
        hashes = read_tile(level, number, width)
        if len(hashes) < width * HASH_BYTES:
            raise BadTile(f"tile {number} of level {level} has fewer than {width} hashes")
        layers = [hashes[: width * HASH_BYTES]]
        for _ in range(TILE_HEIGHT - 1):
            below = layers[-1]
            layers.append(_fold(below[: len(below) // (2 * HASH_BYTES) * 2 * HASH_BYTES]))
        return layers


def check_inclusion(leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Verify an inclusion proof (RFC 9162 §2.1.3.2); BadProof unless it leads from the leaf to the root."""
    if not 0 <= index < size:
        raise BadProof(f"a tree of {size} leaves has no leaf {index}")
    at, last, found = index, size - 1, leaf_hash
    for sibling in proof:
        if not last:
            raise BadProof("the inclusion proof is too long")
        if at & 1 or at == last:
            found = hash_node(sibling, found)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            found = hash_node(found, sibling)
        at, last = at >> 1, last >> 1
    if last or found != root:
        raise BadProof(f"leaf {index} is not in the tree of {size} leaves with that root")


def check_consistency(old_size: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """Verify a consistency proof (RFC 9162 §2.1.4.2); BadProof unless the new tree begins with all of the old one."""
    if not 0 <= old_size <= size:
        raise BadProof(f"a tree of {size} leaves never had {old_size}")
    if old_size in {0, size}:
        expected = EMPTY_ROOT if old_size == 0 else root
        if proof or old_root != expected:
            raise BadProof(f"the roots of the trees of {old_size} and {size} leaves contradict each other")
        return
    path = [old_root, *proof] if old_size & (old_size - 1) == 0 else list(proof)
    if not path:
        raise BadProof("the consistency proof is empty")
    at, last = old_size - 1, size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old_found = new_found = path[0]
    for sibling in path[1:]:
        if not last:
            raise BadProof("the consistency proof is too long")
        if at & 1 or at == last:
            old_found, new_found = hash_node(sibling, old_found), hash_node(sibling, new_found)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            new_found = hash_node(new_found, sibling)
        at, last = at >> 1, last >> 1
    if last or old_found != old_root or new_found != root:
        raise BadProof(f"the tree of {size} leaves does not begin with the tree of {old_size}")


def _fold(hashes: bytes) -> bytes:
    return b"".join([sha256(b"\x01" + hashes[at : at + 64]).digest() for at in range(0, len(hashes), 64)])


def _split(length: int) -> int:
    """Largest power of two smaller than the length."""
    return 1 << (length - 1).bit_length() - 1


def _levels_of(size: int) -> int:
    return (size.bit_length() + TILE_HEIGHT - 1) // TILE_HEIGHT
