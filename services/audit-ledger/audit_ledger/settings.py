"""What an operator may set for audit-ledger."""

from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, model_validator

from habeas.chassis.settings import ServiceSettings

__all__ = ["Settings"]


class Settings(ServiceSettings):
    """Settings of audit-ledger. It needs none of the fleet's keys, and has none."""

    service: ClassVar[str] = "audit-ledger"

    log_dir: Path = Field(
        Path("/var/lib/habeas/audit-log"), description="directory in which the log is published, as C2SP tlog-tiles"
    )
    signing_key_file: Path | None = Field(
        None,
        description="file with the log's private key, readable by its owner alone; "
        "without it, development makes one beside log_dir and production refuses",
    )
    origin: str = Field(
        "audit.habeas.example",
        pattern=r"^[a-z0-9][a-z0-9_.\-]{0,79}$",
        description="name of the log and of its key, a domain name of yours; never changes once something was signed",
    )
    batch_rows_max: int = Field(5_000, ge=1, le=50_000, description="entries taken in one transaction")
    checkpoint_interval_s: float = Field(0.5, ge=0.05, le=60, description="least time between two signed checkpoints")
    resume_interval_s: float = Field(
        30.0, ge=0.05, le=60, description="how often producers to resume are looked for that nothing told of"
    )

    @model_validator(mode="after")
    def _has_a_key(self) -> Self:
        if self.chassis.in_production and self.signing_key_file is None:
            raise ValueError("production never makes a signing key: write AUDIT_LEDGER_SIGNING_KEY_FILE")
        return self

    @property
    def key_file(self) -> Path:
        """Where the private key is; never inside of what is published."""
        return self.signing_key_file or self.log_dir.with_name(f"{self.log_dir.name}.key")
