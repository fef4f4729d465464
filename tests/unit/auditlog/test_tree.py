from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from habeas.auditlog.errors import BadProof, BadTile
from habeas.auditlog.tree import (
    EMPTY_ROOT,
    HASH_BYTES,
    TILE_WIDTH,
    Frontier,
    HashTree,
    Tile,
    check_consistency,
    check_inclusion,
    hash_leaf,
    hash_leaves,
)

# The reference leaves and roots of certificate-transparency's Merkle tree tests (RFC 6962 hashing), 0 to 8 leaves.
REFERENCE_LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
REFERENCE_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
BORDERS = (0, 1, 2, 3, 255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537)
LEAVES = hash_leaves(str(n).encode() for n in range(65_600))


def mth(leaves: bytes) -> bytes:
    """Merkle tree hash over leaf hashes, as RFC 6962 §2.1 defines it."""
    count = len(leaves) // HASH_BYTES
    if count == 0:
        return sha256(b"").digest()
    if count == 1:
        return leaves
    split = 1
    while split * 2 < count:
        split *= 2
    return sha256(b"\x01" + mth(leaves[: split * HASH_BYTES]) + mth(leaves[split * HASH_BYTES :])).digest()


def first(count: int) -> bytes:
    """Leaf hashes of a tree of that size."""
    return LEAVES[: count * HASH_BYTES]


def grown(size: int, *, batch: int = 100_000) -> tuple[Frontier, HashTree]:
    """A tree grown in batches, and a reader of its tiles."""
    frontier = Frontier.empty()
    tiles: dict[tuple[int, int], bytes] = {}
    for start in range(0, size, batch):
        frontier, made = frontier.append(LEAVES[start * HASH_BYTES : min(start + batch, size) * HASH_BYTES])
        tiles |= {(tile.level, tile.number): tile.hashes for tile in made}
    tiles |= {(tile.level, tile.number): tile.hashes for tile in frontier.partial_tiles()}
    return frontier, HashTree(size, lambda level, number, _width: tiles[level, number])


@pytest.mark.parametrize("size", range(9))
def test_roots_are_the_references(size: int) -> None:
    """Trees of 0 to 8 leaves have the roots of the certificate-transparency reference implementation."""
    frontier, _ = Frontier.empty().append(hash_leaves(REFERENCE_LEAVES[:size]))
    assert frontier.root().hex() == REFERENCE_ROOTS[size]
    assert mth(hash_leaves(REFERENCE_LEAVES[:size])).hex() == REFERENCE_ROOTS[size]


def test_reference_proofs_verify() -> None:
    """The reference's published paths (RFC 6962 §2.1.3: PATH(0, D[7]) and PROOF(3, D[7])) come out hash by hash."""
    leaves = [hash_leaf(leaf) for leaf in REFERENCE_LEAVES[:7]]

    def root(start: int, end: int) -> bytes:
        return mth(b"".join(leaves[start:end]))

    tree = HashTree(7, lambda _level, _number, _width: b"".join(leaves))
    assert tree.inclusion_proof(0) == [leaves[1], root(2, 4), root(4, 7)]
    assert tree.inclusion_proof(3) == [leaves[2], root(0, 2), root(4, 7)]
    assert tree.inclusion_proof(6) == [root(4, 6), root(0, 4)]
    assert tree.consistency_proof(3) == [leaves[2], leaves[3], root(0, 2), root(4, 7)]
    assert tree.consistency_proof(4) == [root(4, 7)]
    assert tree.consistency_proof(6) == [root(4, 6), leaves[6], root(0, 4)]


@pytest.mark.parametrize("size", BORDERS)
def test_root_at_tile_borders(size: int) -> None:
    """Around full tiles of one and two levels the root is the recursive definition's."""
    frontier, tree = grown(size)
    assert frontier.size == size
    assert frontier.root() == tree.root() == mth(first(size))


@given(st.lists(st.integers(0, 700), max_size=8))
@settings(max_examples=60, deadline=None)
def test_batches_do_not_matter(batches: list[int]) -> None:
    """However leaves are cut into batches, root, edge and full tiles are those of one batch."""
    frontier, tiles = Frontier.empty(), []
    for count in batches:
        frontier, made = frontier.append(LEAVES[frontier.size * HASH_BYTES : (frontier.size + count) * HASH_BYTES])
        tiles += made
        assert frontier.root() == mth(first(frontier.size))
    at_once, all_tiles = Frontier.empty().append(first(sum(batches)))
    assert frontier == at_once
    assert sorted(tiles) == sorted(all_tiles)


