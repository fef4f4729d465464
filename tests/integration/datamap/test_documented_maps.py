"""Every example of the data map's pages on a real PostgreSQL: the check passes it, refuses what they say, and leaves the rows they show."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import asyncpg
import pytest

from habeas.datamap.errors import SchemaMismatch
from habeas.datamap.map.loading import load_datamap
from habeas.datamap.policy.model import Policy, load_policy
from habeas.datamap.postgres import PostgresStore, StoreOptions
from habeas.datamap.source import ConfigurationError

REPOSITORY: Final = Path(__file__).parents[3]
PAGES: Final = tuple(
    (REPOSITORY / "docs" / name).read_text(encoding="utf-8") for name in ("data-map.md", "data-map-hard-cases.md")
)
PEOPLE: Final = "INSERT INTO accounts VALUES ('ada', 'ada@example.org'), ('ben', 'ben@example.org');\n"
ACCOUNTS: Final = f"CREATE TABLE accounts (id text PRIMARY KEY, email text);\n{PEOPLE}"
HEAD: Final = """\
dataset:
  - fides_key: platform
    habeas: {store: platform, connection: PLATFORM_DSN, root: accounts}
    collections:
"""
ROOT: Final = """\
      - name: accounts
        habeas: {category: account, on_erasure: delete}
        fields:
          - {name: id, fides_meta: {primary_key: true, identity: account_id}}
          - {name: email, habeas: {contact: address}}
"""
ELSEWHERE: Final = re.compile(r"^-- in the database (\w+)\n", re.MULTILINE)
LEFT: Final = re.compile(r"^-- Ada is erased(?:, with `(?P<new>[^`]+)` instead of `(?P<old>[^`]+)`)?\n")
WITHOUT: Final = re.compile(r"Without `([^`]+)`[^\n]* the check refuses(?: it)?:\n\n```text\n(.*?)```", re.DOTALL)
OPTIONS: Final = StoreOptions(connections_max=2, lock_timeout_s=60.0, drop_lock_timeout_s=60.0)


@dataclass(frozen=True)
class Example:
    """What one section of the page shows."""

    title: str
    tables: tuple[str, ...]
    yaml: str
    left: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]

    @property
    def map(self) -> str:
        """Return the whole data map: a list of collections stands below the dataset that the page begins with."""
        if self.yaml.startswith("dataset:"):
            return self.yaml
        root = "" if "- name: accounts\n" in self.yaml else ROOT
        return HEAD + root + "".join(f"      {line}\n" for line in self.yaml.splitlines())


def _examples() -> list[Example]:
    found: list[Example] = []
    for section in (part for page in PAGES for part in re.split(r"^##+ ", page, flags=re.MULTILINE)[1:]):
        blocks = re.findall(r"^```(sql|yaml)\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
        sql = [text for kind, text in blocks if kind == "sql"]
        maps = [text for kind, text in blocks if kind == "yaml"]
        if not maps:
            assert not sql, f"tables without a map: {section.splitlines()[0]}"
            continue
        (yaml,) = maps
        left = tuple(text for text in sql if LEFT.match(text))
        tables = tuple(text for text in sql if text not in left)
        assert tables, f"a map without tables: {section.splitlines()[0]}"
        assert left, f"nothing is said of what is left: {section.splitlines()[0]}"
        found.append(Example(section.splitlines()[0], tables, yaml, left, tuple(WITHOUT.findall(section))))
    return found


EXAMPLES: Final = _examples()


@pytest.fixture(scope="module")
def policy() -> Policy:
    """The demonstration's policy."""
    return load_policy(REPOSITORY / "deploy/demo/policy.yaml")


@asynccontextmanager
async def _made(
    example: Example, dsn: str
) -> AsyncIterator[dict[str, tuple[str, "asyncpg.Connection[asyncpg.Record]"]]]:
    """Make an example's tables; those of another database stand there. Yield the address and a connection of each."""
    async with AsyncExitStack() as stack:
        opened: dict[str, tuple[str, asyncpg.Connection[asyncpg.Record]]] = {}

        async def connect(name: str, address: str) -> None:
            conn = await asyncpg.connect(address)
            stack.push_async_callback(conn.close)
            opened[name] = (address, conn)

        await connect("platform", dsn)
        main = opened["platform"][1]
        if not any("CREATE TABLE accounts" in text for text in example.tables):
            await main.execute(ACCOUNTS)
        for text in example.tables:
            elsewhere = ELSEWHERE.match(text)
            if elsewhere is None:
                await main.execute(text)
                continue
            other = f"{urlsplit(dsn).path[1:]}_{elsewhere[1]}"
            await main.execute(f'CREATE DATABASE "{other}"')
            stack.push_async_callback(main.execute, f'DROP DATABASE "{other}" WITH (FORCE)')
            await connect(elsewhere[1], urlsplit(dsn)._replace(path=f"/{other}").geturl())
            await opened[elsewhere[1]][1].execute(text)
        yield opened


