"""What an operator may set: every field typed, bounded, with its unit in its name and its meaning beside it.

`environment.py` says which environment variable feeds which field. Production is the default and refuses what is only
fit for a developer's machine: plain connections, a moved clock.
"""

import os
import ssl
from collections.abc import Mapping
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import ClassVar, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FilePath, SecretStr, field_validator, model_validator

from habeas.chassis import crash
from habeas.chassis.dsn import PRIVATE, is_private
from habeas.chassis.environment import SettingsError, read

__all__ = [
    "ChassisSettings",
    "Environment",
    "LogLevel",
    "ServiceSettings",
    "SettingsError",
    "load_chassis_settings",
]

_BOOTSTRAP: Final = r"^[A-Za-z0-9.\-\[\]:]{1,253}:\d{1,5}(,[A-Za-z0-9.\-\[\]:]{1,253}:\d{1,5}){0,15}$"
_FROZEN: Final = ConfigDict(
    frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False, validate_default=True
)


class Environment(StrEnum):
    """Where a process runs; production refuses what is only fit for a developer's machine."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class LogLevel(StrEnum):
    """The least severe level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class ChassisSettings(BaseModel):
    """Settings that every service has, because the chassis reads them."""

    model_config = _FROZEN

    environment: Environment = Field(
        Environment.PRODUCTION, description="where the process runs; production refuses plain connections"
    )
    instance: int = Field(
        0, ge=0, le=9999, description="ordinal of this replica, stable over restarts; names its Kafka group membership"
    )
    log_level: LogLevel = Field(LogLevel.INFO, description="the least severe level that is logged")
    clock_offset_s: float = Field(
        0.0, ge=-1e9, le=1e9, description="seconds by which the clock is moved in fault tests; refused in production"
    )
    clock_tolerance_s: float = Field(
        300.0, ge=0, le=3600, description="how far ahead of the own clock a time in a message may lie"
    )

    crash_at: str | None = Field(
        None,
        max_length=200,
        description="crash point and pass, as in committed:3, at which a fault test lets the process die; refused in production",
    )

    kafka_bootstrap: str = Field(
        pattern=_BOOTSTRAP, max_length=4096, description="Kafka brokers to ask first, host:port with commas between"
    )
    kafka_tls: bool = Field(default=False, description="speak TLS 1.3 with Kafka; production requires it")
    kafka_ssl_cafile: FilePath | None = Field(
        None, description="certificates (PEM) that sign the brokers' ones; without it the machine's are trusted"
    )
    kafka_ssl_certfile: FilePath | None = Field(None, description="own certificate (PEM) to show to the brokers")
    kafka_ssl_keyfile: FilePath | None = Field(None, description="private key (PEM) of the own certificate")
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="how to log in at the brokers; nothing means not at all, or by certificate"
    )
    kafka_sasl_username: str | None = Field(None, min_length=1, max_length=255, description="user name at the brokers")
    kafka_sasl_password: SecretStr | None = Field(
        None, min_length=1, max_length=1024, description="password at the brokers"
    )

    kafka_replicas_min: int = Field(
        3,
        ge=1,
        le=3,
        description="brokers that hold each topic at least; with fewer, production refuses to start and to make topics",
    )

    database_dsn: SecretStr = Field(
        min_length=1,
        max_length=4096,
        description="PostgreSQL of the fleet as the service's own role, postgresql://…; in production with "
        "sslmode=verify-full and ssl_min_protocol_version=TLSv1.3, or with host=/directory of a unix socket",
    )
    pool_connections_min: int = Field(1, ge=1, le=100, description="database connections kept open")
    pool_connections_max: int = Field(8, ge=1, le=200, description="database connections open at most")
    connect_timeout_s: float = Field(10.0, ge=0.1, le=120, description="how long opening a connection may take")
    statement_timeout_ms: int = Field(30_000, ge=100, le=600_000, description="how long one SQL statement may take")
    lock_timeout_ms: int = Field(10_000, ge=10, le=600_000, description="how long a statement may wait for a lock")
    idle_in_transaction_timeout_ms: int = Field(
        30_000, ge=100, le=600_000, description="how long a transaction may stand still before the server ends it"
    )

    inbox_batch_rows_max: int = Field(500, ge=1, le=10_000, description="messages that a worker takes at once")
    handle_at_once: bool = Field(
        default=True,
        description="handle messages as they come, without storing them first where nothing stands against it",
    )
    relay_batch_rows_max: int = Field(1_000, ge=1, le=10_000, description="messages that the relay sends at once")
    poll_interval_s: float = Field(
        20.0,
        ge=0.01,
        le=60,
        description="how often to look for messages and events that nothing told of, below all that wakes the service",
    )
    lease_s: float = Field(15.0, ge=1, le=300, description="how long a lane stays with a replica that went silent")
    retry_first_s: float = Field(1.0, ge=0.01, le=3600, description="wait before the first retry of a message")
    retry_max_s: float = Field(300.0, ge=0.01, le=86_400, description="longest wait between two retries")
    retry_horizon_s: float = Field(
        259_200.0, ge=1, le=2_592_000, description="how long a message is retried before it is parked"
    )
    parked_in_a_row_max: int = Field(
        100,
        ge=1,
        le=100_000,
        description="messages of the fleet's own topics parked without one handled between, before handling stops",
    )

    health_host: str = Field(
        "127.0.0.1", max_length=45, description="IP address on which health and metrics are answered, in plain HTTP"
    )
    health_port: int = Field(0, ge=0, le=65_535, description="TCP port of health and metrics; 0 takes a free one")
    stop_timeout_s: float = Field(30.0, ge=1, le=600, description="how long the stop may wait for work in progress")
    watchdog_s: float = Field(30.0, ge=1, le=600, description="how long the event loop may be blocked")

    traces_dir: Path | None = Field(
        None, description="directory for spans as JSON lines; used when no otlp_endpoint is set"
    )
    otlp_endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^\s@]+$",
        max_length=2048,
        description="where spans are sent by OTLP over HTTP, a URL",
    )
    trace_ratio: float = Field(0.1, ge=0, le=1, description="share of new traces that is kept")

    @field_validator("health_host")
    @classmethod
    def _is_address(cls, host: str) -> str:
        return str(ip_address(host))

    @field_validator("crash_at")
    @classmethod
    def _is_crash_point(cls, wanted: str | None) -> str | None:
        found = None if wanted is None else crash.WANTED.fullmatch(wanted)
        if wanted is not None and (found is None or found["point"] not in set(crash.Point)):
            raise ValueError("no crash point with its pass")
        return wanted

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.pool_connections_min > self.pool_connections_max:
            raise ValueError("HABEAS_POOL_CONNECTIONS_MIN is above HABEAS_POOL_CONNECTIONS_MAX")
        if not self.retry_first_s <= self.retry_max_s <= self.retry_horizon_s:
            raise ValueError("HABEAS_RETRY_FIRST_S, HABEAS_RETRY_MAX_S and HABEAS_RETRY_HORIZON_S must ascend")
        if (self.kafka_ssl_certfile is None) != (self.kafka_ssl_keyfile is None):
            raise ValueError("HABEAS_KAFKA_SSL_CERTFILE and HABEAS_KAFKA_SSL_KEYFILE go together: set both or none")
        if not self.kafka_tls and (self.kafka_ssl_cafile or self.kafka_ssl_certfile):
            raise ValueError("HABEAS_KAFKA_SSL_… files have no effect without HABEAS_KAFKA_TLS=true: set it")
        sasl = (self.kafka_sasl_mechanism, self.kafka_sasl_username, self.kafka_sasl_password)
        if any(each is None for each in sasl) and any(each is not None for each in sasl):
            raise ValueError("HABEAS_KAFKA_SASL_MECHANISM, …_USERNAME and …_PASSWORD go together: set all or none")
        return self

    @model_validator(mode="after")
    def _is_fit_for_production(self) -> Self:
        if self.environment is not Environment.PRODUCTION:
            return self
        if not self.kafka_tls:
            raise ValueError("production refuses to speak with Kafka in plain: write HABEAS_KAFKA_TLS=true")
        if self.clock_offset_s:
            raise ValueError("production refuses a moved clock: remove HABEAS_CLOCK_OFFSET_S")
        if self.crash_at is not None:
            raise ValueError("production refuses to die on demand: remove HABEAS_CRASH_AT")
        if not is_private(self.database_dsn.get_secret_value()):
            raise ValueError(
                f"production refuses a database connection that others could read: give HABEAS_DATABASE_DSN {PRIVATE}"
            )
        if self.otlp_endpoint is not None and not self.otlp_endpoint.startswith("https://"):
            raise ValueError("production refuses to send spans in plain: write HABEAS_OTLP_ENDPOINT=https://…")
        return self

    @property
    def in_production(self) -> bool:
        """Whether the process runs in production."""
        return self.environment is Environment.PRODUCTION

    @property
    def replicas_min(self) -> int:
        """How many brokers have to hold each topic: ``kafka_replicas_min`` in production, one elsewhere."""
        return self.kafka_replicas_min if self.in_production else 1

    def kafka_ssl_context(self) -> ssl.SSLContext | None:
        """Build what speaks TLS 1.3 with the brokers and checks their names; None when Kafka is spoken with in plain.

        Reads the files anew at each call, so that a renewed certificate is taken up. Raises OSError when it cannot.
        """
        if not self.kafka_tls:
            return None
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=self.kafka_ssl_cafile)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if self.kafka_ssl_certfile is not None:
            context.load_cert_chain(self.kafka_ssl_certfile, self.kafka_ssl_keyfile)
        return context


def load_chassis_settings(service: str, env: Mapping[str, str] | None = None) -> ChassisSettings:
    """Read the chassis' settings for a service (kebab-case) from `env`, else from the process' environment.

    Raises SettingsError that names each wrong variable, its meaning and unit, and what to write.
    """
    return read(ChassisSettings, service, os.environ if env is None else env, whole=False)


class ServiceSettings(BaseModel):
    """Base of a service's own settings; the service names itself once and adds its fields and groups.

    ```python
    class Settings(ServiceSettings):
        service = "erasure-executor"
        erase_interval_s: float = Field(30.0, ge=0.05, le=60, description="how often due erasures are looked for")


    settings = Settings.load()
    ```
    """

    model_config = _FROZEN

    service: ClassVar[str]
    chassis: ChassisSettings

    @classmethod
    def load(cls, env: Mapping[str, str] | None = None) -> Self:
        """Read all settings of the service from `env`, else from the process' environment.

        Raises SettingsError that names each wrong or unknown variable, its meaning and unit, and what to write.
        """
        return read(cls, cls.service, os.environ if env is None else env, whole=True)
