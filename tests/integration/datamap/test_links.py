"""Links that real schemas asked for: keys over the account id, ids in json, people named by their address, one field for several tables."""

from pathlib import Path

import pytest

from habeas.datamap.errors import SchemaMismatch
from tests.integration.datamap.test_one_person import collection, column, field, opened

DEVICES = """
    CREATE TABLE devices (user_id bigint, id int, PRIMARY KEY (user_id, id));
    CREATE TABLE keys (user_id bigint, device_id int, key text, PRIMARY KEY (user_id, device_id),
        FOREIGN KEY (user_id, device_id) REFERENCES devices (user_id, id) ON DELETE CASCADE);
    INSERT INTO devices VALUES (1, 1), (2, 1); INSERT INTO keys VALUES (1, 1, 'a'), (2, 1, 'b');
"""
OWN = "          - {name: user_id, data_categories: [user.unique_id], fides_meta: {identity: account_id}}\n"


async def test_a_foreign_key_over_the_account_id_leads_to_the_same_persons_row(
    empty_database: str, tmp_path: Path
) -> None:
    """Both ends hold the account id and the key says that it is the same one: whoever's device goes, its keys are theirs."""
    devices = collection("devices", OWN, field("id"))
    keys = collection("keys", OWN, field("device_id"), field("key"))
    async with await opened(empty_database, tmp_path, DEVICES, devices, keys) as store:
        await store.erase(["1"])
    assert await column(empty_database, "SELECT user_id FROM devices UNION ALL SELECT user_id FROM keys") == [2, 2]


async def test_that_foreign_key_does_not_excuse_rows_of_others(empty_database: str, tmp_path: Path) -> None:
    """A key of somebody else's on the device, by another column, is another person's row."""
    ddl = (
        DEVICES.replace("key text,", "key text, owner_id bigint,").replace("'a')", "'a', 2)").replace("'b')", "'b', 2)")
    )
    owner = OWN.replace("user_id", "owner_id")
    keys = collection("keys", owner, field("user_id"), field("device_id"), field("key"))
    store = await opened(empty_database, tmp_path, ddl, collection("devices", OWN, field("id")), keys)
    async with store:
        with pytest.raises(SchemaMismatch, match="another person's or are to stay refer to `devices`"):
            await store.erase(["1"])


NOTES = """
    CREATE TABLE notes (id int PRIMARY KEY, info json, tags jsonb);
    INSERT INTO notes VALUES (1, '{"by": 1, "text": "x"}', '[{"id": 1}, {"id": 2}]'), (2, '{"by": "2", "text": "y"}', '[{"id": "2"}]');
"""


async def test_ids_in_json_are_taken_out(empty_database: str, tmp_path: Path) -> None:
    """Of a json column the value at its key, of a jsonb array the element; as a number or as a text; rows of others stay as they are."""
    links = "links: {by: {in: info, at: $.by}, tagged: {in: tags, at: '$[*].id'}}"
    notes = collection("notes", field("id"), field("info"), field("tags"), habeas=f"category: content, {links}")
    async with await opened(empty_database, tmp_path, NOTES, notes) as store:
        await store.erase(["1"])
    assert await column(empty_database, "SELECT info::text || tags::text FROM notes ORDER BY id") == [
        '{"text": "x"}[{"id": 2}]',
        '{"by": "2", "text": "y"}[{"id": "2"}]',
    ]


MAILS = """
    CREATE TABLE mails (id int PRIMARY KEY, person_id bigint REFERENCES people, address text);
    CREATE UNIQUE INDEX ON people (lower(email));
    INSERT INTO mails VALUES (1, NULL, 'A@x.example'), (2, 1, 'b@x.example'), (3, 2, 'b@x.example');
"""


def mails(links: str) -> str:
    """A collection of mails that names people by id and by address."""
    address = (
        "          - {name: address, data_categories: [user.contact.email], fides_meta: {references: "
        "[{dataset: shop, field: people.email, direction: from}]}, habeas: {match: case_insensitive, reference: address}}\n"
    )
    return collection(
        "mails",
        field("id"),
        field("person_id", "people.id"),
        address,
        habeas=f"category: content, on_erasure: delete, {links}",
    )


async def test_who_is_named_by_another_value_needs_a_link(empty_database: str, tmp_path: Path) -> None:
    """An address that refers to the root's names the person as the id does: without a link the rows would stay."""
    async with await opened(empty_database, tmp_path, MAILS, mails("links: {account: {by: person_id}}")) as store:
        with pytest.raises(SchemaMismatch, match=r"`mails\.address` names a person as `people\.email` does"):
            await store.erase(["1"])


async def test_rows_go_with_either_name(empty_database: str, tmp_path: Path) -> None:
    """By the id or by the address, whatever its letters' case."""
    links = "links: {account: {by: person_id}, address: {by: address}}"
    async with await opened(empty_database, tmp_path, MAILS, mails(links)) as store:
        outcome = await store.erase(["1"])
    assert await column(empty_database, "SELECT id FROM mails") == [3]
    assert [(each.table, each.rows) for each in outcome["1"] if each.table == "mails"] == [("mails", 2)]


