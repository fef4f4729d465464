"""Read a run of entry bundles: hash, compare with level 0, parse, and follow every producer's sequence.

This is where an offline verification spends its time, so a bundle is judged as a whole, with one regular expression over
all of its lines and one comprehension per hash; entry by entry only when that fails. Runs are independent of one
another: several processes can each take some.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from habeas.auditlog.chains import Fit, Head, fit
from habeas.auditlog.errors import BadTile
from habeas.auditlog.tiles import TilePath, check_tile, decode_bundle
from habeas.auditlog.tree import HASH_BYTES, TILE_WIDTH, fold_tiles, hash_leaves
from habeas.contracts.audit import VERSION, Action, AuditOutcome, BadEntry, CommitmentLabel, Producer, parse_entry

PROBLEMS_MAX: Final = 100  # kept per run and check; an altered log is altered, however often


class Check(StrEnum):
    """What a verification looks at, in the order of its report."""

    TRUST = "trust"
    CHECKPOINT = "checkpoint"
    ENTRIES = "entries"
    TILES = "tiles"
    ROOT = "root"
    FILES = "files"
    GRAMMAR = "grammar"
    SEQUENCES = "sequences"
    CONSISTENCY = "consistency"
    WITNESSES = "witnesses"
    TIME = "time"
    OPENINGS = "openings"


class Problem(NamedTuple):
    """One thing that is wrong, and where."""

    check: Check
    artefact: str
    detail: str


class Span(NamedTuple):
    """A producer's entries within a run: the first with its place in the log and the link it names, and the last."""

    at: int
    first: Head
    first_prev: str
    last: Head


class Run(NamedTuple):
    """Bundles to scan: from `start` up to `end`, of a log of `size` entries; leaf hashes of those in `keep` are wanted."""

    directory: Path
    start: int
    end: int
    size: int
    keep: frozenset[int] = frozenset()


@dataclass(slots=True)
class Scan:
    """What a run holds."""

    roots: bytes = b""  # root of each full bundle: the hashes of level 1
    kept: dict[int, bytes] = field(
        default_factory=dict
    )  # leaf hashes by bundle: those asked for, and a partial last one
    spans: dict[str, Span] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)  # entries by producer
    unlinked: Counter[str] = field(default_factory=Counter)  # new epochs that name no entry before them
    entries: int = 0
    bytes: int = 0
    problems: list[Problem] = field(default_factory=list)

    def blame(self, check: Check, artefact: str, detail: str) -> None:
        """Note a problem, unless there are plenty already."""
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(Problem(check, artefact, detail))


def scan(run: Run) -> Scan:
    """Scan a run; what is wrong goes into `problems`, nothing is raised."""
    found = Scan()
    full_leaves: list[bytes] = []
    for number in range(run.start, run.end):
        width = min(TILE_WIDTH, run.size - number * TILE_WIDTH)
        leaves = _scan_bundle(run.directory, number, width, found)
        if number in run.keep or width < TILE_WIDTH:
            found.kept[number] = leaves
        if width == TILE_WIDTH:
            full_leaves.append(leaves)
    found.roots = fold_tiles(b"".join(full_leaves))
    return found


def read_prefix(directory: Path, path: TilePath) -> bytes | None:
    """Bytes of a tile or bundle file; where only its full version is published, those; None when there is neither.

    C2SP tlog-tiles lets the partial version go once the full one is there.
    """
    for candidate in (path, path.full):
        try:
            raw = (directory / candidate.text).read_bytes()
        except OSError:
            continue
        if candidate == path:
            return raw
        return raw[: path.width * HASH_BYTES] if path.level is not None else _bundle_prefix(raw, path.width)
    return None


def _bundle_prefix(raw: bytes, width: int) -> bytes:
    at = 0
    for _ in range(width):
        at += 2 + int.from_bytes(raw[at : at + 2], "big")
    return raw[:at]


def _scan_bundle(directory: Path, number: int, width: int, found: Scan) -> bytes:
    """Judge a bundle and its tile of level 0; return the leaf hashes, the tile's when the bundle is unreadable."""
    bundle_path, tile_path = TilePath(None, number, width), TilePath(0, number, width)
    tile = _read_tile(directory, tile_path, found)
    raw = read_prefix(directory, bundle_path)
    try:
        entries = decode_bundle(raw, width) if raw is not None else None
    except BadTile as error:
        entries = None
        found.blame(Check.ENTRIES, bundle_path.text, str(error))
    else:
        if raw is None:
            found.blame(Check.ENTRIES, bundle_path.text, "is missing")
    if entries is None or raw is None:
        found.blame(Check.SEQUENCES, bundle_path.text, "can not be followed through an unreadable bundle")
        return tile if tile is not None else bytes(width * HASH_BYTES)
    leaves = hash_leaves(entries)
    if tile is not None and tile != leaves:
        found.blame(Check.ENTRIES, bundle_path.text, f"does not hash to {tile_path.text}")
        found.blame(Check.TILES, tile_path.text, f"is not what {bundle_path.text} hashes to")
    found.entries += width
    found.bytes += len(raw) - 2 * width
    _follow(entries, number, found)
    return leaves


