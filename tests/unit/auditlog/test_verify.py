import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from habeas.auditlog.chains import Fit, Head, fit
from habeas.auditlog.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from habeas.auditlog.notes import Signer
from habeas.auditlog.publish import write_checkpoint
from habeas.auditlog.scan import LINES, Check, _words_are_known
from habeas.auditlog.tiles import TilePath, decode_bundle
from habeas.auditlog.verify import Earlier, Report, Verdict, verify_log
from habeas.contracts.audit import (
    GENESIS,
    Action,
    BadEntry,
    Producer,
    encode_entry,
    encode_fact,
    entry_hash,
    parse_entry,
)
from tests.support.audit_log import FACTS, ORIGIN, SIGNER, START, LogWriter, Producers

SIZES = (1, 5, 256, 257, 600)


def verified(directory: Path, *earlier: Earlier) -> Report:
    """Verify with the log's true key."""
    return verify_log(directory, SIGNER.verifier, key_source="the test", earlier=earlier)


def failed(report: Report) -> set[Check]:
    """Names of the checks that failed; each of them names an artefact."""
    found = {finding.check for finding in report.findings if finding.verdict is Verdict.FAIL}
    assert all(report.of(check).problems for check in found)
    assert report.ok is not bool(found)
    return found


def artefacts(report: Report, check: Check) -> set[str]:
    """What a failed check names."""
    return {problem.artefact for problem in report.of(check).problems}


