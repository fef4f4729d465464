"""A drafted map: valid for Fides, right about joins and secrets, and honest about what it guessed."""

from pathlib import Path

import fideslang.models
import pytest
import yaml

from habeas.datamap.draft import draft_dataset
from habeas.datamap.live import ForeignKey, LiveColumn, LiveSchema, LiveTable
from habeas.datamap.loading import load_datamap
from habeas.datamap.source import ConfigurationError
from tests.support.shop import write_map

TIME = "timestamp with time zone"


def _table(name: str, key: str, partitioned_by: tuple[str, ...] = (), **columns: str) -> LiveTable:
    found = {column: LiveColumn(column, kind) for column, kind in columns.items()}
    return LiveTable(name, found, key=(key,), partitioned_by=partitioned_by)


LIVE = LiveSchema(
    {
        "accounts": _table(
            "accounts",
            "id",
            id="text",
            email="text",
            full_name="text",
            locale="text",
            password_hash="bytea",
            mood="text",
        ),
        "tasks": _table("tasks", "id", id="uuid", account_id="text", prompt="text", created_at=TIME),
        "steps": _table("steps", "id", id="uuid", task_id="uuid", started_at=TIME),
        "mails": _table("mails", "id", id="uuid", sender_ref="text", recipient_ref="text", body="text"),
        "events": _table("events", "id", ("created_at",), id="uuid", account_id="text", ip="inet", created_at=TIME),
        "invoices": _table("invoices", "id", id="uuid", account_id="text", amount="numeric", issued_on="date"),
        "countries": _table("countries", "code", code="text", label="text"),
        "null": _table("null", "on", on="text", account_id="text"),
    },
    (
        ForeignKey("tasks", ("account_id",), "accounts", ("id",)),
        ForeignKey("steps", ("task_id",), "tasks", ("id",)),
        ForeignKey("mails", ("sender_ref",), "accounts", ("id",)),
        ForeignKey("mails", ("recipient_ref",), "accounts", ("id",)),
        ForeignKey("invoices", ("account_id",), "accounts", ("id",)),
    ),
)


def _drafted(tmp_path: Path) -> dict[str, dict[str, object]]:
    _, policy = write_map(tmp_path)
    text = draft_dataset(LIVE, store="shop", connection="SHOP_DSN", schema="public", policy=policy).text
    (tmp_path / "draft.yaml").write_text(text, encoding="utf-8")
    (dataset,) = yaml.safe_load(text)["dataset"]
    return {collection["name"]: collection for collection in dataset["collections"]}


def _field(collection: dict[str, object], name: str) -> dict[str, object]:
    fields = collection["fields"]
    assert isinstance(fields, list)
    return next(field for field in fields if field["name"] == name)


def test_draft_is_valid_fides(tmp_path: Path) -> None:
    """Fideslang 3.1 accepts it, tables with unusual names included."""
    _drafted(tmp_path)
    (dataset,) = yaml.safe_load((tmp_path / "draft.yaml").read_text(encoding="utf-8"))["dataset"]
    model = fideslang.models.Dataset.model_validate(dataset)
    assert {collection.name for collection in model.collections} == set(LIVE.tables)


def test_joins_come_from_foreign_keys(tmp_path: Path) -> None:
    """References over several hops, the identity on the root, and on columns named like it."""
    drafted = _drafted(tmp_path)
    assert _field(drafted["accounts"], "id")["fides_meta"] == {"primary_key": True, "identity": "account_id"}
    reference = [{"dataset": "shop", "field": "tasks.id", "direction": "from"}]
    assert _field(drafted["steps"], "task_id")["fides_meta"] == {"references": reference}
    assert _field(drafted["events"], "account_id")["fides_meta"] == {"identity": "account_id"}


def test_secrets_and_contacts_are_recognised(tmp_path: Path) -> None:
    """A password hash is never exported; mail address, name and language serve to write to the person."""
    accounts = _drafted(tmp_path)["accounts"]
    assert _field(accounts, "password_hash")["habeas"] == {"category": "REVIEW", "export": "never"}
    contacts = {name: _field(accounts, name).get("habeas") for name in ("email", "full_name", "locale")}
    assert [isinstance(notes, dict) and notes.get("contact") for notes in contacts.values()] == [
        "address",
        "name",
        "language",
    ]


def test_what_is_unsure_says_review(tmp_path: Path) -> None:
    """Retention, money, whose mail it is, unknown columns and tables without people are left to a person."""
    drafted = _drafted(tmp_path)
    notes = {name: collection["habeas"] for name, collection in drafted.items()}
    assert notes["invoices"] == {
        "category": "payment",
        "retention": "REVIEW",
        "age": "issued_on",
        "on_erasure": "REVIEW",
    }
    assert isinstance(notes["mails"], dict)
    assert notes["mails"]["path"] == "REVIEW"
    assert notes["countries"] == {"personal": False, "reason": "REVIEW"}
    assert _field(drafted["accounts"], "mood")["habeas"] == {"category": "REVIEW"}
    assert isinstance(notes["events"], dict)
    assert notes["events"]["partitioned"] == "day"


def test_check_refuses_every_review(tmp_path: Path) -> None:
    """A draft that nobody has looked at is no data map: each REVIEW is told with its line."""
    _drafted(tmp_path)
    _, policy = write_map(tmp_path)
    text = (tmp_path / "draft.yaml").read_text(encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_datamap(tmp_path / "draft.yaml", policy)
    told = {problem.line for problem in caught.value.problems}
    lines = {
        number for number, line in enumerate(text.splitlines(), 1) if "REVIEW" in line and not line.startswith("#")
    }
    assert lines <= told


def test_draft_without_policy_guesses_no_category(tmp_path: Path) -> None:
    """Categories are the policy's words; without it each is left open, and the count says how much is left to do."""
    drafted = draft_dataset(LIVE, store="shop", connection="SHOP_DSN", schema="public")
    assert drafted.reviews == drafted.text.partition("dataset:")[2].count("REVIEW")
    (dataset,) = yaml.safe_load(drafted.text)["dataset"]
    assert {c["habeas"].get("category", "REVIEW") for c in dataset["collections"]} == {"REVIEW"}