GRANTS = """
    CREATE TABLE notes (id int PRIMARY KEY, person_id bigint REFERENCES people);
    CREATE TABLE files (id int PRIMARY KEY, person_id bigint REFERENCES people);
    CREATE TABLE grants (id int PRIMARY KEY, kind text NOT NULL, thing_id int NOT NULL);
    INSERT INTO notes VALUES (1, 1), (2, 2); INSERT INTO files VALUES (1, 2), (2, 1);
    INSERT INTO grants VALUES (1, 'note', 1), (2, 'note', 2), (3, 'file', 1), (4, 'file', 2);
"""


def grants(store_word: str = "") -> tuple[str, ...]:
    """Collections of things, and of grants on one of either kind."""
    thing = (
        "          - {name: thing_id, data_categories: [user], fides_meta: {references: [{dataset: shop, field: notes.id, "
        "direction: from}, {dataset: shop, field: files.id, direction: from}]}" + store_word + "}\n"
    )
    links = (
        "links: {note: {by: {field: thing_id, to: notes}, where: {kind: note}}, "
        "file: {by: {field: thing_id, to: files}, where: {kind: file}}}"
    )
    return (
        collection("notes", field("id"), field("person_id", "people.id")),
        collection("files", field("id"), field("person_id", "people.id")),
        collection(
            "grants", field("id"), field("kind"), thing, habeas=f"category: content, on_erasure: delete, {links}"
        ),
    )


@pytest.mark.parametrize("word", ["", ", habeas: {when_parent_goes: delete}"], ids=["links", "and_a_word"])
async def test_one_field_for_rows_of_several_tables(empty_database: str, tmp_path: Path, word: str) -> None:
    """Note 1 and file 2 are of the one who goes; grants on note 2 and file 1 have the same numbers and stay."""
    async with await opened(empty_database, tmp_path, GRANTS, *grants(word)) as store:
        await store.erase(["1"])
    assert await column(empty_database, "SELECT id FROM grants ORDER BY id") == [2, 3]


async def test_a_field_of_several_tables_is_asked_which(empty_database: str, tmp_path: Path) -> None:
    """Without a word for the table nobody could tell."""
    unsaid = [each.replace("{field: thing_id, to: notes}", "thing_id") for each in grants()]
    with pytest.raises(
        Exception, match=r"several tables; write all fields of one reference, or `by: \{field: thing_id, to: notes\}`"
    ):
        await opened(empty_database, tmp_path, GRANTS, *unsaid)


COMMENTS = """
    CREATE TABLE comments (id int PRIMARY KEY, content_type_id int NOT NULL, object_id text NOT NULL);
    INSERT INTO comments VALUES (1, 7, '1'), (2, 8, '1');
"""


@pytest.mark.parametrize(
    ("condition", "left"), [("", None), (", where: {content_type_id: 7}", [2])], ids=["bare", "told"]
)
async def test_an_id_of_any_kind_of_thing_needs_a_condition(
    empty_database: str, tmp_path: Path, condition: str, left: list[int] | None
) -> None:
    """Django's generic foreign key: object 1 of content type 7 is the person, of type 8 something else."""
    owner = "          - {name: object_id, data_categories: [user], fides_meta: {identity: account_id}}\n"
    comments = collection(
        "comments",
        field("id"),
        field("content_type_id"),
        owner,
        habeas=f"category: content, on_erasure: delete{condition}",
    )
    async with await opened(empty_database, tmp_path, COMMENTS, comments) as store:
        if left is None:
            with pytest.raises(
                SchemaMismatch, match="may be the id of something else than a person, as `content_type_id` says"
            ):
                await store.erase(["1"])
        else:
            await store.erase(["1"])
            assert await column(empty_database, "SELECT id FROM comments") == left


DOCUMENTS = """
    CREATE TABLE documents (id int PRIMARY KEY, owner_id bigint REFERENCES people);
    CREATE TABLE shares (id int PRIMARY KEY, document_id int REFERENCES documents, reader_id bigint REFERENCES people);
    INSERT INTO documents VALUES (1, 1); INSERT INTO shares VALUES (1, 1, 2);
"""


async def test_who_could_only_read_a_row_is_not_told_that_theirs_was_erased(
    empty_database: str, tmp_path: Path
) -> None:
    """Owner and reader go in one batch: the document is the owner's in the outcome, the share the reader's."""
    links = "links: {owner: {by: owner_id}, readers: {through: shares, role: accessor, on_erasure: none}}"
    documents = collection(
        "documents", field("id"), field("owner_id", "people.id"),
        habeas=f"category: content, on_erasure: delete, reason: readers keep nothing, {links}",
    )  # fmt: skip
    shares = collection(
        "shares", field("id"), field("document_id", "documents.id", when_parent_goes="delete"),
        field("reader_id", "people.id"), habeas="category: content, on_erasure: delete, path: reader_id",
    )  # fmt: skip
    async with await opened(empty_database, tmp_path, DOCUMENTS, documents, shares) as store:
        done = await store.erase(["1", "2"])
    assert await column(empty_database, "SELECT id FROM documents UNION ALL SELECT id FROM shares") == []
    told = {who: {each.table: each.rows for each in done[who] if each.table != "people"} for who in ("1", "2")}
    assert told == {"1": {"documents": 1, "shares": 0}, "2": {"documents": 0, "shares": 1}}
