import json
import subprocess
import sys
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from habeas.cli import main, output
from habeas.cli.main import habeas
from tests.support.audit_log import SIGNER, LogWriter, Producers
from tests.support.waiting import HANGS_S

NOWHERE = "127.0.0.1:9"


def run(*arguments: str, **env: str) -> Result:
    """Run the program in this process."""
    return CliRunner().invoke(habeas, list(arguments), env=env)


def leaves(group: click.Group, *above: str) -> list[tuple[str, ...]]:
    """Every command with its way to it."""
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        found += leaves(command, *above, name) if isinstance(command, click.Group) else [(*above, name)]
    return found


@pytest.mark.parametrize("command", leaves(habeas), ids=" ".join)
def test_every_command_helps_and_speaks_json(command: tuple[str, ...]) -> None:
    """Each command explains itself and takes --json."""
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "--json" in result.stdout


def test_nonsense_is_wrong_use() -> None:
    """Unknown commands, missing arguments and options that do not belong are exit code 2."""
    assert run("nonsense").exit_code == 2
    assert run("trail").exit_code == 2
    assert run("status", "--nonsense").exit_code == 2
    assert run("status", HABEAS_OPERATOR_DATABASE_DSN="").exit_code == 2


def test_commands_of_a_missing_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    """A production image without the embedded servers says what is missing, with exit code 2."""

    def missing(name: str) -> None:
        raise ModuleNotFoundError(name=name.partition(".")[0])

    monkeypatch.setattr(main, "import_module", missing)
    result = run("up")
    assert result.exit_code == 2
    assert "habeas-embedded" in result.output


def test_help_imports_nothing_heavy() -> None:
    """Help answers at once: no database driver, no Kafka client, no cryptography is loaded for it."""
    program = (
        "import sys; from habeas.cli.main import habeas; habeas.main(['--help'], standalone_mode=False);"
        "print([name for name in ('aiokafka', 'asyncpg', 'cryptography', 'tink', 'habeas_embedded') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=HANGS_S, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of 600 entries, signed twice."""
    writer = LogWriter(tmp_path / "log")
    entries = list(Producers().entries(600))
    (tmp_path / "earlier").write_bytes(writer.append(entries[:300]))
    writer.append(entries[300:])
    return tmp_path / "log"


def test_audit_verify_of_a_good_log(log: Path) -> None:
    """Exit code 0, with the key on the command line or in a trust policy, and with an earlier checkpoint."""
    vkey = SIGNER.verifier.vkey
    policy = log.parent / "policy"
    policy.write_text(f"# trust\nlog {vkey}\nquorum none\n")
    earlier = str(log.parent / "earlier")
    for how in (("--vkey", vkey), ("--policy", str(policy)), ("--vkey", vkey, "--earlier", earlier)):
        result = run("audit", "verify", str(log), *how, "--json")
        assert (result.exit_code, json.loads(result.stdout)["ok"]) == (0, True), result.output
    shown = run("audit", "verify", str(log), "--vkey", vkey)
    assert shown.stdout.rstrip().endswith("the log holds")
    assert "\x1b" not in shown.stdout


def test_audit_verify_of_an_altered_log(log: Path) -> None:
    """One flipped bit anywhere is exit code 1, and the report says where."""
    tile = next(path for path in sorted(log.rglob("*")) if path.is_file() and "entries" in str(path))
    content = bytearray(tile.read_bytes())
    content[40] ^= 1
    tile.write_bytes(content)
    result = run("audit", "verify", str(log), "--vkey", SIGNER.verifier.vkey)
    assert result.exit_code == 1
    assert "FAIL" in result.stdout


def test_audit_verify_needs_one_trusted_key(log: Path) -> None:
    """No key, two keys, something that is no key, and a policy without a log are wrong use."""
    vkey = SIGNER.verifier.vkey
    policy = log.parent / "policy"
    policy.write_text("quorum none\n")
    for how in ((), ("--vkey", vkey, "--policy", str(policy)), ("--vkey", "nonsense"), ("--policy", str(policy))):
        assert run("audit", "verify", str(log), *how).exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("erasure", "--account", "acc_1"),
        ("erasure", "--account", "acc_1", "--ground", "whim"),
        ("erasure", "--account", "acc_1", "--details", "[]"),
        ("erasure", "--account", "acc_1", "--details", "{}", "--ground", "child"),
        ("access", "--account", "acc_1", "--issuer", "accounts"),
        ("delete", "--account", "acc_1"),
        ("access",),
    ],
)
def test_wrong_requests_are_not_sent(arguments: tuple[str, ...]) -> None:
    """What cannot be a request is exit code 2 before any broker is asked."""
    assert run("request", "submit", *arguments, HABEAS_KAFKA_BOOTSTRAP=NOWHERE).exit_code == 2


