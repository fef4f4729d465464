"""What an operator may set for request-intake."""

from typing import ClassVar

from pydantic import Field

from habeas.chassis.settings import ServiceSettings
from habeas.datamap.settings import DataMapSettings
from habeas.sealing.settings import SealingSettings


class Settings(ServiceSettings):
    """Settings of request-intake."""

    service: ClassVar[str] = "request-intake"

    sealing: SealingSettings
    datamap: DataMapSettings
    open_interval_s: float = Field(
        30.0, ge=0.05, le=60, description="how often received requests are looked for that nothing told of"
    )