def _as_shown(value: object) -> str:
    if isinstance(value, list):
        return "{" + ",".join(_as_shown(each) for each in value) + "}"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)


def _expected(left: str) -> list[tuple[str, list[str]]]:
    """Return each query with the rows that the comment behind it shows, divided by `;`, their values by `|`."""
    told = []
    for line in left.splitlines()[1:]:
        query, rows = re.split(r";\s+-- ", line)
        told.append(
            (
                query,
                [] if rows == "nothing" else [" | ".join(v.strip() for v in row.split("|")) for row in rows.split(";")],
            )
        )
    return told


CASES: Final = [
    pytest.param(example, left, id=f"{example.title}-{index}")
    for example in EXAMPLES
    for index, left in enumerate(example.left)
]


@pytest.mark.parametrize(("example", "left"), CASES)
async def test_example_passes_and_leaves_what_the_page_shows(
    example: Example, left: str, tmp_path: Path, policy: Policy, empty_database: str
) -> None:
    """The check passes the map, Ada is erased, and the rows that are left are those of the page; a second time nothing is found."""
    header = LEFT.match(left)
    assert header is not None
    text = example.map
    if header["old"]:
        assert header["old"] in text
        text = text.replace(header["old"], header["new"])
    (tmp_path / "map.yaml").write_text(text, encoding="utf-8")
    stores = load_datamap(tmp_path / "map.yaml", policy).stores
    async with _made(example, empty_database) as opened:
        for name, store_map in stores.items():
            async with PostgresStore(store_map, policy, opened[name][0], OPTIONS) as store:
                await store.check()
                first = await store.erase(["ada"])
                again = await store.erase(["ada"])
            assert sum(each.rows for each in first["ada"]) > 0
            assert sum(each.rows for each in again["ada"] if each.ground is None) == 0
        for query, rows in _expected(left):
            name = next((each for each in opened if f"{each}." in query and each != "platform"), "platform")
            found = await opened[name][1].fetch(query.replace(f"{name}.", "") if name != "platform" else query)
            assert [" | ".join(_as_shown(value) for value in row) for row in found] == rows, query


REFUSED: Final = [
    pytest.param(example, words, said, id=f"{example.title}-{index}")
    for example in EXAMPLES
    for index, (words, said) in enumerate(example.refused)
]


@pytest.mark.parametrize(("example", "words", "said"), REFUSED)
async def test_check_refuses_what_the_page_says(
    example: Example, words: str, said: str, tmp_path: Path, policy: Policy, empty_database: str
) -> None:
    """Without some words of an example the check refuses it, as the page says."""
    assert words in example.map
    text = (
        example.map.replace(f", {words}", "", 1) if f", {words}" in example.map else example.map.replace(words, "", 1)
    )
    (tmp_path / "map.yaml").write_text(text, encoding="utf-8")
    async with _made(example, empty_database) as opened:
        told = await _told(tmp_path / "map.yaml", policy, opened["platform"][0])
    assert re.sub(r"\s+", " ", said).strip() in told


async def test_recipient_gets_a_message_without_what_is_redacted(
    tmp_path: Path, policy: Policy, empty_database: str
) -> None:
    """Ben's export holds both messages: the one that he received without the sender's name, his own in full."""
    (example,) = (each for each in EXAMPLES if each.title == "Messages between two people")
    (tmp_path / "map.yaml").write_text(example.map, encoding="utf-8")
    store_map = load_datamap(tmp_path / "map.yaml", policy).store("platform")
    names: dict[str | None, str | None] = {}
    async with (
        _made(example, empty_database),
        PostgresStore(store_map, policy, empty_database, OPTIONS) as store,
        aclosing(store.export(["ben"])) as pieces,
    ):
        async for piece in pieces:
            if piece.source.table == "messages":
                columns = piece.source.columns
                names |= {row[columns.index("id")]: row[columns.index("sender_name")] for row in piece.rows}
    assert names == {"1": None, "2": "Ben"}


async def _told(path: Path, policy: Policy, dsn: str) -> Sequence[str]:
    """Return everything in which the check finds fault."""
    try:
        store_map = load_datamap(path, policy).store("platform")
        async with PostgresStore(store_map, policy, dsn, OPTIONS) as store:
            await store.check()
    except (ConfigurationError, SchemaMismatch) as error:
        return [problem.what for problem in error.problems]
    return []
