import hashlib
import io
import json
import os
import stat
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
import pytest_asyncio

from habeas.sealing import FileKek, KeyKind, KeyStore, Place, new_key_ring, seal
from habeas.sealing.artefact import ArtefactCipher
from habeas_embedded.provision import Access
from tests.integration.cli.conftest import Owner, Run, parsed

EXPORT = UUID("01990c5e-7b1a-7c62-9f0e-3d6a5b1c2d41")
REQUEST = UUID("01990c5e-7b1a-7c62-9f0e-3d6a5b1c2d3e")
SUBJECT = UUID("01990c5e-7b1a-7c62-9f0e-3d6a5b1c2d3f")
NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)
MANIFEST = {
    "format": "habeas-export/1",
    "export_id": str(EXPORT),
    "request_id": str(REQUEST),
    "tables": [{"store": "shop", "table": "tasks", "category": "usage", "rows": 2, "columns": ["id", "prompt"]}],
}


@dataclass(frozen=True)
class Exported:
    """An artefact, and what opens it."""

    file: Path
    kek_file: Path
    dsn: str
    output: Path

    def command(self, *more: str) -> tuple[str, ...]:
        """Give the command that opens it."""
        where = ("--dsn", self.dsn, "--kek-file", str(self.kek_file), "--output", str(self.output))
        return ("export", "open", str(self.file), *where, "--json", *more)


@pytest_asyncio.fixture
async def exported(owner: Owner, database: Access, tmp_path: Path) -> Exported:
    """An export as export-builder leaves it, its artefact's key sealed under the person's data key."""
    kek_file = tmp_path / "fleet.kek"
    kek_file.write_text(new_key_ring())
    kek_file.chmod(0o600)
    keys = await KeyStore(FileKek(kek_file), lambda: NOW).create(owner, [SUBJECT], NOW)
    secret = ArtefactCipher.new_key()
    plain = io.BytesIO()
    with zipfile.ZipFile(plain, "w") as archive:
        archive.writestr("tables/shop.tasks.json", '[{"id": 1}, {"id": 2}]')
        archive.writestr("manifest.json", json.dumps(MANIFEST))
    file = tmp_path / f"{EXPORT}.zip.tink"
    with ArtefactCipher.encrypting_writer(file, secret, EXPORT.bytes) as writer:
        writer.write(plain.getvalue())
    await owner.execute(
        "INSERT INTO export_builder.exports (export_id, request_id, subject_id, dsr_right, state, artefact_key, artefact_sha256,"
        " due_on, next_attempt_at) VALUES ($1, $2, $3, 'access', 'completed', $4, $5, '2026-12-24', $6)",
        EXPORT, REQUEST, SUBJECT, seal(keys[SUBJECT].data, Place("export", EXPORT, "artefact_key"), secret),
        hashlib.sha256(file.read_bytes()).hexdigest(), NOW,
    )  # fmt: skip
    return Exported(file, kek_file, database.dsn("export-builder"), tmp_path / "out.zip")


async def _facts(owner: Owner) -> list[str]:
    return [row["tail"].partition(" ")[2] for row in await owner.fetch("SELECT tail FROM export_builder.audit_outbox")]


async def test_artefact_is_opened_and_that_is_on_record(run: Run, owner: Owner, exported: Exported) -> None:
    """The ZIP is written for its owner alone, the manifest is shown, and the log says that the export was opened."""
    assert parsed(await run(*exported.command())) == {"written": str(exported.output), "manifest": MANIFEST}
    assert stat.S_IMODE(exported.output.stat().st_mode) == 0o600
    with zipfile.ZipFile(exported.output) as archive:
        assert json.loads(archive.read("tables/shop.tasks.json")) == [{"id": 1}, {"id": 2}]
    assert await _facts(owner) == [
        f"action=export.opened request={REQUEST.hex} subject=- outcome=- count=- commitments=-"
    ]


