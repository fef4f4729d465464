"""What an operator may set for retention-sweeper."""

from typing import ClassVar

from pydantic import Field

from habeas.chassis.settings import ServiceSettings
from habeas.datamap.settings import DataMapSettings
from habeas.sealing.settings import SealingSettings


class Settings(ServiceSettings):
    """Settings of retention-sweeper."""

    service: ClassVar[str] = "retention-sweeper"

    sealing: SealingSettings
    datamap: DataMapSettings
    sweep_interval_s: float = Field(
        30.0, ge=0.05, le=60, description="how often due sweeps are looked for that nothing told of"
    )
    batch_rows_max: int = Field(10_000, ge=1, le=1_000_000, description="rows that one statement deletes at most")
