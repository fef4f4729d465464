"""The contract is a diff: committed schemas, and recorded messages of earlier days that must keep parsing."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from habeas.contracts.catalogue import BY_TYPE, EVENTS
from habeas.contracts.generate import ASYNCAPI_FILE, SCHEMAS_DIR, files
from habeas.contracts.model import Event
from habeas.contracts.topics import CATALOGUE

RECORDED = sorted((Path(__file__).parent / "recorded").glob("*.json"))


def test_generated_files_are_committed() -> None:
    """A changed model without its changed schema is refused: run ``python -m habeas.contracts.generate`` and look at the diff."""
    made = dict(files())
    assert {path.name for path in SCHEMAS_DIR.glob("*.json")} == {path.name for path in made}
    assert [path.name for path, text in made.items() if path.read_text() != text] == []


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_schema_is_valid_json_schema(event: type[Event]) -> None:
    """Every committed schema is a JSON Schema of the draft that it names, by another implementation's word."""
    Draft202012Validator.check_schema(json.loads((SCHEMAS_DIR / f"{event.type}.json").read_text()))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_messages_keep_parsing(path: Path) -> None:
    """A message that was once published is understood for ever, keeps its key, and fits the committed schema."""
    recorded = json.loads(path.read_text())
    kind = BY_TYPE[recorded["ce_type"]]
    event = kind.decode(json.dumps(recorded["value"]).encode())
    assert event.key() == recorded["key"]
    validator = Draft202012Validator(json.loads((SCHEMAS_DIR / f"{kind.type}.json").read_text()))
    assert list(validator.iter_errors(recorded["value"])) == []


def test_every_event_was_recorded() -> None:
    """No event is left without a recorded message."""
    assert {json.loads(path.read_text())["ce_type"] for path in RECORDED} == set(BY_TYPE)


def test_asyncapi_names_every_topic_and_event() -> None:
    """The AsyncAPI document leaves nothing out, and each reference in it leads somewhere."""
    document = json.loads(ASYNCAPI_FILE.read_text())
    assert set(document["channels"]) == {topic.name for topic in CATALOGUE}
    referred = {
        message["$ref"].rpartition("/")[2]
        for channel in document["channels"].values()
        for message in channel["messages"].values()
    }
    assert referred == set(document["components"]["messages"]) == {*BY_TYPE, "audit.entry"}


def test_platform_input_refuses_fields_that_nobody_knows() -> None:
    """On platform topics an unknown field is an error; on the fleet's own topics a newer producer may add one."""
    for path in RECORDED:
        recorded = json.loads(path.read_text())
        kind = BY_TYPE[recorded["ce_type"]]
        value = json.dumps({**recorded["value"], "added_later": 1}).encode()
        if kind.topic.strict:
            with pytest.raises(ValueError, match="added_later"):
                kind.decode(value)
        else:
            assert kind.decode(value) == kind.decode(json.dumps(recorded["value"]).encode())
