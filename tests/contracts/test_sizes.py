"""No input of a foreign client is without bounds, and what a service tells of the largest one still fits into a record."""

import json
import math
import re._parser as regular  # type: ignore[import-not-found]  # no stub; how wide a pattern can be is asked of the parser itself
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest

from habeas.chassis.outbox import VALUE_BYTES_MAX
from habeas.contracts.catalogue import EVENTS
from habeas.contracts.model import Event

FOREIGN: Final = [event for event in EVENTS if event.topic.strict]
FORMATS: Final = {"uuid": 36, "date": 10, "date-time": 38}
"""Characters of what is told by a format; every one of them is checked by our own pattern or parser."""

BYTES_OF_CHARACTER: Final = 6
"""Of one in JSON at most: a control character is written as ``\\u0001``."""

OWN_LISTS: Final = {
    "request.accepted.language",  # of earlier versions; decided by request_intake.lifecycle.language_of
    "request.verified.categories",  # of earlier versions; bounded in a submission
    "request.fulfilled.categories",  # these are as many as the data map has
    "request.completed.categories",
    "erasure.completed.tables",
    "export.completed.tables",
}
"""What is without a bound in events of the fleet itself. An event of them that is too large is its request's own failure."""


def bytes_max(schema: Mapping[str, Any], document: Mapping[str, Any]) -> float:
    """Return how many bytes of JSON a value can have; infinite where nothing bounds it."""
    if "$ref" in schema:
        return bytes_max(document["$defs"][schema["$ref"].rpartition("/")[2]], document)
    for one_of in ("anyOf", "oneOf"):
        if one_of in schema:
            return max(bytes_max(each, document) for each in schema[one_of])
    if "const" in schema or "enum" in schema:
        return max(len(json.dumps(each)) for each in schema.get("enum", [schema.get("const")]))
    match schema["type"]:
        case "string":
            return 2 + characters_max(schema) * BYTES_OF_CHARACTER
        case "array":
            return of_many(schema.get("maxItems"), bytes_max(schema["items"], document))
        case "object":
            return of_object(schema, document)
        case "integer" | "boolean" | "null":
            return 20
        case other:
            raise AssertionError(other)


def characters_max(schema: Mapping[str, Any]) -> float:
    """Return how long a text can be: by its length, its format, or the widest that its pattern matches."""
    widths: list[float] = [schema.get("maxLength", math.inf), FORMATS.get(schema.get("format", ""), math.inf)]
    if "pattern" in schema:
        widths.append(pattern_width(schema["pattern"]))
    return min(widths)


def pattern_width(pattern: str) -> float:
    """Return how many characters a pattern matches at most; infinite for one that repeats without end, or is open at an end."""
    if not (pattern.startswith("^") and pattern.endswith("$")):
        return math.inf
    width: int = regular.parse(pattern).getwidth()[1]
    return math.inf if width >= regular.MAXREPEAT else width


def of_many(number: int | None, each: float) -> float:
    """Return the bytes of this many parts, with their commas and brackets."""
    return math.inf if number is None else 2 + number * (each + 1)


def of_object(schema: Mapping[str, Any], document: Mapping[str, Any]) -> float:
    """Return the bytes of named fields, or of a mapping."""
    if "properties" in schema:
        assert schema["additionalProperties"] is False
        return 2 + sum(len(name) + 4 + bytes_max(each, document) for name, each in schema["properties"].items())
    ((name, value),) = schema["patternProperties"].items()
    return of_many(schema.get("maxProperties"), 2 + pattern_width(name) + 1 + bytes_max(value, document))


def boundless(event: type[Event]) -> Iterator[str]:
    """Give the fields of an event that may be of any size."""
    document = event.model_json_schema()
    for name, schema in document["properties"].items():
        if math.isinf(bytes_max(schema, document)):
            yield f"{event.type}.{name}"


@pytest.mark.parametrize("event", FOREIGN, ids=lambda event: event.type)
def test_everything_that_a_foreign_client_sends_has_a_bound(event: type[Event]) -> None:
    """Every text, list and mapping says how much it can hold at most."""
    assert list(boundless(event)) == []


def test_foreign_clients_send_these() -> None:
    """The walk above leaves no topic out."""
    assert {event.type for event in FOREIGN} == {
        "dsr_request.submitted",
        "retention.ticked",
        "policy.changed",
        "receipt.given",
    }


def test_what_the_fleet_tells_is_bounded_but_for_lists_of_its_own() -> None:
    """What has bounds fits into a record, all of it at its largest together."""
    own = [event for event in EVENTS if not event.topic.strict]
    assert {field for event in own for field in boundless(event)} == OWN_LISTS
    for event in own:
        document = event.model_json_schema()
        sizes = [bytes_max(schema, document) for schema in document["properties"].values()]
        assert sum(size for size in sizes if not math.isinf(size)) < VALUE_BYTES_MAX


def test_the_walk_sees_what_has_no_bound() -> None:
    """Patterns that repeat without end, lists and mappings without a maximum, texts without a length."""
    assert math.isinf(pattern_width(r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$"))
    assert math.isinf(pattern_width(r"^[a-z]"))
    assert pattern_width(r"^[a-z0-9][a-z0-9_.\-]{0,79}$") == 80
    text = {"type": "string"}
    assert math.isinf(bytes_max(text, {}))
    assert math.isinf(bytes_max({"type": "array", "items": {"const": 1}}, {}))
    assert math.isinf(bytes_max({"type": "object", "patternProperties": {"^a$": {"const": 1}}}, {}))
