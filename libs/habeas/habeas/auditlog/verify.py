"""Verify a log offline, from its directory and the log's public key alone.

Every entry is hashed, every tile derived again, the root compared with the signed checkpoint, every line parsed, every
producer's sequence followed. What is not looked at is said to be NOT CHECKED; nothing is taken for granted.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from multiprocessing import get_context
from pathlib import Path
from typing import Final, NamedTuple

from habeas.auditlog.checkpoint import Checkpoint, open_checkpoint
from habeas.auditlog.errors import AuditLogError, BadTile
from habeas.auditlog.notes import Verifier
from habeas.auditlog.scan import PROBLEMS_MAX, Check, Problem, Run, Scan, join, read_prefix, scan
from habeas.auditlog.tiles import CHECKPOINT, ENTRIES, OFFERED_KEY, TilePath, decode_bundle, parse_path, paths_at
from habeas.auditlog.tree import HASH_BYTES, TILE_WIDTH, Frontier, Tile

RUN_BUNDLES: Final = 128  # bundles scanned at once: some ten megabytes of entries
MISSING_BUNDLES_MAX: Final = (
    1_000  # more are not looked for one by one, so that no size that was signed makes work without end
)
OUT_OF_REACH: Final = {
    Check.WITNESSES: "no witness policy is evaluated here",
    Check.TIME: "no time-stamp token is evaluated here",
    Check.OPENINGS: "commitments are opened by their holder, who has the salts",
}
NEEDS_A_CHECKPOINT: Final = (
    Check.ENTRIES,
    Check.TILES,
    Check.ROOT,
    Check.FILES,
    Check.GRAMMAR,
    Check.SEQUENCES,
    Check.CONSISTENCY,
)
NEEDS_THE_ENTRIES: Final = NEEDS_A_CHECKPOINT[1:]
NEEDED: Final = (
    Check.TRUST,
    Check.CHECKPOINT,
    Check.ENTRIES,
    Check.TILES,
    Check.ROOT,
    Check.GRAMMAR,
    Check.SEQUENCES,
)


class Verdict(StrEnum):
    """What a check came to."""

    PASSED = "PASS"
    FAIL = "FAIL"
    NOT_CHECKED = "NOT CHECKED"


class Earlier(NamedTuple):
    """A checkpoint that the auditor, a witness or an archive kept: where it is from, and its bytes."""

    name: str
    note: bytes


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's verdict, with what it covered and, when it failed, where."""

    check: Check
    verdict: Verdict
    detail: str
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What a verification found, check by check."""

    origin: str
    size: int
    root: str  # hexadecimal
    entries: int
    entry_bytes: int
    producers: Mapping[str, int]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """No check failed, and all were made that a log can not do without."""
        by_check = {finding.check: finding.verdict for finding in self.findings}
        made = all(by_check[check] is Verdict.PASSED for check in NEEDED)
        return made and Verdict.FAIL not in by_check.values()

    def of(self, check: Check) -> Finding:
        """Return the finding of one check."""
        return next(finding for finding in self.findings if finding.check is check)

    def as_json(self) -> dict[str, object]:
        """Plain values for a machine-readable report."""
        return {
            "ok": self.ok,
            "origin": self.origin,
            "size": self.size,
            "root": self.root,
            "entries": self.entries,
            "entry_bytes": self.entry_bytes,
            "producers": dict(self.producers),
            "findings": [
                {
                    "check": finding.check.value,
                    "verdict": finding.verdict.value,
                    "detail": finding.detail,
                    "problems": [{"artefact": p.artefact, "detail": p.detail} for p in finding.problems],
                }
                for finding in self.findings
            ],
        }


@dataclass(slots=True)
class _Work:
    """What is known so far about a log whose checkpoint is trusted."""

    directory: Path
    checkpoint: Checkpoint
    scanned: Scan
    problems: list[Problem] = field(default_factory=list)
    beyond: int = 0  # files of a larger tree than the checkpoint's: published before it, or left over by a cut

    def blame(self, check: Check, artefact: str, detail: str) -> None:
        self.problems.append(Problem(check, artefact, detail))


def verify_log(
    directory: Path, log: Verifier, *, key_source: str, earlier: Sequence[Earlier] = (), processes: int = 1
) -> Report:
    """Verify the log in the directory against its public key, which came from `key_source`.

    With `earlier` checkpoints it also shows that the log still begins with what they signed. Raises nothing about the
    log: whatever is wrong stands in the report. `processes` share the hashing and parsing.
    """
    trust = Finding(Check.TRUST, Verdict.PASSED, f"{log.name}+{log.key_id.hex()}, Ed25519, from {key_source}")
    try:
        checkpoint = open_checkpoint((directory / CHECKPOINT).read_bytes(), log)
    except (OSError, AuditLogError) as error:
        reason = str(error) if isinstance(error, AuditLogError) else "is missing or unreadable"
        return _without_checkpoint(log, trust, reason)
    files = _files_below(directory)
    bundles = _bundles_among(files)
    if -(-checkpoint.size // TILE_WIDTH) - bundles > MISSING_BUNDLES_MAX:
        return _without_entries(checkpoint, trust, bundles * TILE_WIDTH)
    marks = _open_earlier(earlier, log, checkpoint)
    scanned = _scan_all(
        directory, checkpoint.size, [old.size for _, old in marks if isinstance(old, Checkpoint)], processes
    )
    work = _Work(directory, checkpoint, scanned)
    roots = _derive(work, [old.size for _, old in marks if isinstance(old, Checkpoint)])
    _compare_roots(work, roots, marks)
    _look_at_files(work, log, files)
    return _report(work, trust, len(earlier))


def _open_earlier(
    earlier: Sequence[Earlier], log: Verifier, checkpoint: Checkpoint
) -> list[tuple[str, Checkpoint | str]]:
    """Verify each earlier checkpoint; text in its place says why it is no use."""
    marks: list[tuple[str, Checkpoint | str]] = []
    for name, note in earlier:
        try:
            old = open_checkpoint(note, log)
        except AuditLogError as error:
            marks.append((name, str(error)))
            continue
        if old.size > checkpoint.size:
            marks.append((name, f"signed {old.size} entries, but the log has only {checkpoint.size}: it was cut"))
        else:
            marks.append((name, old))
    return marks


def _scan_all(directory: Path, size: int, old_sizes: Iterable[int], processes: int) -> Scan:
    keep = frozenset(old_size // TILE_WIDTH for old_size in old_sizes)
    bundles = -(-size // TILE_WIDTH)
    starts = range(0, bundles, RUN_BUNDLES)
    runs = [Run(directory, start, min(start + RUN_BUNDLES, bundles), size, keep) for start in starts]
    if processes == 1 or len(runs) <= 1:
        return join(map(scan, runs))
    # Spawned, not forked: the caller may have threads.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return join(pool.map(scan, runs))


def _derive(work: _Work, old_sizes: Iterable[int]) -> dict[int, bytes]:
    """Grow the tree above level 0 again, comparing every tile; return the roots at the sizes asked for and at the end."""
    size = work.checkpoint.size
    above = Frontier.empty()  # its leaves are the bundles' roots, so its level n is the log's level n + 1
    roots: dict[int, bytes] = {}
    for at in sorted({*old_sizes, size}):
        bundles, rest = divmod(at, TILE_WIDTH)
        above, made = above.append(work.scanned.roots[above.size * HASH_BYTES : bundles * HASH_BYTES])
        _compare_tiles(work, made)
        tail = work.scanned.kept[bundles][: rest * HASH_BYTES] if rest else b""
        roots[at] = Frontier(at, (tail, *above.levels)).root()
    _compare_tiles(work, above.partial_tiles())
    return roots


def _compare_tiles(work: _Work, tiles: Iterable[Tile]) -> None:
    for tile in tiles:
        path = TilePath(tile.level + 1, tile.number, tile.width)
        raw = read_prefix(work.directory, path)
        if raw is None:
            work.blame(Check.TILES, path.text, "is missing")
        elif raw != tile.hashes:
            work.blame(Check.TILES, path.text, "is not what the entries hash to")


def _compare_roots(work: _Work, roots: Mapping[int, bytes], marks: Iterable[tuple[str, Checkpoint | str]]) -> None:
    if roots[work.checkpoint.size] != work.checkpoint.root:
        work.blame(Check.ROOT, CHECKPOINT, f"the {work.checkpoint.size} entries hash to another root")
    for name, old in marks:
        if isinstance(old, str):
            work.blame(Check.CONSISTENCY, name, old)
        elif roots[old.size] != old.root:
            work.blame(Check.CONSISTENCY, name, f"the first {old.size} entries were others when it was signed")


def _look_at_files(work: _Work, trusted: Verifier, files: Iterable[str]) -> None:
    """Account for every file: parts of the log are compared already; here come spare and strange ones.

    A log may offer its own key beside it; who verifies brings the key that they trust, and another one on offer is blamed.
    """
    expected = {path.text for path in paths_at(work.checkpoint.size)} | {CHECKPOINT}
    offered = work.directory / OFFERED_KEY
    if offered.is_file() and offered.read_text(encoding="utf-8", errors="replace") == f"{trusted.vkey}\n":
        expected.add(OFFERED_KEY)
    for name in sorted(set(files) - expected):
        try:
            path = parse_path(name)
        except BadTile:
            work.blame(Check.FILES, name, "belongs to no log")
            continue
        _look_at_spare(work, name, path)


def _look_at_spare(work: _Work, name: str, path: TilePath) -> None:
    """Judge a tile that the checkpoint does not need: an older partial one must be the beginning of the current one."""
    size = work.checkpoint.size
    count = size >> 8 * (path.level or 0)
    if path.number * TILE_WIDTH + path.width > count:
        work.beyond += 1
        return
    current = read_prefix(work.directory, path._replace(width=min(TILE_WIDTH, count - path.number * TILE_WIDTH)))
    raw = (work.directory / name).read_bytes()
    if current is None or not current.startswith(raw) or not _has_width(raw, path):
        work.blame(Check.FILES, name, "is not the beginning of the full one")


def _has_width(raw: bytes, path: TilePath) -> bool:
    if path.level is not None:
        return len(raw) == path.width * HASH_BYTES
    try:
        decode_bundle(raw, path.width)
    except BadTile:
        return False
    return True


def _files_below(directory: Path) -> set[str]:
    """Relative paths of all files, without hidden ones: a writer's drafts."""
    found: set[str] = set()
    for parent, _, names in os.walk(directory):
        relative = Path(parent).relative_to(directory)
        found.update((relative / name).as_posix() for name in names if not name.startswith("."))
    return found


