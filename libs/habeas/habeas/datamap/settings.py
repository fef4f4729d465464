"""Where a process finds the policy and the data map."""

from pydantic import BaseModel, ConfigDict, DirectoryPath, Field, FilePath


class DataMapSettings(BaseModel):
    """Settings of the policy and the data map; the stores' own addresses are in the variables that the map names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy_file: FilePath = Field(description="the policy as data, policy.yaml")
    datamap_dir: DirectoryPath = Field(description="directory with the annotated datasets, *.yaml")