@given(st.integers(0, 66_000).map(lambda n: min(n, 65_600)))
@settings(max_examples=30, deadline=None)
def test_edge_is_rebuilt_from_partial_tiles(size: int) -> None:
    """A restarted ledger gets the same edge from the partial tiles; a missing, cut or spare one is refused."""
    frontier, _ = Frontier.empty().append(first(size))
    partial = frontier.partial_tiles()
    assert Frontier.of(size, partial) == frontier
    for tile in partial:
        rest = [other for other in partial if other is not tile]
        for wrong in (rest, [*rest, tile._replace(hashes=tile.hashes[32:])], [*partial, Tile(9, 0, bytes(32))]):
            with pytest.raises(BadTile):
                Frontier.of(size, wrong)


@given(st.integers(1, 1300), st.data())
@settings(max_examples=150, deadline=None)
def test_inclusion_proofs_verify_and_fit_nothing_else(size: int, data: st.DataObject) -> None:
    """Each proof leads from its leaf to the recursive root, and from no other leaf, index, size or root."""
    index = data.draw(st.integers(0, size - 1))
    tree = grown(size)[1]
    proof, root = tree.inclusion_proof(index), mth(first(size))
    leaf = LEAVES[index * HASH_BYTES : (index + 1) * HASH_BYTES]
    check_inclusion(leaf, index, size, proof, root)
    wrong = [
        (hash_leaf(b"other"), index, size, proof, root),
        (leaf, index, size, proof, hash_leaf(b"other")),
        (leaf, index, size, [*proof, root], root),
        (leaf, size, size, proof, root),
        (leaf, -1, size, proof, root),
        *(
            (leaf, other, size, proof, root)
            for other in range(max(0, index - 3), min(size, index + 4))
            if other != index
        ),
        *((leaf, index, size, proof[:at] + proof[at + 1 :], root) for at in range(len(proof))),
        *((leaf, index, size, [*proof[:at], bytes(32), *proof[at + 1 :]], root) for at in range(len(proof))),
    ]
    for arguments in wrong:
        with pytest.raises(BadProof):
            check_inclusion(*arguments)


@given(st.integers(0, 1300), st.data())
@settings(max_examples=150, deadline=None)
def test_consistency_proofs_verify_and_fit_nothing_else(size: int, data: st.DataObject) -> None:
    """Each proof shows the older tree within the newer one, and fails for any other root, size or path."""
    old = data.draw(st.integers(0, size))
    proof = grown(size)[1].consistency_proof(old)
    old_root, root = mth(first(old)), mth(first(size))
    check_consistency(old, old_root, size, root, proof)
    other = hash_leaf(b"other")
    wrong = [
        (old, other, size, root, proof),
        (old, old_root, size, root, [*proof, other]),
        (size + 1, old_root, size, root, proof),
        *((old, old_root, size, root, proof[:at] + proof[at + 1 :]) for at in range(len(proof))),
        *((old, old_root, size, root, [*proof[:at], other, *proof[at + 1 :]]) for at in range(len(proof))),
    ]
    if old:  # a tree without leaves is the beginning of every tree
        wrong.append((old, old_root, size, other, proof))
    for arguments in wrong:
        with pytest.raises(BadProof):
            check_consistency(*arguments)


def test_all_small_trees() -> None:
    """For every size to 70, every leaf and every older size has a proof that verifies."""
    for size in range(71):
        tree, root = grown(size)[1], mth(first(size))
        for index in range(size):
            leaf = LEAVES[index * HASH_BYTES : (index + 1) * HASH_BYTES]
            check_inclusion(leaf, index, size, tree.inclusion_proof(index), root)
        for old in range(size + 1):
            check_consistency(old, mth(first(old)), size, root, tree.consistency_proof(old))


def test_proof_is_short_at_two_levels() -> None:
    """A tree of 65,537 leaves proves with at most 17 hashes, the path length of RFC 6962."""
    size = 65_537
    tree, root = grown(size)[1], mth(first(size))
    for index in (0, 1, 255, 256, 65_535, 65_536):
        proof = tree.inclusion_proof(index)
        assert len(proof) <= 17
        check_inclusion(LEAVES[index * HASH_BYTES : (index + 1) * HASH_BYTES], index, size, proof, root)
    check_consistency(65_535, mth(first(65_535)), size, root, tree.consistency_proof(65_535))


def test_impossible_questions_are_refused() -> None:
    """No proof of a leaf or size that never was; no reading past a tile's end; no half hashes."""
    tree = grown(10)[1]
    for index in (-1, 10):
        with pytest.raises(BadProof):
            tree.inclusion_proof(index)
    for old in (-1, 11):
        with pytest.raises(BadProof):
            tree.consistency_proof(old)
    with pytest.raises(BadTile):
        HashTree(10, lambda _level, _number, _width: bytes(9 * HASH_BYTES)).root()
    with pytest.raises(ValueError, match="32 bytes"):
        Frontier.empty().append(bytes(33))
    assert HashTree(0, lambda _level, _number, _width: b"").root() == EMPTY_ROOT
    assert Tile(0, 0, bytes(TILE_WIDTH * HASH_BYTES)).width == 256
