import os
import shutil
import subprocess
from pathlib import Path

import pytest

from habeas.auditlog.verify import verify_log
from tests.support.audit_log import SIGNER, LogWriter, Producers
from tests.support.waiting import HANGS_S

SOURCE = Path(__file__).parents[2] / "support" / "sumdb_oracle"
# Around full tiles of one and of two levels, with odd sizes in between.
SIZES = (0, 1, 2, 3, 255, 256, 257, 1_000, 65_535, 65_536, 65_537, 65_900)


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The verifier made of golang.org/x/mod/sumdb, built once."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        pytest.skip("no Go toolchain here: golang.org/x/mod/sumdb could not be asked for its opinion")
    binary = tmp_path_factory.mktemp("oracle") / "sumdb-oracle"
    built = subprocess.run(
        [go, "build", "-o", binary, "."],
        cwd=SOURCE,
        env={**os.environ, "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        timeout=HANGS_S,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return binary


def ask(oracle: Path, directory: Path, *older: Path) -> subprocess.CompletedProcess[str]:
    """Run the oracle over a log directory."""
    return subprocess.run(
        [oracle, directory, SIGNER.verifier.vkey, *older],
        capture_output=True,
        text=True,
        timeout=HANGS_S,
        check=False,
    )


def test_go_accepts_our_log_at_every_size(oracle: Path, tmp_path: Path) -> None:
    """Go's sumdb packages verify notes, tiles, entries, roots and consistency of a log that grows over every border."""
    directory = tmp_path / "log"
    older: list[Path] = []
    writer, producers = LogWriter(directory), Producers()
    for size in SIZES:
        note = writer.append(list(producers.entries(size - writer.frontier.size)))
        answer = ask(oracle, directory, *older)
        assert answer.stdout == f"ok {size} {writer.frontier.root().hex()}\n", answer.stderr
        older.append(tmp_path / f"at{size}")
        older[-1].write_bytes(note)
    assert verify_log(directory, SIGNER.verifier, key_source="the test").ok


def test_go_refuses_what_we_refuse(oracle: Path, tmp_path: Path) -> None:
    """A changed entry, tile or checkpoint is refused by both; the oracle of these tests does look."""
    writer = LogWriter(tmp_path)
    writer.append(list(Producers().entries(300)))
    assert ask(oracle, tmp_path).returncode == 0
    for name in ("tile/entries/000", "tile/entries/001.p/44", "tile/0/000", "tile/0/001.p/44", "checkpoint"):
        file = tmp_path / name
        original = file.read_bytes()
        file.write_bytes(original[:40] + bytes([original[40] ^ 1]) + original[41:])
        assert ask(oracle, tmp_path).returncode == 1, name
        assert not verify_log(tmp_path, SIGNER.verifier, key_source="the test").ok
        file.write_bytes(original)