def _bundles_among(files: Iterable[str]) -> int:
    """Count the bundles of entries, whole or begun, among the files of a log."""
    numbers: set[int] = set()
    for name in files:
        with suppress(BadTile):
            path = parse_path(name)
            numbers.update([path.number] if path.level is None else [])
    return len(numbers)


def _report(work: _Work, trust: Finding, earlier: int) -> Report:
    size, scanned = work.checkpoint.size, work.scanned
    tiles = sum(path.level is not None for path in paths_at(size))
    details = {
        Check.CHECKPOINT: f"{work.checkpoint.origin} signed {size} entries",
        Check.ENTRIES: f"{scanned.entries} entries, {scanned.bytes} bytes, hash to level 0",
        Check.TILES: f"{tiles} tiles derived again",
        Check.ROOT: f"root {work.checkpoint.root.hex()}",
        Check.FILES: "no file beside the log's own",
        Check.GRAMMAR: f"{sum(scanned.counts.values())} entries follow the grammar",
        Check.SEQUENCES: _sequences(scanned),
        Check.CONSISTENCY: f"still begins with what {earlier} earlier checkpoints signed",
    }
    problems = [*scanned.problems, *work.problems]
    findings = [trust]
    for check, detail in details.items():
        mine = tuple(problem for problem in problems if problem.check is check)[:PROBLEMS_MAX]
        if mine:
            findings.append(Finding(check, Verdict.FAIL, f"{mine[0].artefact}: {mine[0].detail}", mine))
        elif check is Check.FILES and work.beyond:
            why = f"{work.beyond} files lie beyond the checkpoint, which says nothing about them"
            findings.append(Finding(check, Verdict.NOT_CHECKED, why))
        elif check is Check.CONSISTENCY and not earlier:
            findings.append(Finding(check, Verdict.NOT_CHECKED, "no earlier checkpoint was given"))
        else:
            findings.append(Finding(check, Verdict.PASSED, detail))
    findings += [Finding(check, Verdict.NOT_CHECKED, why) for check, why in OUT_OF_REACH.items()]
    return Report(
        work.checkpoint.origin,
        size,
        work.checkpoint.root.hex(),
        scanned.entries,
        scanned.bytes,
        dict(scanned.counts),
        tuple(findings),
    )


