"""`habeas export`: opening the encrypted artefact of an export, on record."""

import hashlib
import json
import secrets
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import click

from habeas.cli.connection import private, run
from habeas.cli.local_fleet import FleetOption
from habeas.cli.output import AS_JSON, say, write_json, write_table

_SERVICE: Final = "export-builder"
_CHUNK_BYTES: Final = 1024 * 1024
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(name="export")
def export() -> None:
    """Open what was exported for a person."""


@export.command(name="open")
@click.argument("file", type=_FILE)
@click.option(
    "--dsn",
    cls=FleetOption,
    callback=private,
    envvar="EXPORT_BUILDER_DATABASE_DSN",
    show_envvar=True,
    required=True,
    help="The fleet's database, as export_builder: operators may not read keys.",
)
@click.option(
    "--kek-file",
    cls=FleetOption,
    type=_FILE,
    envvar="HABEAS_KEK_FILE",
    show_envvar=True,
    required=True,
    help="Key ring.",
)
@click.option("--export", "export_id", type=click.UUID, help="The export's id, where FILE is not called after it.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="The ZIP to write; default ID.zip.")
@click.option("--force", is_flag=True, help="Write over an output that is there.")
@AS_JSON
def open_(
    file: Path, dsn: str, kek_file: Path, export_id: UUID | None, output: Path | None, *, force: bool, as_json: bool
) -> None:
    """Decrypt the artefact FILE into a ZIP that only you can read, and show its manifest.

    That it was opened is put into the audit log first.
    """
    chosen = export_id or _id_of(file)
    target = output or Path(f"{chosen}.zip")
    if target.exists() and not force:
        raise click.UsageError(f"{target} is there already; give --force or another --output")
    secret = run(_key_of(dsn, chosen, kek_file, _sha256(file)))
    manifest = _decrypt(file, secret, chosen, target)
    if as_json:
        write_json({"written": str(target), "manifest": manifest})
        return
    tables = manifest.get("tables", [])
    rows = [(each["store"], each["table"], each["category"], each["rows"], len(each["columns"])) for each in tables]
    write_table(
        f"export {chosen} of request {manifest.get('request_id')}",
        ("store", "table", "category", "rows", "columns"),
        rows,
    )
    say(f"written to {target}; it holds a person's data in clear")


def _id_of(file: Path) -> UUID:
    try:
        return UUID(file.name.partition(".")[0])
    except ValueError:
        raise click.UsageError("the file is not called after its export: give --export ID") from None


def _sha256(file: Path) -> str:
    with file.open("rb") as artefact:
        return hashlib.file_digest(artefact, "sha256").hexdigest()


async def _key_of(dsn: str, export_id: UUID, kek_file: Path, sha256: str) -> bytes:
    """Give the artefact's key, after it was recorded that somebody asked for it."""
    from habeas.chassis.clock import SystemClock
    from habeas.cli import store
    from habeas.cli.audited import record
    from habeas.cli.connection import connected
    from habeas.contracts.audit import Action, AuditFact
    from habeas.sealing import KekSettings, KeyKind, KeyStore, Place, SealingError, open_kek, open_sealed

    async with connected(dsn, store.schema_of(_SERVICE), writes=True) as conn:
        found = await store.find_export(conn, export_id)
        if found is None:
            raise click.ClickException("no export has this id")
        if found["artefact_key"] is None:
            raise click.ClickException(f"the export is {found['state']}: there is no key to open it with")
        if found["artefact_sha256"] != sha256:
            raise click.ClickException("this is not the artefact that was exported: its digest is another one")
        try:
            keys = KeyStore(open_kek(KekSettings(file=kek_file)), SystemClock().now)
            data_keys = await keys.read(conn, [found["subject_id"]], KeyKind.DATA)
            if found["subject_id"] not in data_keys:
                raise click.ClickException("the person's key was destroyed: nobody can open this any more")
            await record(conn, AuditFact(Action.EXPORT_OPENED, found["request_id"]))
            place = Place("export", export_id, "artefact_key")
            return open_sealed(data_keys[found["subject_id"]], place, found["artefact_key"])
        except SealingError:
            raise click.ClickException("the export does not open with this key ring") from None


def _decrypt(file: Path, secret: bytes, export_id: UUID, target: Path) -> Mapping[str, Any]:
    """Write the ZIP, readable by its owner alone, and return its manifest; a file that does not open leaves nothing behind.

    The directory may be one that others write to: the draft's name cannot be foreseen, and it is made anew or not at all.
    """
    from habeas.sealing import SealingError
    from habeas.sealing.artefact import ArtefactCipher
    from habeas.sealing.private_file import open_private

    draft = target.with_name(f".{target.name}.{secrets.token_hex(16)}.part")
    try:
        with (
            ArtefactCipher.decrypting_reader(file, secret, export_id.bytes) as reader,
            open(draft, "xb", opener=open_private) as plain,
        ):
            while chunk := reader.read(_CHUNK_BYTES):
                plain.write(chunk)
        with zipfile.ZipFile(draft) as archive:
            manifest: Mapping[str, Any] = json.loads(archive.read("manifest.json"))
        draft.replace(target)
    except SealingError:
        raise click.ClickException("the artefact does not open: altered, cut, or of another key") from None
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise click.ClickException(f"the artefact cannot be written out: {type(error).__name__}") from None
    finally:
        draft.unlink(missing_ok=True)
    return manifest
