"""The contract as files: a JSON Schema for each event, and one AsyncAPI 3 document. A change of the contract is a diff of these.

``python -m habeas.contracts.generate`` writes them; a test compares them with what the models say.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from habeas.contracts.catalogue import EVENTS
from habeas.contracts.model import Event
from habeas.contracts.topics import AUDIT_ENTRIES, CATALOGUE, Topic

SCHEMAS_DIR: Final = Path(__file__).parent / "schemas"
ASYNCAPI_FILE: Final = SCHEMAS_DIR / "asyncapi.json"

_HEADERS: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time"],
    "properties": {
        "ce_specversion": {"const": "1.0"},
        "ce_id": {"type": "string", "format": "uuid", "description": "made once; a repetition takes no effect"},
        "ce_type": {"type": "string"},
        "ce_source": {"type": "string"},
        "ce_time": {"type": "string", "format": "date-time"},
        "ce_subject": {"type": "string"},
        "traceparent": {"type": "string", "description": "W3C Trace Context"},
    },
}
_AUDIT_ENTRY: Final[Mapping[str, Any]] = {
    "name": "audit.entry",
    "title": "AuditEntry",
    "summary": "One line of the audit log, in the grammar of habeas.contracts.audit.",
    "contentType": "text/plain",
    "headers": _HEADERS,
    "payload": {"type": "string", "pattern": "^habeas-audit/1 producer="},
}


def files() -> Iterator[tuple[Path, str]]:
    """Give every generated file with its text; the same models give the same text."""
    for event in EVENTS:
        yield SCHEMAS_DIR / f"{event.type}.json", _text(schema(event))
    yield ASYNCAPI_FILE, _text(asyncapi())


def schema(event: type[Event]) -> dict[str, Any]:
    """Give the JSON Schema (2020-12) of an event's value."""
    made = event.model_json_schema(mode="serialization" if not event.topic.strict else "validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"habeas:{event.type}", **made}


def asyncapi() -> dict[str, Any]:
    """Give the AsyncAPI 3.0 document of all topics."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Habeas",
            "version": "1.0.0",
            "description": "CloudEvents 1.0 in Kafka's binary mode; values are JSON. Topics are made as they stand here.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {topic.name: _channel(topic) for topic in CATALOGUE},
        "operations": {
            _operation(topic): {
                "action": "receive" if topic.owner in {"platform", "participants"} else "send",
                "channel": {"$ref": f"#/channels/{topic.name}"},
                "summary": "Written by platforms, taken by the fleet."
                if topic.owner in {"platform", "participants"}
                else f"Written by {topic.owner}.",
            }
            for topic in CATALOGUE
        },
        "components": {"messages": {**{event.type: _message(event) for event in EVENTS}, "audit.entry": _AUDIT_ENTRY}},
    }


def _channel(topic: Topic) -> dict[str, Any]:
    types = [event.type for event in EVENTS if event.topic is topic] or (
        ["audit.entry"] if topic is AUDIT_ENTRIES else []
    )
    return {
        "address": topic.name,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in types},
        "bindings": {
            "kafka": {
                "partitions": topic.partitions,
                "topicConfiguration": {
                    "cleanup.policy": [topic.configs["cleanup.policy"]],
                    "retention.ms": topic.retention_ms,
                },
                "bindingVersion": "0.5.0",
            }
        },
    }


def _message(event: type[Event]) -> dict[str, Any]:
    return {
        "name": event.type,
        "title": event.__name__,
        "summary": (event.__doc__ or "").strip().splitlines()[0],
        "contentType": "application/json",
        "headers": _HEADERS,
        "payload": {"schemaFormat": "application/schema+json;version=draft-2020-12", "schema": schema(event)},
        "bindings": {"kafka": {"key": {"type": "string", "description": event.key_field}, "bindingVersion": "0.5.0"}},
    }


def _operation(topic: Topic) -> str:
    return topic.name.replace(".", "_").replace("-", "_")


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def main() -> None:
    """Write every file, and remove those of events that are no more."""
    SCHEMAS_DIR.mkdir(exist_ok=True)
    made = dict(files())
    for path in SCHEMAS_DIR.glob("*.json"):
        if path not in made:
            path.unlink()
    for path, text in made.items():
        path.write_text(text)


if __name__ == "__main__":
    main()