def _sequences(scanned: Scan) -> str:
    parts = [
        f"{producer} {span.first.epoch}/{span.first.seq} to {span.last.epoch}/{span.last.seq}"
        + (f" ({n} epochs without a link to the one before)" if (n := scanned.unlinked[producer]) else "")
        for producer, span in sorted(scanned.spans.items())
    ]
    return "; ".join(parts) or "no entries"


def _without_entries(checkpoint: Checkpoint, trust: Finding, entries_max: int) -> Report:
    detail = f"at most {entries_max} of {checkpoint.size} entries are there"
    problem = Problem(Check.ENTRIES, f"tile/{ENTRIES}", detail)
    findings = (
        trust,
        Finding(Check.CHECKPOINT, Verdict.PASSED, f"{checkpoint.origin} signed {checkpoint.size} entries"),
        Finding(Check.ENTRIES, Verdict.FAIL, f"{problem.artefact}: {detail}", (problem,)),
        *(Finding(check, Verdict.NOT_CHECKED, "most of the entries are missing") for check in NEEDS_THE_ENTRIES),
        *(Finding(check, Verdict.NOT_CHECKED, why) for check, why in OUT_OF_REACH.items()),
    )
    return Report(checkpoint.origin, checkpoint.size, checkpoint.root.hex(), 0, 0, {}, findings)


def _without_checkpoint(log: Verifier, trust: Finding, reason: str) -> Report:
    problem = Problem(Check.CHECKPOINT, CHECKPOINT, reason)
    findings = (
        trust,
        Finding(Check.CHECKPOINT, Verdict.FAIL, f"{CHECKPOINT}: {reason}", (problem,)),
        *(Finding(check, Verdict.NOT_CHECKED, "there is no trusted checkpoint") for check in NEEDS_A_CHECKPOINT),
        *(Finding(check, Verdict.NOT_CHECKED, why) for check, why in OUT_OF_REACH.items()),
    )
    return Report(log.name, 0, "", 0, 0, {}, findings)