async def test_output_is_not_written_over(run: Run, owner: Owner, exported: Exported) -> None:
    """A file that is there stays unless --force is given, and nothing is opened before that is known."""
    exported.output.write_text("mine")
    assert (await run(*exported.command())).exit_code == 2
    assert (exported.output.read_text(), await _facts(owner)) == ("mine", [])
    assert (await run(*exported.command("--force"))).exit_code == 0
    assert zipfile.is_zipfile(exported.output)


async def test_a_draft_that_waits_for_us_is_not_written_into(run: Run, exported: Exported) -> None:
    """In a directory where others may write, a link under a name that they can foresee gets nothing of a person's data."""
    victim = exported.output.with_name("victim")
    victim.write_text("theirs")
    exported.output.with_name(f".{exported.output.name}.part").symlink_to(victim)
    assert (await run(*exported.command())).exit_code == 0
    assert victim.read_text() == "theirs"
    assert not exported.output.is_symlink()
    assert zipfile.is_zipfile(exported.output)


async def test_the_draft_is_made_anew_for_its_owner_alone(
    run: Run, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the umask, each draft has a name of its own, is made exclusively, and nobody else may read it for a moment."""
    opened: list[tuple[str, int, int]] = []
    really = os.open

    def watching(path: str, flags: int, mode: int = 0o777, **kwargs: int) -> int:
        if str(path).endswith(".part"):
            opened.append((str(path), flags, mode))
        return really(path, flags, mode, **kwargs)

    monkeypatch.setattr(os, "open", watching)
    for _ in range(2):
        assert (await run(*exported.command("--force"))).exit_code == 0
    (first, flags, mode), (second, *_) = opened
    assert flags & os.O_EXCL
    assert mode == 0o600
    assert first != second
    assert Path(first).parent == exported.output.parent
    assert not list(exported.output.parent.glob(".*"))


async def test_who_cannot_record_cannot_open(run: Run, owner: Owner, exported: Exported, database: Access) -> None:
    """A role that may not write the log gets nothing: the operator may not even read the key."""
    result = await run(*exported.command("--dsn", database.operator_dsn))
    assert result.exit_code == 1
    assert not exported.output.exists()
    await owner.execute("REVOKE INSERT ON export_builder.audit_outbox FROM export_builder")
    result = await run(*exported.command())
    assert (result.exit_code, "audit log" in result.output) == (1, True)
    assert not exported.output.exists()


async def test_destroyed_key_opens_nothing(run: Run, owner: Owner, exported: Exported) -> None:
    """After an erasure nobody can open what was exported before, and the command says why."""
    await owner.execute("DELETE FROM sealing.subject_keys WHERE kind = $1", KeyKind.DATA.value)
    result = await run(*exported.command())
    assert (result.exit_code, "destroyed" in result.output) == (1, True)
    assert not exported.output.exists()


async def test_altered_artefact_is_refused(run: Run, owner: Owner, exported: Exported) -> None:
    """One flipped bit and it is not the artefact that was exported; no part of it is left behind."""
    content = bytearray(exported.file.read_bytes())
    content[-1] ^= 1
    exported.file.write_bytes(content)
    assert (await run(*exported.command())).exit_code == 1
    assert {path.name for path in exported.file.parent.iterdir()} == {"fleet.kek", exported.file.name}
    await owner.execute("UPDATE export_builder.exports SET artefact_sha256 = $1", hashlib.sha256(content).hexdigest())
    assert (await run(*exported.command())).exit_code == 1
    assert {path.name for path in exported.file.parent.iterdir()} == {"fleet.kek", exported.file.name}


async def test_wrong_key_ring_and_unknown_export(run: Run, exported: Exported) -> None:
    """Another key ring opens nothing; an id that is none, or that nobody knows, is told."""
    other = exported.kek_file.with_name("other.kek")
    other.write_text(new_key_ring())
    other.chmod(0o600)
    assert (await run(*exported.command("--kek-file", str(other)))).exit_code == 1
    assert (await run(*exported.command("--export", str(REQUEST)))).exit_code == 1
    renamed = exported.file.rename(exported.file.with_name("renamed"))
    command = [str(renamed) if part == str(exported.file) else part for part in exported.command()]
    assert (await run(*command)).exit_code == 2
    assert (await run(*command, "--export", str(EXPORT))).exit_code == 0