def _read_tile(directory: Path, path: TilePath, found: Scan) -> bytes | None:
    raw = read_prefix(directory, path)
    if raw is None:
        found.blame(Check.TILES, path.text, "is missing")
        return None
    try:
        return check_tile(raw, path.width)
    except BadTile as error:
        found.blame(Check.TILES, path.text, str(error))
        return None


def _follow(entries: list[bytes], number: int, found: Scan) -> None:
    """Parse a bundle's entries and follow the producers' sequences through them."""
    try:
        text = b"\n".join(entries).decode("ascii")
    except UnicodeDecodeError:
        text = ""
    lines = LINES.findall(text) if text.count("\n") == len(entries) - 1 else []
    if len(lines) != len(entries) or not _words_are_known(lines):
        _follow_one_by_one(entries, number, found)
        return
    spans = found.spans
    lasts: dict[str, tuple[str, int, str]] = {
        producer: (str(span.last.epoch), span.last.seq, span.last.hash) for producer, span in spans.items()
    }
    hashes = [sha256(entry).hexdigest() for entry in entries]
    for (producer, epoch, seq, prev, *_), digest in zip(lines, hashes, strict=True):
        place = int(seq)
        last = lasts.get(producer)
        if last is None or prev != last[2] or place != last[1] + 1 or epoch != last[0]:
            break  # a producer's first entry, a new epoch, or something that is wrong
        lasts[producer] = (epoch, place, digest)
    else:
        for producer, (epoch, place, digest) in lasts.items():
            spans[producer] = spans[producer]._replace(last=Head(int(epoch), place, digest))
        found.counts.update([line[0] for line in lines])
        return
    _follow_one_by_one(entries, number, found)


def _words_are_known(lines: Sequence[tuple[str, ...]]) -> bool:
    return (
        {line[0] for line in lines} <= PRODUCERS
        and {line[5] for line in lines} <= ACTIONS
        and {line[6] for line in lines} <= OUTCOMES
        and all(map(_is_day, {line[4] for line in lines}))
    )


@lru_cache(maxsize=1024)
def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text) is not None
    except ValueError:
        return False


def _follow_one_by_one(entries: list[bytes], number: int, found: Scan) -> None:
    for index, entry in enumerate(entries, number * TILE_WIDTH):
        try:
            parsed = parse_entry(entry)
        except BadEntry as error:
            found.blame(Check.GRAMMAR, f"entry {index}", str(error))
            continue
        producer, head = parsed.producer.value, Head(parsed.epoch, parsed.seq, sha256(entry).hexdigest())
        span = found.spans.get(producer)
        if span is None:
            found.spans[producer] = Span(index, head, parsed.prev, head)
        else:
            _judge(producer, span.last, head, parsed.prev, index, found)
            found.spans[producer] = span._replace(last=head)
        found.counts[producer] += 1


def _judge(producer: str, last: Head | None, head: Head, prev: str, index: int, found: Scan) -> None:
    verdict = fit(last, head, prev)
    if verdict is Fit.NEXT_UNLINKED:
        found.unlinked[producer] += 1
    elif verdict is not Fit.NEXT:
        found.blame(Check.SEQUENCES, f"entry {index}", f"{producer} {head.epoch}/{head.seq}: {verdict.value}")


def join(scans: Iterable[Scan]) -> Scan:
    """Put neighbouring scans together, judging where each producer goes on from one run to the next."""
    whole = Scan()
    roots: list[bytes] = []
    for part in scans:
        for producer, span in part.spans.items():
            before = whole.spans.get(producer)
            last = before.last if before else None
            _judge(producer, last, span.first, span.first_prev, span.at, whole)
            whole.spans[producer] = before._replace(last=span.last) if before else span
        roots.append(part.roots)
        whole.kept |= part.kept
        whole.counts += part.counts
        whole.unlinked += part.unlinked
        whole.entries += part.entries
        whole.bytes += part.bytes
        whole.problems += part.problems
    whole.roots = b"".join(roots)
    return whole


def _commitments() -> str:
    """Any of the labels in ascending order, each at most once, or a dash."""
    labels = [re.escape(label) for label in sorted(CommitmentLabel)]
    runs = [
        f"{label}:[0-9a-f]{{64}}" + "".join(f"(?:,{later}:[0-9a-f]{{64}})?" for later in labels[at + 1 :])
        for at, label in enumerate(labels)
    ]
    return "|".join([*runs, "-"])


# Together with `_words_are_known` it accepts nothing that parse_entry refuses (a test compares them); what does not match
# is parsed entry by entry. `prev` is left open, because it has to equal a hash that was computed here.
LINES: Final = re.compile(
    rf"^{re.escape(VERSION)} producer=([a-z\-]+) epoch=([1-9][0-9]{{0,9}}) seq=([1-9][0-9]{{0,17}}) prev=(.{{64}})"
    r" time=([0-9]{4}-[0-9]{2}-[0-9]{2})T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z action=([a-z_.]+)"
    r" request=(?:[0-9a-f]{32}|-) subject=(?:[0-9a-f]{64}|-) outcome=([a-z_]+|-) count=(?:0|[1-9][0-9]{0,17}|-)"
    rf" commitments=(?:{_commitments()})$",
    re.ASCII | re.MULTILINE,
)
PRODUCERS: Final = frozenset(Producer)
ACTIONS: Final = frozenset(Action)
OUTCOMES: Final = frozenset([*AuditOutcome, "-"])
