"""A drafted map: valid for Fides, right about joins and secrets, and honest about what it guessed."""

from pathlib import Path

import fideslang.models
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from habeas.datamap.catalogue.schema import ForeignKey, LiveColumn, LiveSchema, LiveTable
from habeas.datamap.map.draft import GUESSES, draft_dataset
from habeas.datamap.map.loading import load_datamap
from habeas.datamap.source import ConfigurationError
from tests.support.shop import write_map

TIME = "timestamp with time zone"


def _table(name: str, key: str, /, partitioned_by: tuple[str, ...] = (), **columns: str) -> LiveTable:
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


def _drafted(tmp_path: Path, live: LiveSchema = LIVE) -> dict[str, dict[str, object]]:
    _, policy = write_map(tmp_path)
    text = draft_dataset(live, store="shop", connection="SHOP_DSN", schema="public", policy=policy).text
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
    """Retention, money and whose mail it is are left to a person; a column that says nothing has the category of its table."""
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
    assert notes["countries"] == {"personal": False, "reason": "nothing in it leads to a person"}
    assert "habeas" not in _field(drafted["accounts"], "mood")
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


def _people(**columns: str) -> LiveSchema:
    """One table of people with these columns."""
    return LiveSchema({"users": _table("users", "id", (), id="text", **columns)})


@pytest.mark.parametrize(
    "name", ["avatar", "private", "elevation", "innovation_flag", "cardinality", "nettle", "prefaxed", "relocation"]
)
def test_a_word_inside_of_another_is_no_word(tmp_path: Path, name: str) -> None:
    """`avatar` holds no VAT and `elevation` neither: no whole word speaks for it, so the table is left to a person."""
    drafted = _drafted(tmp_path, _people(**{name: "text"}))["users"]
    assert drafted["habeas"]["category"] == "REVIEW"  # type: ignore[index]  # YAML
    field = _field(drafted, name)
    assert field == {"name": name, "data_categories": ["user"]}


@given(
    before=st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=4),
    after=st.text("bcdfghjklmnpqrtvwxz", min_size=2, max_size=4),
)
def test_no_phrase_is_found_inside_of_a_longer_word(before: str, after: str) -> None:
    """Whatever letters stand around a word without a break, it is no longer that word."""
    known = {phrase for _, phrases in GUESSES for phrase in phrases}
    words = {f"{before}{phrase.replace(' ', '_')}{after}" for phrase in known}
    words = {word for word in words if not {word, *word.split("_")} & known}
    text = draft_dataset(_people(**dict.fromkeys(words, "text")), store="shop", connection="X", schema="public").text
    (dataset,) = yaml.safe_load(text)["dataset"]
    for word in words:
        assert _field(dataset["collections"][0], word)["data_categories"] == ["user"], word


@pytest.mark.parametrize(
    ("name", "kind", "category"),
    [
        ("vat", "numeric", "user.financial"), ("vat_number", "text", "user.financial"), ("vatNumber", "text", "user.financial"),
        ("prices", "numeric", "user.financial"), ("e_mail", "text", "user.contact.email"), ("contactEmail", "text", "user.contact.email"),
        ("IPAddress", "inet", "user.device.ip_address"), ("last_ip", "inet", "user.device.ip_address"),
        ("address_line_2", "text", "user.contact.address"), ("user_agent", "text", "user.device"),
        ("date_of_birth", "date", "user.demographic.date_of_birth"), ("email_verified_at", TIME, "system.operations"),
        ("billing_name", "text", "user.name"), ("password_hash", "bytea", "user.authorization.credentials"),
        ("marketing_consent", "boolean", "user.privacy_preferences"), ("status", "text", "system.operations"),
    ],
)  # fmt: skip
def test_whole_words_are_known(tmp_path: Path, name: str, kind: str, category: str) -> None:
    """Words are told apart by underscores and by capitals, and in the plural."""
    assert _field(_drafted(tmp_path, _people(**{name: kind}))["users"], name)["data_categories"] == [category]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("email_verified", "boolean"), ("token_count", "integer"), ("created_by", "text"), ("card_message", "text"), ("message_id", "uuid"),
        ("email", "boolean"), ("file_name", "text"), ("price_list_url", "text"),
    ],
)  # fmt: skip
def test_doubt_says_nothing(tmp_path: Path, name: str, kind: str) -> None:
    """Two words that contradict each other, a last word that says nothing, or a type that cannot hold it: nothing is said."""
    field = _field(_drafted(tmp_path, _people(**{name: kind}))["users"], name)
    assert field == {"name": name, "data_categories": ["user"]}


