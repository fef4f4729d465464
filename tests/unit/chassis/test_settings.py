"""Settings from environment variables."""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import BaseModel, Field, SecretStr

from habeas.chassis.settings import (
    ChassisSettings,
    Environment,
    ServiceSettings,
    SettingsError,
    load_chassis_settings,
)

LEAST = {
    "HABEAS_ENVIRONMENT": "development",
    "HABEAS_KAFKA_BOOTSTRAP": "127.0.0.1:9092",
    "HABEAS_DATABASE_DSN": "postgresql://erasure_executor:hunter2@127.0.0.1/habeas",
}
PRODUCTION = {
    "HABEAS_KAFKA_BOOTSTRAP": "kafka-1.internal:9093,kafka-2.internal:9093",
    "HABEAS_KAFKA_TLS": "true",
    "HABEAS_DATABASE_DSN": "postgresql://x:hunter2@db/habeas?sslmode=verify-full&ssl_min_protocol_version=TLSv1.3",
}


class Group(BaseModel):
    """A group of settings of some library."""

    kek_file: str | None = Field(None, description="the file")


class Settings(ServiceSettings):
    """Settings of a service."""

    service: ClassVar[str] = "erasure-executor"
    erase_interval_s: float = Field(1.0, gt=0, le=60, description="how often ready erasures are looked for")
    stores: tuple[str, ...] = Field((), description="names of stores")
    sealing: Group


def load(env: Mapping[str, str]) -> ChassisSettings:
    """Settings of erasure-executor."""
    return load_chassis_settings("erasure-executor", env)


def complaint(env: Mapping[str, str]) -> str:
    """What a person is told."""
    with pytest.raises(SettingsError) as raised:
        load(env)
    return str(raised.value)


def test_the_services_own_variable_wins() -> None:
    """A fleet-wide variable counts until the service has its own."""
    assert load(LEAST | {"HABEAS_LEASE_S": "20"}).lease_s == 20
    assert load(LEAST | {"HABEAS_LEASE_S": "20", "ERASURE_EXECUTOR_LEASE_S": "5"}).lease_s == 5
    assert load(LEAST | {"EXPORT_BUILDER_LEASE_S": "5"}).lease_s == 15


def test_missing_settings_are_named_all_at_once() -> None:
    """Who starts without anything learns every variable to set, and what it means."""
    told = complaint({})
    assert "ERASURE_EXECUTOR_KAFKA_BOOTSTRAP (or HABEAS_KAFKA_BOOTSTRAP) is missing: Kafka brokers" in told
    assert "ERASURE_EXECUTOR_DATABASE_DSN (or HABEAS_DATABASE_DSN) is missing" in told


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("HABEAS_LEASE_S", "soon", "Write a number of seconds from 1 up to 300."),
        ("HABEAS_LEASE_S", "301", "Write a number of seconds from 1 up to 300."),
        ("HABEAS_LEASE_S", "nan", "Write a number of seconds from 1 up to 300."),
        ("HABEAS_LOCK_TIMEOUT_MS", "1", "Write a whole number of milliseconds from 10 up to 600000."),
        ("HABEAS_ENVIRONMENT", "staging", "Write one of development, production."),
        ("HABEAS_KAFKA_SASL_MECHANISM", "NONE", "Write one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512."),
        ("HABEAS_KAFKA_TLS", "perhaps", "Write true or false."),
        ("HABEAS_KAFKA_BOOTSTRAP", "kafka", "host:port with commas between"),
        ("HABEAS_HEALTH_HOST", "localhost", "IP address"),
        ("HABEAS_KAFKA_SSL_CAFILE", "/nowhere/ca.pem", "what is to be read must exist"),
    ],
)
def test_wrong_values_are_explained(name: str, value: str, told: str) -> None:
    """A wrong value is told by its variable, its meaning and what to write, and is not repeated."""
    text = complaint(LEAST | {name: value})
    assert f"(or {name}) is wrong" in text
    assert told in text
    assert f"'{value}'" not in text