@pytest.fixture(scope="module")
def log_600(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of 600 entries, signed at 3, 300 and 600."""
    directory = tmp_path_factory.mktemp("log")
    writer, producers = LogWriter(directory), Producers()
    notes = [writer.append(list(producers.entries(count))) for count in (3, 297, 300)]
    for name, note in zip(("at3", "at300", "at600"), notes, strict=True):
        (directory.parent / name).write_bytes(note)
    return directory


@pytest.fixture
def copied(log_600: Path, tmp_path: Path) -> Path:
    """A copy of that log to do harm to."""
    return Path(shutil.copytree(log_600, tmp_path / "log"))


@pytest.fixture
def notes(log_600: Path) -> dict[str, Earlier]:
    """The checkpoints that were signed on the way."""
    return {name: Earlier(name, (log_600.parent / name).read_bytes()) for name in ("at3", "at300", "at600")}


@pytest.mark.parametrize("size", SIZES)
def test_honest_log_passes(size: int, tmp_path: Path) -> None:
    """Every check of a whole log passes, with its counts; what is out of reach is said to be not checked."""
    entries = list(Producers().entries(size))
    LogWriter(tmp_path).append(entries)
    report = verified(tmp_path)
    assert failed(report) == set()
    assert (report.size, report.entries, report.entry_bytes) == (size, size, sum(map(len, entries)))
    assert sum(report.producers.values()) == size
    not_checked = {finding.check for finding in report.findings if finding.verdict is Verdict.NOT_CHECKED}
    assert not_checked == {Check.CONSISTENCY, Check.WITNESSES, Check.TIME, Check.OPENINGS}
    assert [finding.check for finding in report.findings] == list(Check)
    assert report.as_json()["ok"] is True


def test_empty_log_passes(tmp_path: Path) -> None:
    """A log that was signed before its first entry is whole."""
    LogWriter(tmp_path).append([])
    report = verified(tmp_path)
    assert failed(report) == set()
    assert report.size == 0


def test_two_processes_find_the_same(tmp_path: Path) -> None:
    """Sharing the work changes nothing in the report, right or wrong."""
    LogWriter(tmp_path).append(list(Producers().entries(256 * 129)))
    one = verified(tmp_path)
    two = verify_log(tmp_path, SIGNER.verifier, key_source="the test", processes=2)
    assert one == two
    assert one.ok


def assert_flips_are_found(directory: Path, bits_of: Callable[[int], Iterable[int]]) -> None:
    """Flip the bits of each byte of each file, one at a time; the report must fail and name the file."""
    for file in [path for path in directory.rglob("*") if path.is_file()]:
        original = file.read_bytes()
        for at in range(len(original)):
            for bit in bits_of(at):
                altered = bytearray(original)
                altered[at] ^= 1 << bit
                file.write_bytes(altered)
                report = verified(directory)
                assert failed(report), (file, at, bit)
                named = {problem.artefact for finding in report.findings for problem in finding.problems}
                assert file.relative_to(directory).as_posix() in named
        file.write_bytes(original)
    assert verified(directory).ok


def test_every_flipped_bit_of_a_served_log_is_found(tmp_path: Path) -> None:
    """Flipping any bit of any byte of any file fails, and the report names the file."""
    LogWriter(tmp_path).append(list(Producers().entries(1)))
    assert_flips_are_found(tmp_path, lambda _at: range(8))


def test_a_flipped_bit_in_every_byte_is_found_in_older_tiles_too(tmp_path: Path) -> None:
    """Partial tiles and bundles of earlier sizes are held to the entries as well."""
    writer, producers = LogWriter(tmp_path), Producers()
    writer.append(list(producers.entries(1)))
    writer.append(list(producers.entries(1)))
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 5
    assert_flips_are_found(tmp_path, lambda at: [at % 8])


def test_a_flipped_bit_in_any_file_of_a_larger_log_is_found(copied: Path) -> None:
    """One bit in each file of a log with full and partial tiles of several sizes, at both ends and in the middle."""
    for file in [path for path in copied.rglob("*") if path.is_file()]:
        original = file.read_bytes()
        for at in {0, len(original) // 2, len(original) - 1}:
            file.write_bytes(original[:at] + bytes([original[at] ^ 4]) + original[at + 1 :])
            assert failed(verified(copied)), file
        file.write_bytes(original)
    assert verified(copied).ok


def test_every_missing_cut_or_lengthened_file_is_found(copied: Path) -> None:
    """A needed file that is gone, and any file that was cut, lengthened or emptied, is named."""
    needed = {"checkpoint", "tile/0/000", "tile/0/001", "tile/0/002.p/88", "tile/1/000.p/2"}
    needed |= {name.replace("tile/0", "tile/entries") for name in needed if name.startswith("tile/0")}
    names = {path.relative_to(copied).as_posix() for path in copied.rglob("*") if path.is_file()}
    assert needed < names
    for name in sorted(names):
        file = copied / name
        original = file.read_bytes()
        for content in (b"", original[:-1], original + b"\0", original + original):
            file.write_bytes(content)
            assert name in {p.artefact for f in verified(copied).findings for p in f.problems}
        file.unlink()
        assert (name in {p.artefact for f in verified(copied).findings for p in f.problems}) == (name in needed)
        file.write_bytes(original)


def test_swapped_and_strange_files_are_found(copied: Path) -> None:
    """Two bundles that changed places, and files that belong to no log, are named; a writer's draft is not."""
    one, two = copied / "tile/entries/000", copied / "tile/entries/001"
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    assert failed(verified(copied)) == {Check.ENTRIES, Check.TILES, Check.ROOT, Check.FILES, Check.SEQUENCES}
    one.write_bytes(first)
    two.write_bytes(second)
    (copied / "tile/0/.000.draft").write_bytes(b"half")
    assert verified(copied).ok
    (copied / "tile/0/0").write_bytes(b"")
    (copied / "notes.txt").write_bytes(b"")
    assert artefacts(verified(copied), Check.FILES) == {"notes.txt", "tile/0/0"}


def test_older_partial_tiles_may_go(copied: Path) -> None:
    """A log without the partial tiles of earlier sizes is whole."""
    for name in ("tile/0/000.p", "tile/entries/000.p", "tile/0/001.p", "tile/entries/001.p"):
        shutil.rmtree(copied / name)
    assert verified(copied).ok


def test_full_tile_stands_in_for_a_partial_one(copied: Path, notes: dict[str, Earlier]) -> None:
    """A reader with an older checkpoint of a log that went on uses the full tiles, and is told what lies beyond."""
    write_checkpoint(copied, notes["at300"].note)
    for name in ("tile/0/001.p", "tile/entries/001.p"):
        shutil.rmtree(copied / name)
    report = verified(copied)
    assert report.ok
    assert report.size == 300
    assert report.of(Check.FILES).verdict is Verdict.NOT_CHECKED
    assert "beyond" in report.of(Check.FILES).detail


def test_earlier_checkpoints_must_agree(copied: Path, notes: dict[str, Earlier]) -> None:
    """Checkpoints kept by others pass when the log still begins with them; of a cut or another log they fail."""
    report = verified(copied, *notes.values())
    assert report.ok
    assert report.of(Check.CONSISTENCY).verdict is Verdict.PASSED
    other = sign_checkpoint(Checkpoint(ORIGIN, 300, bytes(32)), SIGNER)
    assert artefacts(verified(copied, Earlier("witness", other)), Check.CONSISTENCY) == {"witness"}
    foreign = sign_checkpoint(Checkpoint("x", 3, bytes(32)), Signer("x", SIGNER._private_key))
    assert artefacts(verified(copied, Earlier("stranger", foreign)), Check.CONSISTENCY) == {"stranger"}
    write_checkpoint(copied, notes["at300"].note)
    cut = verified(copied, notes["at600"], notes["at3"])
    assert artefacts(cut, Check.CONSISTENCY) == {"at600"}


def test_checkpoint_decides_whether_anything_is_looked_at(copied: Path) -> None:
    """Without a trusted checkpoint every other check is NOT CHECKED and the whole fails."""
    stranger = Signer(ORIGIN, Ed25519PrivateKey.generate())
    report = verify_log(copied, stranger.verifier, key_source="the test")
    assert failed(report) == {Check.CHECKPOINT}
    assert {report.of(check).verdict for check in (Check.ENTRIES, Check.ROOT)} == {Verdict.NOT_CHECKED}
    (copied / "checkpoint").unlink()
    assert failed(verified(copied)) == {Check.CHECKPOINT}


def test_signed_but_wrong_root_is_found(copied: Path) -> None:
    """The log's own signature does not make a wrong root right."""
    write_checkpoint(copied, sign_checkpoint(Checkpoint(ORIGIN, 600, bytes(32)), SIGNER))
    assert failed(verified(copied)) == {Check.ROOT}


def broken(change: Callable[[list[bytes]], list[bytes]]) -> list[bytes]:
    """Twenty-four entries with a change that the log itself signed."""
    return change(list(Producers().entries(24)))


def with_line(entries: list[bytes], at: int, line: bytes) -> list[bytes]:
    """Replace one entry."""
    return [*entries[:at], line, *entries[at + 1 :]]


@pytest.mark.parametrize(
    ("change", "checks", "named"),
    [
        (lambda e: e[:9] + e[10:], {Check.SEQUENCES}, {"entry 14"}),  # a gap: six producers in turns
        (lambda e: [*e[:9], e[9], *e[9:]], {Check.SEQUENCES}, {"entry 10"}),  # twice
        (lambda e: [*e[:6], e[12], *e[7:12], e[6], *e[13:]], {Check.SEQUENCES}, {"entry 6", "entry 12", "entry 18"}),
        (lambda e: e[6:], {Check.SEQUENCES}, {f"entry {n}" for n in range(6)}),  # the beginning is gone
        (
            lambda e: with_line(e, 9, e[9].replace(b"seq=2", b"seq=02")),
            {Check.GRAMMAR, Check.SEQUENCES},
            {"entry 9", "entry 15"},
        ),
        (lambda e: with_line(e, 20, e[20] + b" note=free text"), {Check.GRAMMAR}, {"entry 20"}),
        (lambda e: with_line(e, 20, e[20] + b"\n"), {Check.GRAMMAR}, {"entry 20"}),
        (lambda e: with_line(e, 20, b""), {Check.GRAMMAR}, {"entry 20"}),
        (lambda e: with_line(e, 20, b"\xff" + e[20]), {Check.GRAMMAR}, {"entry 20"}),
        (lambda e: with_line(e, 20, e[20] + b"\n" + e[21]), {Check.GRAMMAR}, {"entry 20"}),
        (lambda e: with_line(e, 20, e[20].replace(b"action=", b"action=x")), {Check.GRAMMAR}, {"entry 20"}),
    ],
)
def test_wrong_histories_that_were_signed_are_found(
    change: Callable[[list[bytes]], list[bytes]], checks: set[Check], named: set[str], tmp_path: Path
) -> None:
    """Gaps, repeats, swaps and lines outside the grammar fail although hashes and signature are right."""
    LogWriter(tmp_path).append(broken(change))
    report = verified(tmp_path)
    assert failed(report) == checks
    assert {p.artefact for f in report.findings for p in f.problems} == named


def test_a_gap_between_runs_is_found(tmp_path: Path) -> None:
    """A producer's sequence is followed across the pieces that the work is cut into."""
    entries = list(Producers().entries(256 * 128 + 6))
    LogWriter(tmp_path).append([*entries[: 256 * 128], *entries[256 * 128 + 3 :]])
    report = verified(tmp_path)
    assert report.ok  # the last three entries of three producers are missing, which no log can know
    shutil.rmtree(tmp_path / "tile")
    entries = list(Producers().entries(256 * 128 + 12))
    del entries[256 * 128]
    LogWriter(tmp_path).append(entries)
    assert artefacts(verified(tmp_path), Check.SEQUENCES) == {f"entry {256 * 128 + 5}"}


def test_new_epoch_is_told(tmp_path: Path) -> None:
    """A producer that lost its head may begin a new epoch, and the report says how often that was without a link."""
    producers = Producers()
    entries = list(producers.entries(12))
    tail = encode_fact(FACTS[0], START)
    entries.append(encode_entry(Producer.REQUEST_INTAKE, 2, 1, GENESIS, tail))
    linked = producers.hashes[Producer.ERASURE_EXECUTOR]
    entries.append(encode_entry(Producer.ERASURE_EXECUTOR, 2, 1, linked, tail))
    LogWriter(tmp_path).append(entries)
    report = verified(tmp_path)
    assert report.ok
    assert "request-intake 1/1 to 2/1 (1 epochs without a link" in report.of(Check.SEQUENCES).detail
    assert "erasure-executor 1/1 to 2/1;" in report.of(Check.SEQUENCES).detail


A, B, C = "a" * 64, "b" * 64, "c" * 64


@pytest.mark.parametrize(
    ("last", "head", "prev", "expected"),
    [
        (None, Head(1, 1, A), GENESIS, Fit.NEXT),
        (None, Head(1, 2, A), GENESIS, Fit.GAP),
        (None, Head(1, 1, A), B, Fit.BROKEN_LINK),
        (Head(1, 4, A), Head(1, 5, B), A, Fit.NEXT),
        (Head(1, 4, A), Head(1, 5, B), C, Fit.BROKEN_LINK),
        (Head(1, 4, A), Head(1, 5, B), GENESIS, Fit.BROKEN_LINK),
        (Head(1, 4, A), Head(1, 6, B), A, Fit.GAP),
        (Head(1, 4, A), Head(1, 4, A), C, Fit.REPEATED),
        (Head(1, 4, A), Head(1, 4, B), C, Fit.EQUIVOCATION),
        (Head(1, 4, A), Head(1, 3, B), C, Fit.EARLIER),
        (Head(2, 1, A), Head(1, 9, B), A, Fit.EARLIER),
        (Head(1, 4, A), Head(2, 1, B), A, Fit.NEXT),
        (Head(1, 4, A), Head(2, 1, B), GENESIS, Fit.NEXT_UNLINKED),
        (Head(1, 4, A), Head(2, 1, B), C, Fit.BROKEN_LINK),
        (Head(1, 4, A), Head(2, 5, B), A, Fit.GAP),
        (Head(1, 4, A), Head(2, 2, B), GENESIS, Fit.GAP),
    ],
)
def test_fit_judges_each_case(last: Head | None, head: Head, prev: str, expected: Fit) -> None:
    """Next, gap, repeat, equivocation, broken link and new epoch, each by hand."""
    assert fit(last, head, prev) is expected


def lines() -> Iterator[str]:
    """Entries and near misses."""
    for fact in FACTS:
        line = encode_entry(Producer.REQUEST_INTAKE, 1, 1, A, encode_fact(fact, START)).decode()
        yield line
        for old, new in [
            ("2026-11-24", "2026-02-29"),
            ("2026-11-24", "2028-02-29"),
            ("2026-11-24", "2026-13-01"),
            ("2026-11-24", "0000-01-01"),
            ("T09:", "T24:"),
            (":33.", ":60."),
            ("seq=1", "seq=0"),
            ("epoch=1", "epoch=01"),
            ("producer=", "producer=x"),
            ("outcome=", "outcome=a"),
            (" count=", "  count="),
            ("commitments=", "commitments=outcome:"),
            ("outcome:" + "cd" * 32, "outcome:" + "cd" * 32 + ",outcome:" + "cd" * 32),
            ("outcome:" + "cd" * 32, "manifest:" + "cd" * 32 + ",outcome:" + "cd" * 32),
            ("request=", "request=-"),
        ]:
            yield line.replace(old, new)


def test_fast_grammar_accepts_nothing_that_the_grammar_refuses() -> None:
    """Whatever the bulk expression takes, the contract's own parser takes too, and ordinary entries take the fast way."""
    fast = 0
    for line in lines():
        found = LINES.findall(line)
        if len(found) == 1 and _words_are_known(found):
            fast += 1
            assert parse_entry(line.encode()).seq == 1
    assert fast >= 3 * len(FACTS)


@given(st.sampled_from([line for line in lines() if LINES.findall(line)]), st.data())
def test_fast_grammar_of_altered_lines(line: str, data: st.DataObject) -> None:
    """Changing any character of an entry never gets a line past the bulk expression that the parser refuses.

    Except within `prev`, which the verifier compares with a hash that it computed itself.
    """
    prev = line.index("prev=")
    at = data.draw(st.integers(0, len(line) - 1).filter(lambda n: not prev + 5 <= n < prev + 69))
    altered = line[:at] + data.draw(st.sampled_from([*"0aZ- .:\r\t,_=", "\u0660", ""])) + line[at + 1 :]
    found = LINES.findall(altered)
    if len(found) == 1 and _words_are_known(found) and "\n" not in altered:
        try:
            parse_entry(altered.encode())
        except BadEntry:
            pytest.fail(f"the parser refuses {altered!r}")


def test_support_log_is_made_by_the_contract(tmp_path: Path) -> None:
    """The logs of these tests hold what the contract encodes, entry by entry."""
    LogWriter(tmp_path).append(list(Producers().entries(7)))
    first, *_, last = decode_bundle((tmp_path / TilePath(None, 0, 7).text).read_bytes(), 7)
    entry = parse_entry(first)
    assert (entry.seq, entry.prev, entry.fact.action) == (1, GENESIS, Action.REQUEST_ACCEPTED)
    assert entry.at == datetime(2026, 11, 24, 9, 12, 33, 123_000, tzinfo=UTC)
    assert parse_entry(last).prev == entry_hash(first)
    assert open_checkpoint((tmp_path / "checkpoint").read_bytes(), SIGNER.verifier).size == 7
    assert replace(FACTS[0], count=None) == FACTS[0]


@pytest.mark.parametrize("size", [9_000_000_000_000_000_000, 10**15, 600 + 256 * 1_001])
def test_a_size_that_no_log_has_is_refused_at_once(log_600: Path, tmp_path: Path, size: int) -> None:
    """Whoever holds the key may sign any number: the verifier looks at what is there, and does not look for the rest one by one."""
    log = tmp_path / "log"
    shutil.copytree(log_600, log)
    write_checkpoint(log, sign_checkpoint(Checkpoint(ORIGIN, size, bytes(32)), SIGNER))
    report = verified(log)
    assert failed(report) == {Check.ENTRIES}
    assert artefacts(report, Check.ENTRIES) == {"tile/entries"}
    assert (report.size, report.of(Check.CHECKPOINT).verdict) == (size, Verdict.PASSED)
    assert report.of(Check.ROOT).verdict is Verdict.NOT_CHECKED
