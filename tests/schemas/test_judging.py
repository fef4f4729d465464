"""The judge of the other tests finds what it is there to find."""

from typing import Any

import asyncpg
import pytest

from tests.schemas.applications import edits
from tests.schemas.filling import Person
from tests.schemas.judging import Judge

TABLES = """
    CREATE TABLE users (id int PRIMARY KEY, email text);
    CREATE TABLE posts (id int PRIMARY KEY, user_id int, editor_id int, body text);
    INSERT INTO users SELECT n, format('given0%sq.family0%sq@example.net', n, n) FROM generate_series(1, 4) AS n;
    INSERT INTO posts SELECT n, n % 4 + 1, (n + 1) % 4 + 1, 'words' FROM generate_series(1, 12) AS n;
"""
RULES: dict[str, Any] = {
    "goes": {"users": "id", "posts": "user_id"},
    "changes": {"posts.editor_id": ["editor_id", "null"]},
}
ERASURE = """
    DELETE FROM posts WHERE user_id = 2;
    UPDATE posts SET editor_id = NULL WHERE editor_id = 2;
    DELETE FROM users WHERE id = 2;
"""


@pytest.mark.parametrize(
    ("also", "finding"),
    [
        ("", None),
        ("DELETE FROM posts WHERE id = 2", "posts: 1 rows of others are gone"),
        ("INSERT INTO users VALUES (2, 'new')", "users: 1 rows are still there"),
        ("INSERT INTO users VALUES (9, 'new')", "users: 1 rows are new"),
        ("UPDATE posts SET body = body || ' ' WHERE id = 3", "posts.body: 1 rows of others changed"),
        (
            "UPDATE posts SET editor_id = 3 WHERE id = 4",
            "posts.editor_id: 1 rows that must change did not, or to something else",
        ),
        ("UPDATE posts SET body = 'by GIVEN02Q' WHERE id = 3", "posts.body: 1 rows still name somebody"),
    ],
)
async def test_one_wrong_row_is_found(empty_database: str, also: str, finding: str | None) -> None:
    """Each kind of wrong row is told with its table, and a right erasure gives no finding."""
    connection = await asyncpg.connect(empty_database)
    try:
        await connection.execute(TABLES)
        judge = Judge(connection, "users", RULES)
        assert dict(await judge.shown("2")) == {"users": 1, "posts": 3}
        await judge.begin(["2"])
        await connection.execute(ERASURE + also)
        found = await judge.findings([Person(2)])
        assert found == [] if finding is None else finding in found
    finally:
        await connection.close()


def test_edits_are_lines() -> None:
    """A changed line counts once, an added and a removed one each once."""
    assert edits("a\nb\nc\n", "a\nB\nc\n") == 1
    assert edits("a\nb\nc\n", "a\nc\nd\n") == 2
    assert edits("a\n", "a\n") == 0
