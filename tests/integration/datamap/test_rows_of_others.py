"""What an erasure tells of rows of others is apart from the person's, and what it expects to do is what it does."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from habeas.contracts.outcomes import TableOutcome
from habeas.contracts.vocabulary import TableResult
from tests.integration.datamap.test_one_person import collection, column, field, opened

DDL: Final = """
    INSERT INTO people VALUES (3, 'c@x.example');
    CREATE TABLE posts (id bigint PRIMARY KEY, author_id bigint NOT NULL REFERENCES people);
    CREATE INDEX ON posts (author_id);
    CREATE TABLE replies (
        id bigint PRIMARY KEY, post_id bigint NOT NULL REFERENCES posts, author_id bigint NOT NULL REFERENCES people
    );
    CREATE INDEX ON replies (post_id); CREATE INDEX ON replies (author_id);
    CREATE TABLE quotes (
        id bigint PRIMARY KEY, post_id bigint REFERENCES posts, author_id bigint NOT NULL REFERENCES people
    );
    CREATE INDEX ON quotes (post_id); CREATE INDEX ON quotes (author_id);
    INSERT INTO posts VALUES (1, 1), (2, 1), (3, 2);
    INSERT INTO replies VALUES (1, 1, 1), (2, 1, 2), (3, 2, 3), (4, 3, 1), (5, 3, 2);
    INSERT INTO quotes VALUES (1, 1, 2), (2, 2, 3), (3, 3, 2);
"""
MORE: Final = """
    CREATE TABLE messages (
        id bigint PRIMARY KEY, sender_id bigint REFERENCES people, recipient_id bigint REFERENCES people, body text
    );
    CREATE INDEX ON messages (sender_id); CREATE INDEX ON messages (recipient_id);
    CREATE TABLE boards (id bigint PRIMARY KEY, title text);
    CREATE TABLE memberships (
        board_id bigint NOT NULL, person_id bigint NOT NULL REFERENCES people, PRIMARY KEY (board_id, person_id)
    );
    CREATE INDEX ON memberships (person_id);
    INSERT INTO messages VALUES (1, 1, 2, 'to two'), (2, 2, 1, 'to one'), (3, 1, 1, 'to myself'), (4, 2, 3, 'of others');
    INSERT INTO boards VALUES (1, 'shared'), (2, 'of one alone'), (3, 'of others');
    INSERT INTO memberships VALUES (1, 1), (1, 2), (2, 1), (3, 2);
"""
KEY: Final = (
    "          - {name: id, data_categories: [user], fides_meta: {primary_key: true}, habeas: {category: content}}\n"
)
POSTS: Final = collection("posts", KEY, field("author_id", "people.id"))
REPLIES: Final = collection(
    "replies", KEY, field("post_id", "posts.id", when_parent_goes="delete"), field("author_id", "people.id"),
    habeas="category: content, on_erasure: delete, links: {written: {by: author_id}}",
)  # fmt: skip
QUOTES: Final = collection(
    "quotes", KEY, field("post_id", "posts.id", when_parent_goes="detach"), field("author_id", "people.id"),
    habeas="category: content, on_erasure: delete, links: {written: {by: author_id}}",
)  # fmt: skip
MESSAGES: Final = collection(
    "messages", KEY, field("sender_id", "people.id", anonymise=None), field("recipient_id", "people.id", anonymise=None),
    field("body", anonymise="gone"),
    habeas=(
        "category: content, on_erasure: anonymise, links: {sent: {by: sender_id}, "
        "received: {by: recipient_id, role: co_owner, on_erasure: {anonymise: [recipient_id]}}}"
    ),
)  # fmt: skip
BOARDS: Final = collection(
    "boards", KEY, field("title"),
    habeas="category: content, on_erasure: delete, links: {members: {through: memberships}}",
)  # fmt: skip
MEMBERSHIPS: Final = collection("memberships", field("board_id", "boards.id"), field("person_id", "people.id"),
    habeas="category: content, on_erasure: delete, path: person_id")  # fmt: skip

ALL: Final = (POSTS, REPLIES, QUOTES, MESSAGES, BOARDS, MEMBERSHIPS)


def told(outcomes: Iterable[TableOutcome]) -> Mapping[str, Mapping[TableResult, int]]:
    """Rows by table and result."""
    rows: dict[str, dict[TableResult, int]] = {}
    for each in outcomes:
        assert each.result not in rows.get(each.table, {}), "a table has one outcome for each result"
        rows.setdefault(each.table, {})[each.result] = each.rows
    return rows


async def test_rows_of_others_are_told_apart(empty_database: str, tmp_path: Path) -> None:
    """A reply of another goes with the post and a quote lets go of it: neither is counted among the person's rows."""
    async with await opened(empty_database, tmp_path, DDL, POSTS, REPLIES, QUOTES) as store:
        outcomes = told((await store.erase(["1"]))["1"])
    assert outcomes == {
        "people": {TableResult.ERASED: 1},
        "posts": {TableResult.ERASED: 2},
        "replies": {TableResult.ERASED: 2, TableResult.ERASED_WITH_PARENT: 2},
        "quotes": {TableResult.NOTHING_HELD: 0, TableResult.DETACHED: 2},
    }
    assert await column(empty_database, "SELECT id FROM replies ORDER BY id") == [5]
    assert await column(empty_database, "SELECT coalesce(post_id, 0) FROM quotes ORDER BY id") == [0, 0, 3]


async def test_what_is_expected_is_what_is_done(empty_database: str, tmp_path: Path) -> None:
    """What an erasure expects is what it does, but for rows that let go: also of shared rows that stay and of rows with several links."""
    async with await opened(empty_database, tmp_path, DDL + MORE, *ALL) as store:
        expected = told((await store.planned(["1"]))["1"])
        assert await column(empty_database, "SELECT count(*) FROM posts") == [3]
        done = told((await store.erase(["1"]))["1"])
        again = told((await store.planned(["1"]))["1"])
    own = {
        table: {result: rows for result, rows in results.items() if rows and result is not TableResult.DETACHED}
        for table, results in done.items()
    }
    assert expected == {table: results for table, results in own.items() if results}
    assert again == {}


async def test_a_shared_row_that_stays_is_not_told_as_erased(empty_database: str, tmp_path: Path) -> None:
    """A board stays for who is left on it, and is then no row that went; the one of the person alone is."""
    async with await opened(empty_database, tmp_path, DDL + MORE, *ALL) as store:
        expected = told((await store.planned(["1"]))["1"])
        done = told((await store.erase(["1"]))["1"])
    assert done["boards"] == expected["boards"] == {TableResult.ERASED: 1}
    assert await column(empty_database, "SELECT id FROM boards ORDER BY id") == [1, 3]


async def test_a_row_that_leads_to_a_person_twice_counts_once(empty_database: str, tmp_path: Path) -> None:
    """A message to oneself is one row, although both its ends are changed."""
    async with await opened(empty_database, tmp_path, DDL + MORE, *ALL) as store:
        done = told((await store.erase(["1"]))["1"])
    assert done["messages"] == {TableResult.ANONYMISED: 3}
    assert await column(empty_database, "SELECT body FROM messages ORDER BY id") == [
        "gone",
        "to one",
        "gone",
        "of others",
    ]
