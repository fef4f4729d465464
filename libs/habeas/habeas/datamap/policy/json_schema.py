"""JSON Schema of `policy.yaml`, so that editors complete and check it."""

from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode
from pydantic_core import CoreSchema
from typing_extensions import override

from habeas.datamap.policy.model import Policy
from habeas.datamap.policy.regimes import packaged

SCHEMA_ID: Final = "urn:habeas:schema:policy:1"


class _Generator(GenerateJsonSchema):
    """Pydantic's generator with the dialect and name of this schema."""

    @override
    def generate(self, schema: CoreSchema, mode: JsonSchemaMode = "validation") -> dict[str, Any]:
        generated = super().generate(schema, mode=mode)
        return {"$schema": self.schema_dialect, "$id": SCHEMA_ID, **generated}


def policy_schema() -> dict[str, Any]:
    """Give the schema (draft 2020-12).

    A file that `load_policy` takes fits the schema. The reverse doesn't hold: what must hold between parts of a file is
    beyond JSON Schema, `habeas policy check` tells it.
    """
    schema = Policy.model_json_schema(by_alias=True, schema_generator=_Generator)
    schema["title"] = "Habeas policy"
    names = {"type": "string", "enum": sorted(packaged())}
    schema["$defs"]["RegimeChoice"]["properties"]["name"] |= names
    schema["properties"]["regimes"]["items"]["anyOf"][0] = names
    return schema
