"""Where a process finds the key ring."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from habeas.sealing.kek import KekProvider, KekSettings, open_kek


class SealingSettings(BaseModel):
    """Settings of sealing; exactly one of the first two must be given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kek_file: Path | None = Field(None, description="file with the key ring, readable by its owner alone")
    kek_variable: str | None = Field(
        None, max_length=128, description="name of the environment variable that holds the key ring"
    )

    def open(self) -> KekProvider:
        """Open the key ring. Raises ``KekMissing`` when there is none, or two: nothing ever falls back to plaintext."""
        return open_kek(KekSettings(file=self.kek_file, variable=self.kek_variable))
