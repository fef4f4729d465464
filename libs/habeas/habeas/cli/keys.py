"""`habeas keys`: everything secret that a fleet and its platform need, made by one command each and readable by its owner alone."""

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Final

import click

from habeas.cli.output import AS_JSON, say, write_json
from habeas.cli.rotation import rotate

_NEW_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.\-]{0,69}")


@click.group(name="keys")
def keys() -> None:
    """Make keys, and change the key that wraps all others."""


keys.add_command(rotate)


@keys.command(name="ring")
@click.argument("file", type=_NEW_FILE)
@AS_JSON
def ring(file: Path, *, as_json: bool) -> None:
    """Make the fleet's key ring: FILE, for HABEAS_KEK_FILE of every service.

    Keep a copy offline: without it nothing that the fleet has sealed opens again, and no erased person is recognised.
    """
    from habeas.sealing.kek import KeyRing, new_key_ring

    text = new_key_ring()
    _write_new(file, text)
    kek_id = KeyRing(text).kek_id
    if as_json:
        write_json({"file": str(file), "kek_id": kek_id})
        return
    say(f"key ring written to {file} (KEK {kek_id}); keep a copy offline, and give every service:")
    say(f"  HABEAS_KEK_FILE={file.absolute()}")


@keys.command(name="log")
@click.argument("file", type=_NEW_FILE)
@click.option(
    "--origin",
    envvar="AUDIT_LEDGER_ORIGIN",
    show_envvar=True,
    required=True,
    help="Name of the log, a domain name of yours; never changes.",
)
@AS_JSON
def log(file: Path, origin: str, *, as_json: bool) -> None:
    """Make the key that signs the audit log: FILE, for audit-ledger.

    Its public half is shown: auditors verify by it, so hand it to them by a way of its own.
    """
    import secrets

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from habeas.auditlog.errors import BadNote
    from habeas.auditlog.notes import KEY_BYTES, Signer, encode_private_key

    seed = secrets.token_bytes(KEY_BYTES)
    try:
        vkey = Signer(origin, Ed25519PrivateKey.from_private_bytes(seed)).verifier.vkey
    except BadNote as error:
        raise click.UsageError(f"--origin: {error}") from None
    _write_new(file, f"{encode_private_key(origin, seed)}\n")
    if as_json:
        write_json({"file": str(file), "origin": origin, "vkey": vkey})
        return
    say(f"signing key written to {file}; keep a copy offline, and give audit-ledger:")
    say(f"  AUDIT_LEDGER_SIGNING_KEY_FILE={file.absolute()}")
    say(f"  AUDIT_LEDGER_ORIGIN={origin}")
    say("for auditors (`habeas audit verify DIR --vkey …`):")
    say(f"  {vkey}")


@keys.command(name="issuer")
@click.argument("name")
@click.option("--key-id", help="Id of the key; default NAME-YYYY-MM.")
@click.option("--file", type=_NEW_FILE, help="Where the private key goes; default KEY-ID.pem.")
@click.option("--days", type=click.IntRange(1, 3650), default=365, show_default=True, help="How long it is valid.")
@AS_JSON
def issuer(name: str, key_id: str | None, file: Path | None, days: int, *, as_json: bool) -> None:
    """Make the key by which the platform service NAME vouches for people, and show the lines for the policy.

    The private half (Ed25519, PKCS #8 PEM) is for that service alone: `habeas.kit.Issuer`, or any other Ed25519.
    """
    from base64 import b64encode

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    from habeas.chassis.clock import SystemClock

    today = SystemClock().now().date()
    chosen = key_id or f"{name}-{today:%Y-%m}"
    if not _NAME.fullmatch(name) or not _NAME.fullmatch(chosen):
        raise click.UsageError("names are lower-case letters, digits, `_`, `.` and `-`, up to 70 of them")
    target = file or Path(f"{chosen}.pem")
    key = Ed25519PrivateKey.generate()
    public = b64encode(key.public_key().public_bytes_raw()).decode()
    # Of yesterday, so that it is valid at once in every time zone, and for people who came in the day before.
    valid_from, valid_until = today - timedelta(days=1), today + timedelta(days=days)
    _write_new(target, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
    if as_json:
        days_of = {"valid_from": valid_from.isoformat(), "valid_until": valid_until.isoformat()}
        write_json({"file": str(target), "issuer": name, "key_id": chosen, "public_key": public, **days_of})
        return
    click.echo(f"private key written to {target}, for {name} alone; in policy.yaml write:", err=True)
    say("attestation_issuers:")
    say(f"  {name}:")
    say("    keys:")
    say(f'      {chosen}: {{public_key: "{public}", valid_from: {valid_from}, valid_until: {valid_until}}}')


def _write_new(file: Path, text: str) -> None:
    """Write a file of mode 0600 that is not there yet; what is there is never replaced, since something may be sealed by it."""
    from habeas.sealing.private_file import open_private

    try:
        with open(file, "x", encoding="ascii", opener=open_private) as target:
            target.write(text)
            target.flush()
            os.fsync(target.fileno())
    except FileExistsError:
        raise click.UsageError(f"{file} is there already: a key is never written over") from None
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror}") from None
