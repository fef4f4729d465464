from pathlib import Path

import pytest

from audit_ledger.errors import SigningKeyMissing
from audit_ledger.gateways import NothingSealed, open_signer
from audit_ledger.settings import Settings
from habeas.auditlog.notes import open_note, sign_note
from habeas.chassis.environment import SettingsError
from habeas.chassis.errors import Invariant

# The example of golang.org/x/mod/sumdb/note.
PETER_KEY = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
PETER_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"

BASE = {
    "HABEAS_KAFKA_BOOTSTRAP": "kafka:9092",
    "AUDIT_LEDGER_DATABASE_DSN": "postgresql:///habeas?host=/run/postgresql",
}


def write_key(path: Path, text: str, mode: int = 0o600) -> Path:
    """A key file."""
    path.write_text(text)
    path.chmod(mode)
    return path


def test_key_of_go_is_read(tmp_path: Path) -> None:
    """A private key as Go's note package writes it gives the public key that Go gives, and signs what that verifies."""
    signer = open_signer(write_key(tmp_path / "key", f"{PETER_KEY}\n"), "PeterNeumann", create=False)
    assert signer.verifier.vkey == PETER_VKEY
    assert open_note(sign_note("text\n", signer), [signer.verifier]).text == "text\n"


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        (PETER_KEY, 0o640),
        (PETER_KEY.replace("c74f20a3", "c74f20a4"), 0o600),
        (PETER_KEY.replace("Peter", "Mary"), 0o600),
        (PETER_KEY.removeprefix("PRIVATE+KEY+"), 0o600),
        (PETER_KEY[:-4], 0o600),
        ("", 0o600),
        (PETER_VKEY, 0o600),
    ],
)
def test_other_files_are_refused_without_quoting_them(tmp_path: Path, text: str, mode: int) -> None:
    """A key open to others, altered, of another log or no key at all is refused, and the error shows nothing of it."""
    with pytest.raises(SigningKeyMissing) as refused:
        open_signer(write_key(tmp_path / "key", text, mode), "PeterNeumann", create=True)
    assert "AYEK" not in str(refused.value)


def test_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    """The first start in development makes a key; the next one finds it; without leave to make one there is none."""
    path = tmp_path / "keys" / "log.key"
    with pytest.raises(SigningKeyMissing):
        open_signer(path, "audit.example", create=False)
    made = open_signer(path, "audit.example", create=True)
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]
    assert open_signer(path, "audit.example", create=False).verifier.vkey == made.verifier.vkey
    assert open_signer(path, "audit.example", create=True).verifier.vkey == made.verifier.vkey


def test_production_asks_for_a_key() -> None:
    """Production says what is missing instead of making a key on the spot; development puts one beside the directory."""
    secure = {"HABEAS_KAFKA_TLS": "true", "HABEAS_ENVIRONMENT": "production"}
    with pytest.raises(SettingsError, match="AUDIT_LEDGER_SIGNING_KEY_FILE"):
        Settings.load(BASE | secure)
    given = Settings.load(BASE | secure | {"AUDIT_LEDGER_SIGNING_KEY_FILE": "/etc/habeas/log.key"})
    assert given.key_file == Path("/etc/habeas/log.key")
    development = Settings.load(BASE | {"HABEAS_ENVIRONMENT": "development", "AUDIT_LEDGER_LOG_DIR": "/srv/log"})
    assert development.key_file == Path("/srv/log.key")


def test_no_message_is_sealed_here() -> None:
    """The ledger holds none of the fleet's keys: a sensitive message would stop it."""
    protection = NothingSealed()
    for attempt in (protection.seal, protection.open):
        with pytest.raises(Invariant):
            attempt(b"value", b"aad")
    with pytest.raises(Invariant):
        protection.fingerprint(b"value")