def test_errors_do_not_show_secrets() -> None:
    """A password never gets into an error, its cause or the settings' own text."""
    env = LEAST | {"HABEAS_DATABASE_DSN": "x" * 5000 + "hunter2", "HABEAS_LEASE_S": "0"}
    with pytest.raises(SettingsError) as raised:
        load(env)
    assert "hunter2" not in repr(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None
    assert "hunter2" not in repr(load(LEAST))


def test_near_misses_are_found() -> None:
    """A variable that just misses a known one is an error that names the known one, whatever its prefix."""
    told = complaint(LEAST | {"HABEAS_LEASE_MS": "1", "ERASURE_EXECUTOR_LEASE_MS": "1"})
    assert "HABEAS_LEASE_MS is unknown but close to HABEAS_LEASE_S." in told
    assert "ERASURE_EXECUTOR_LEASE_MS is unknown. Did you mean ERASURE_EXECUTOR_LEASE_S?" in told


def test_foreign_fleet_wide_variables_are_left_alone() -> None:
    """Other programs share the fleet-wide prefix."""
    assert load(LEAST | {"HABEAS_HOME": "/x", "HABEAS_POLICY_FILE": "y"}).lease_s == 15


def test_service_settings_read_groups_flat() -> None:
    """A service's fields, its groups and the chassis' are read by one rule."""
    settings = Settings.load(
        LEAST
        | {
            "ERASURE_EXECUTOR_ERASE_INTERVAL_S": "2.5",
            "ERASURE_EXECUTOR_STORES": "platform, billing",
            "HABEAS_KEK_FILE": "kek",
            "ERASURE_EXECUTOR_HEALTH_PORT": "8080",
        }
    )
    assert settings.erase_interval_s == 2.5
    assert settings.stores == ("platform", "billing")
    assert settings.sealing.kek_file == "kek"
    assert settings.chassis.health_port == 8080


def test_unknown_variable_of_the_service_is_an_error() -> None:
    """With a service's prefix only its own settings may stand, except what Kubernetes writes there."""
    kubernetes = {"ERASURE_EXECUTOR_SERVICE_HOST": "10.0.0.1", "ERASURE_EXECUTOR_PORT_8080_TCP_ADDR": "10.0.0.1"}
    Settings.load(LEAST | kubernetes)
    with pytest.raises(SettingsError, match="ERASURE_EXECUTOR_BANANA is unknown"):
        Settings.load(LEAST | {"ERASURE_EXECUTOR_BANANA": "1"})


def test_an_empty_variable_switches_an_optional_setting_off() -> None:
    """Composition files write empty variables for what is not set."""
    assert load(LEAST | {"HABEAS_OTLP_ENDPOINT": ""}).otlp_endpoint is None


def test_production_is_the_default_and_accepts_private_connections() -> None:
    """Without a word about the environment it is production; TLS 1.3 everywhere is enough for it."""
    assert load(PRODUCTION).environment is Environment.PRODUCTION
    assert load(PRODUCTION | {"HABEAS_DATABASE_DSN": "postgresql:///habeas?host=/run/postgresql"}).in_production


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("HABEAS_KAFKA_TLS", "false", "Kafka in plain"),
        ("HABEAS_CLOCK_OFFSET_S", "60", "moved clock"),
        ("HABEAS_CRASH_AT", "committed:1", "die on demand"),
        ("HABEAS_OTLP_ENDPOINT", "http://collector:4318/v1/traces", "spans in plain"),
        ("HABEAS_DATABASE_DSN", "postgresql://db/habeas", "sslmode=verify-full"),
        ("HABEAS_DATABASE_DSN", "postgresql://db/habeas?sslmode=require", "sslmode=verify-full"),
        ("HABEAS_DATABASE_DSN", "postgresql://db/habeas?sslmode=verify-full", "TLSv1.3"),
        ("HABEAS_DATABASE_DSN", "postgresql:///habeas?host=/run/postgresql,db2", "sslmode=verify-full"),
        ("HABEAS_DATABASE_DSN", "postgresql://db/habeas?host=/run/postgresql", "sslmode=verify-full"),
        ("HABEAS_DATABASE_DSN", "postgresql:///habeas", "sslmode=verify-full"),
    ],
)
def test_production_refuses(name: str, value: str, told: str) -> None:
    """Production does not start with what is only fit for a developer's machine."""
    assert told in complaint(PRODUCTION | {name: value})


@pytest.mark.parametrize(
    "env",
    [
        {"HABEAS_POOL_CONNECTIONS_MIN": "9", "HABEAS_POOL_CONNECTIONS_MAX": "8"},
        {"HABEAS_RETRY_FIRST_S": "400"},
        {"HABEAS_KAFKA_SASL_MECHANISM": "PLAIN"},
    ],
)
def test_contradictions_are_refused(env: dict[str, str]) -> None:
    """Settings that cannot hold together are an error that names them."""
    assert next(iter(env)) in complaint(LEAST | env)


def test_kafka_is_spoken_with_by_tls_13_only() -> None:
    """The TLS context takes nothing below TLS 1.3 and checks who answers."""
    context = load(LEAST | {"HABEAS_KAFKA_TLS": "true"}).kafka_ssl_context()
    assert context is not None
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert load(LEAST).kafka_ssl_context() is None


def test_certificate_files_are_checked(tmp_path: Path) -> None:
    """A file of authorities that holds no certificate is an error, not an empty list of authorities."""
    file = tmp_path / "ca.pem"
    file.write_text("nothing")
    settings = load(LEAST | {"HABEAS_KAFKA_TLS": "true", "HABEAS_KAFKA_SSL_CAFILE": str(file)})
    with pytest.raises(OSError, match="certificate"):
        settings.kafka_ssl_context()


def test_every_setting_says_what_it_means() -> None:
    """Each field has a description, and each number has bounds."""
    for name, field in ChassisSettings.model_fields.items():
        assert field.description, name
        if field.annotation in (int, float):
            assert len(field.metadata) >= 2, name
        if field.annotation is SecretStr:
            assert name == "database_dsn"


def test_a_crash_point_must_be_one_that_exists() -> None:
    """A death that is asked for at an unknown point would never come, and the test that waits for it would say nothing."""
    assert load(LEAST | {"HABEAS_CRASH_AT": "committed/inbox-batch>1:2"}).crash_at == "committed/inbox-batch>1:2"
    assert "HABEAS_CRASH_AT" in complaint(LEAST | {"HABEAS_CRASH_AT": "nowhere:1"})
    assert "HABEAS_CRASH_AT" in complaint(LEAST | {"HABEAS_CRASH_AT": "committed"})
