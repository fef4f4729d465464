"""What an operator may set for erasure-executor."""

from typing import ClassVar

from pydantic import Field

from habeas.chassis.settings import ServiceSettings
from habeas.datamap.settings import DataMapSettings
from habeas.sealing.settings import SealingSettings


class Settings(ServiceSettings):
    """Settings of erasure-executor."""

    service: ClassVar[str] = "erasure-executor"

    sealing: SealingSettings
    datamap: DataMapSettings
    erase_interval_s: float = Field(
        30.0, ge=0.05, le=60, description="how often due erasures are looked for that nothing told of"
    )
