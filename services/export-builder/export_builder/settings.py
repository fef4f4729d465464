"""What an operator may set for export-builder."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from habeas.chassis.settings import ServiceSettings
from habeas.datamap.settings import DataMapSettings
from habeas.sealing.settings import SealingSettings


class Settings(ServiceSettings):
    """Settings of export-builder."""

    service: ClassVar[str] = "export-builder"

    sealing: SealingSettings
    datamap: DataMapSettings
    artefacts_dir: Path = Field(description="directory of the encrypted artefacts; shared by all replicas")
    build_interval_s: float = Field(
        30.0, ge=0.05, le=60, description="how often due exports are looked for that nothing told of"
    )
    delete_interval_s: float = Field(
        60.0, ge=0.05, le=3600, description="how often artefacts whose time is over are looked for"
    )
    kept_days: int = Field(30, ge=1, le=90, description="days for which an artefact can be opened")
