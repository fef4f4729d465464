"""`habeas keys`: what is made fits together, is readable by its owner alone, and never replaces anything."""

import json
import re
from base64 import b64decode
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from audit_ledger.gateways import open_signer
from habeas.auditlog.notes import Verifier
from habeas.chassis.clock import SystemClock
from habeas.cli.main import habeas
from habeas.datamap.policy.model import load_policy
from habeas.sealing import FileKek
from habeas_demo.generator import PLATFORM_DIR


def run(*arguments: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(habeas, ["keys", *arguments])


def test_a_ring_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    """The file is a key ring of mode 0600 with one wrapping key, and its secrets are not shown."""
    file = tmp_path / "fleet.kek"
    made = run("ring", str(file), "--json")
    assert made.exit_code == 0, made.output
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(made.stdout) == {"file": str(file), "kek_id": FileKek(file).kek_id}
    assert not any(token.partition("=")[2] in made.output for token in file.read_text().split())


def test_a_signing_key_is_what_the_ledger_reads(tmp_path: Path) -> None:
    """audit-ledger opens the file, and the public half that is shown is that of the key."""
    file = tmp_path / "log.key"
    made = run("log", str(file), "--origin", "audit.example.org", "--json")
    assert made.exit_code == 0, made.output
    signer = open_signer(file, "audit.example.org", create=False)
    vkey = json.loads(made.stdout)["vkey"]
    assert vkey == signer.verifier.vkey
    Verifier.parse(vkey).public_key.verify(signer.sign("text\n").signature, b"text\n")


def test_an_issuer_gets_both_halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines that are shown stand in a policy as they are, with the public half of the key that was written, valid today."""
    monkeypatch.chdir(tmp_path)
    made = run("issuer", "accounts", "--days", "30")
    assert made.exit_code == 0, made.output
    (file,) = tmp_path.glob("*.pem")
    assert re.fullmatch(r"accounts-\d{4}-\d\d\.pem", file.name)
    assert file.stat().st_mode & 0o777 == 0o600
    private = load_pem_private_key(file.read_bytes(), None)
    assert isinstance(private, Ed25519PrivateKey)
    lines = made.stdout
    assert b64decode(yaml.safe_load(lines)["attestation_issuers"]["accounts"]["keys"][file.stem]["public_key"])
    policy_file = tmp_path / "policy.yaml"
    policy_file.write_text((PLATFORM_DIR / "policy.yaml").read_text() + "\n" + lines)
    policy = load_policy(policy_file)
    now = SystemClock().now()
    key = policy.issuer_key("accounts", file.stem, now, timedelta())
    assert key is not None
    assert key.raw == private.public_key().public_bytes_raw()
    assert key.begins_by(now - timedelta(hours=24), policy.zone)
    assert policy.issuer_key("accounts", file.stem, now + timedelta(days=32), timedelta()) is None
    assert file.read_text().splitlines()[1] not in made.output


@pytest.mark.parametrize(
    "command",
    [("ring", "FILE"), ("log", "FILE", "--origin", "audit.example.org"), ("issuer", "accounts", "--file", "FILE")],
)
def test_what_is_there_is_never_replaced(tmp_path: Path, command: tuple[str, ...]) -> None:
    """A file that is there is wrong use and stays: something may be sealed by it. Neither may its directory be missing."""
    file = tmp_path / "key"
    file.write_text("mine")
    assert run(*(str(file) if each == "FILE" else each for each in command)).exit_code == 2
    assert file.read_text() == "mine"
    nowhere = str(tmp_path / "nowhere" / "key")
    assert run(*(nowhere if each == "FILE" else each for each in command)).exit_code == 1


@pytest.mark.parametrize(
    "command",
    [("issuer", "Accounts"), ("issuer", "a b"), ("issuer", "a", "--key-id", "ä"), ("log", "x", "--origin", "a+b")],
)
def test_names_that_no_policy_takes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """A name that the policy or a signed note could not hold is wrong use, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    assert run(*command).exit_code == 2
    assert list(tmp_path.iterdir()) == []