def test_production_refuses_plain_kafka() -> None:
    """Without TLS a request leaves only in development: the settings say what to write."""
    result = run("request", "submit", "access", "--account", "acc_1", HABEAS_KAFKA_BOOTSTRAP=NOWHERE)
    assert result.exit_code == 2
    assert "HABEAS_KAFKA_TLS" in result.output


def test_issuer_keys_in_both_forms(tmp_path: Path) -> None:
    """PKCS #8 PEM and 32 bytes in base64 are read; other keys and other bytes are wrong use, and nothing is sent."""
    key = Ed25519PrivateKey.generate()
    pem = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    files = {
        "pem": key.private_bytes(*pem),
        "base64": b64encode(key.private_bytes_raw()),
        "other": generate_private_key(SECP256R1()).private_bytes(*pem),
        "short": b64encode(bytes(31)),
        "text": b"nonsense!",
    }
    codes = {}
    for name, content in files.items():
        file = tmp_path / name
        file.write_bytes(content)
        issuer = ("--issuer", "accounts", "--key-id", "k", "--key-file", str(file))
        env = {"HABEAS_KAFKA_BOOTSTRAP": NOWHERE, "HABEAS_ENVIRONMENT": "development"}
        codes[name] = run("request", "submit", "access", "--account", "acc_1", *issuer, **env).exit_code
    # A good key gets as far as the broker, which is not there.
    assert codes == {"pem": 1, "base64": 1, "other": 2, "short": 2, "text": 2}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0004, "0 ms"),
        (0.25, "250 ms"),
        (7, "7.0 s"),
        (59.9, "59.9 s"),
        (300, "5 min"),
        (7199, "120 min"),
        (7200, "2 h"),
        (172_799, "48 h"),
        (172_800, "2 d"),
    ],
)
def test_durations_in_words(seconds: float, text: str) -> None:
    """A duration is written in the unit that a person would choose."""
    assert output.span(timedelta(seconds=seconds)) == text


def test_ages() -> None:
    """An age is the time since; of nothing there is none."""
    now = datetime(2026, 11, 24, 9, tzinfo=UTC)
    assert output.age(now - timedelta(minutes=5), now) == "5 min"
    assert output.age(None, now) is None


def groups(group: click.Group, *above: str) -> list[tuple[str, ...]]:
    """Every group of commands with its way to it."""
    inner = [(*above, name) for name, command in group.commands.items() if isinstance(command, click.Group)]
    found = [above] + [each for way in inner for each in groups(_command(way), *way)]
    return list(dict.fromkeys(found))


def _command(way: tuple[str, ...]) -> click.Group:
    found: click.Command = habeas
    for name in way:
        assert isinstance(found, click.Group)
        found = found.commands[name]
    assert isinstance(found, click.Group)
    return found


@pytest.mark.parametrize("way", groups(habeas), ids=" ".join)
def test_lists_of_commands_are_whole_on_a_narrow_terminal(way: tuple[str, ...]) -> None:
    """On 80 columns the first sentence of each command stands there whole, wrapped and not cut."""
    result = CliRunner(env={"COLUMNS": "80"}).invoke(habeas, [*way, "--help"], terminal_width=80)
    assert result.exit_code == 0
    assert "..." not in result.output.replace("[ARGS]...", "")
    told = " ".join(result.output.split()).replace("- ", "-")  # a line may end behind a hyphen
    for command in _command(way).commands.values():
        first = " ".join((command.help or "").split("\n\n")[0].split()).replace("- ", "-")
        assert first
        assert first in told