def test_what_may_be_a_secret_is_not_exported_meanwhile(tmp_path: Path) -> None:
    """A text that has a word for secrets in its name is kept out of exports until somebody has decided."""
    notes = _field(_drafted(tmp_path, _people(email_hash="text"))["users"], "email_hash")["habeas"]
    assert notes == {"export": "never"}


def test_a_name_is_a_persons_only_with_a_reason(tmp_path: Path) -> None:
    """In a table of people, or with a word for it: yes. The name of a project, a device or a file: left to a person."""
    tables = {
        name: _table(name, "id", id="text", user_id="text", name="text") for name in ("projects", "devices", "contacts")
    }
    live = LiveSchema({"users": _table("users", "id", id="text", name="text"), **tables})
    drafted = _drafted(tmp_path, live)
    assert {table: _field(drafted[table], "name")["data_categories"] for table in drafted} == {
        "users": ["user.name"], "contacts": ["user.name"], "projects": ["user"], "devices": ["user"],
    }  # fmt: skip


def test_a_tie_between_categories_is_left_to_a_person(tmp_path: Path) -> None:
    """One column for each of two categories says nothing about the table."""
    drafted = _drafted(tmp_path, _people(full_name="text", amount="numeric"))
    assert drafted["users"]["habeas"]["category"] == "REVIEW"  # type: ignore[index]  # YAML


def test_a_store_without_people_is_told_as_one() -> None:
    """Columns named like the account id hold it, and one word is left to decide: where people begin."""
    live = LiveSchema(
        {
            "tickets": _table("tickets", "id", id="bigint", account_id="text", body="text"),
            "replies": _table("replies", "id", id="bigint", ticket_id="bigint", body="text"),
        },
        (ForeignKey("replies", ("ticket_id",), "tickets", ("id",)),),
    )
    drafted = draft_dataset(live, store="support", connection="SUPPORT_DSN", schema="public").text
    assert (
        "# No table of people was found: write its name as the root, or `root: none` if another store has it."
        in drafted
    )
    (dataset,) = yaml.safe_load(drafted)["dataset"]
    assert dataset["habeas"]["root"] == "REVIEW"
    tables = {collection["name"]: collection for collection in dataset["collections"]}
    assert _field(tables["tickets"], "account_id")["fides_meta"] == {"identity": "account_id"}
    assert _field(tables["replies"], "ticket_id")["fides_meta"]["references"]  # type: ignore[index]  # YAML


def test_root_can_be_said_and_is_open_where_there_are_two() -> None:
    """Staff and subscribers: the guess is told as one, with what else it could be; `root` decides, and joins follow it."""
    live = LiveSchema(
        {
            "users": _table("users", "id", id="text", email="text"),
            "shifts": _table("shifts", "id", id="text", user_id="text"),
            "subscribers": _table("subscribers", "id", id="text", email="text"),
            "issues": _table("issues", "id", id="text", subscriber_id="text"),
        },
        (
            ForeignKey("shifts", ("user_id",), "users", ("id",)),
            ForeignKey("issues", ("subscriber_id",), "subscribers", ("id",)),
        ),
    )
    guessed = draft_dataset(live, store="paper", connection="PAPER_DSN", schema="public").text
    assert "root: REVIEW" in guessed
    assert "# Joins lead to users; for subscribers draft again with --root TABLE." in guessed
    said = draft_dataset(live, store="paper", connection="PAPER_DSN", schema="public", root="subscribers").text
    (dataset,) = yaml.safe_load(said)["dataset"]
    assert dataset["habeas"]["root"] == "subscribers"
    tables = {collection["name"]: collection for collection in dataset["collections"]}
    assert _field(tables["issues"], "subscriber_id")["fides_meta"] == {
        "references": [{"dataset": "paper", "field": "subscribers.id", "direction": "from"}]
    }
    assert tables["users"]["habeas"] == {"personal": False, "reason": "REVIEW"}
