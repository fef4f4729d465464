from pathlib import Path

import pytest
from click.testing import CliRunner

import habeas_embedded
from habeas_embedded.doctor import Finding, State, doctor, doctor_command
from habeas_embedded.servers import Servers


async def findings() -> dict[str, Finding]:
    """Look, and give the findings by name."""
    return {finding.what: finding for finding in await doctor()}


async def test_missing_server_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """A given server that does not answer is missing, with what to do, and no secret of its DSN is shown."""
    monkeypatch.setenv("HABEAS_ADMIN_DATABASE_DSN", "postgresql://admin:opensesame@127.0.0.1:9/postgres")
    monkeypatch.setenv("HABEAS_KAFKA_BOOTSTRAP", "127.0.0.1:9")
    found = await findings()
    assert found["given PostgreSQL"].state is State.MISSING
    assert found["given Kafka"].state is State.MISSING
    assert "HABEAS_ADMIN_DATABASE_DSN" in found["given PostgreSQL"].advice
    assert "opensesame" not in repr(found)


async def test_given_server_that_answers_is_in_order(postgres_server: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A given server that answers is in order."""
    monkeypatch.setenv("HABEAS_ADMIN_DATABASE_DSN", postgres_server.postgres_admin_dsn)
    assert (await findings())["given PostgreSQL"].state is State.OK


async def test_wrong_java_is_told_and_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A HABEAS_JAVA that does not run is an error; no other Java is taken behind the person's back."""
    monkeypatch.setenv("HABEAS_JAVA", "/bin/false")
    java = (await findings())["Java"]
    assert java.state is State.MISSING
    assert "/bin/false" in java.advice


def test_paths_are_whole_on_a_narrow_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On 80 columns the path that matters is neither cut nor folded."""
    java = tmp_path / ("a-directory-with-a-long-name-" * 4) / "java"
    monkeypatch.setenv("HABEAS_JAVA", str(java.parent))
    java.parent.mkdir()
    result = CliRunner(env={"COLUMNS": "80"}).invoke(doctor_command)
    assert f"{java.parent} does not run" in result.output
    assert result.exit_code == 1


async def test_empty_cache_comes_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jars that are not there yet are no reason to do anything: the first start fetches them."""
    monkeypatch.setenv("HABEAS_CACHE", str(tmp_path))
    listed = (Path(habeas_embedded.__file__).parent / "kafka-jars.txt").read_text().splitlines()
    jars = sum(1 for line in listed if line and not line.startswith("#"))
    kafka = (await findings())["Kafka 4.3.0"]
    assert (kafka.state, kafka.seen.partition(" jars")[0]) == (State.LATER, f"0 of {jars}")
