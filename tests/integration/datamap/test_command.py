"""`habeas datamap`: what a person or a pipeline sees."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner, Result

from habeas.cli.datamap import datamap
from tests.integration.datamap.conftest import Shop
from tests.support.shop import DATAMAP, write_map


async def _run(*arguments: str) -> Result:
    """Run a command as a process would: it starts an event loop of its own, so not on this one."""
    return await asyncio.to_thread(CliRunner().invoke, datamap, arguments)


def _files(directory: Path, text: str = DATAMAP) -> Sequence[str]:
    path, _ = write_map(directory, text)
    return ["--map", str(path), "--policy", str(directory / "policy.yaml")]


async def test_check_says_yes(shop: Shop, tmp_path: Path) -> None:
    """A map that agrees with the database ends with 0."""
    result = await _run("check", "--dsn", shop.dsn, *_files(tmp_path))
    assert result.exit_code == 0
    assert "in order" in result.output


async def test_check_says_no_with_file_line_and_advice(shop: Shop, tmp_path: Path) -> None:
    """A difference ends with 1 and is told with file, line and what to write; JSON holds the same."""
    await shop.owner.execute("ALTER TABLE tasks ADD COLUMN ip inet")
    arguments = ["check", "--dsn", shop.dsn, *_files(tmp_path)]
    result = await _run(*arguments)
    assert result.exit_code == 1
    line = DATAMAP[: DATAMAP.index("fields:", DATAMAP.index("- name: tasks"))].count("\n") + 1
    assert f"map.yaml:{line}: the column `tasks.ip` (inet) is not in the data map; write" in result.output
    told: dict[str, Any] = json.loads((await _run(*arguments, "--json")).output)
    assert [problem["line"] for problem in told["problems"]] == [line]
    assert not told["ok"]


async def test_check_tells_where_rows_leave_the_database(shop: Shop, tmp_path: Path) -> None:
    """A publication is said and refuses nothing, for people and for programs; constants are tried, too."""
    await shop.owner.execute("CREATE PUBLICATION elsewhere FOR TABLE accounts")
    arguments = ["check", "--dsn", shop.dsn, *_files(tmp_path)]
    result = await _run(*arguments)
    assert (result.exit_code, "leave the database by the publication `elsewhere`" in result.output) == (0, True)
    told = json.loads((await _run(*arguments, "--json")).output)
    assert (told["ok"], len(told["notices"])) == (True, 1)
    await shop.owner.execute("ALTER TABLE invoices ADD CHECK (billing_name <> 'erased')")
    assert (await _run(*arguments)).exit_code == 1


async def test_check_without_its_database_is_no_success(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the variable of the map nothing can be said: exit code 1 and what to write; --offline says that files are enough."""
    monkeypatch.delenv("SHOP_DSN", raising=False)
    result = await _run("check", *_files(tmp_path))
    assert result.exit_code == 1
    assert "write the environment variable SHOP_DSN=postgresql://" in result.output
    told = json.loads((await _run("check", "--json", *_files(tmp_path))).output)
    assert (told["ok"], told["compared_with_database"]) == (False, False)
    assert [problem["path"] for problem in told["problems"]] == ["SHOP_DSN"]
    offline = await _run("check", "--offline", *_files(tmp_path))
    assert (offline.exit_code, "no database was looked at" in offline.output) == (0, True)
    assert (await _run("check", "--offline", *_files(tmp_path, DATAMAP.replace("delete", "remove", 1)))).exit_code == 1
    assert (await _run("check", "--offline", "--dsn", shop.dsn, *_files(tmp_path))).exit_code == 2
    monkeypatch.setenv("SHOP_DSN", shop.dsn)
    assert (await _run("check", *_files(tmp_path))).exit_code == 0


@pytest.mark.parametrize(
    ("dsn", "told"),
    [
        (
            "postgresql://x:secret@127.0.0.1:1/none",
            "PostgreSQL at 127.0.0.1:1 refuses the connection: nothing listens there",
        ),
        (
            "postgresql://x:secret@nowhere.invalid/none",
            "PostgreSQL at nowhere.invalid:5432 cannot be reached: the name",
        ),
        ("postgresql://x:secret@127.0.0.1:port/none", "is no DSN of PostgreSQL; write postgresql://"),
        ("host=127.0.0.1 password=secret", "is no DSN of PostgreSQL; write postgresql://"),
        (
            "postgresql://x:secret@127.0.0.1:1/none?sslmode=sometimes",
            "has an sslmode that does not exist; write one of disable",
        ),
        (
            "postgresql://x:secret@127.0.0.1:1/none?sslmode=verify-full",
            "has sslmode=verify-full and no certificate to check by",
        ),
        (
            "postgresql://x:secret@127.0.0.1:1/none?sslmode=verify-full&sslrootcert=/nowhere.pem",
            "names as sslrootcert a file that is not there",
        ),
    ],
)
async def test_bad_dsn_is_told_by_variable_place_and_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dsn: str, told: str
) -> None:
    """Whatever is wrong with the way to a database is told with the variable and what to write, never with the password."""
    monkeypatch.setenv("HABEAS_ENVIRONMENT", "development")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHOP_DSN", dsn)
    monkeypatch.setenv("PLATFORM_DSN", dsn)
    for variable, arguments in (
        ("SHOP_DSN", ("check", *_files(tmp_path))),
        ("--dsn", ("check", "--dsn", dsn, *_files(tmp_path))),
        ("PLATFORM_DSN", ("draft",)),
    ):
        result = await _run(*arguments)
        assert result.exit_code == 1, result.output
        assert variable in result.output
        assert told in result.output
        assert "secret" not in result.output


async def test_refusals_of_the_server_are_told_by_cause(shop: Shop, tmp_path: Path) -> None:
    """A wrong password, a database or a TLS that the server does not have: told as what the server said."""
    server = urlsplit(shop.dsn)
    for dsn, told in (
        (
            f"postgresql://postgres:wrong@{server.hostname}:{server.port}{server.path}",
            "does not accept the password of this role",
        ),
        (shop.dsn.replace(server.path, "/nowhere"), "has no database of this name"),
        (f"{shop.dsn}?sslmode=require", "does not speak TLS, which sslmode demands"),
        (f"{shop.dsn}?nonsense=1", "does not know a parameter of the DSN"),
    ):
        result = await _run("check", "--dsn", dsn, *_files(tmp_path))
        assert (result.exit_code, told in result.output) == (1, True), result.output


@pytest.mark.parametrize("environment", ["production", ""])
async def test_commands_refuse_what_others_could_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: str
) -> None:
    """As services do: a plain connection is refused before it is made, unless it is development or a database of this machine."""
    monkeypatch.setenv("HABEAS_ENVIRONMENT", environment)
    plain = "postgresql://x:secret@db.example.org/none?sslmode=disable"
    monkeypatch.setenv("SHOP_DSN", plain)
    for arguments in (
        ("check", *_files(tmp_path)),
        ("check", "--dsn", plain, *_files(tmp_path)),
        ("draft", "--dsn", plain),
    ):
        result = await _run(*arguments)
        assert (result.exit_code, "production refuses a database connection" in result.output) == (2, True), (
            result.output
        )
        assert "secret" not in result.output
    unread = await _run("draft", "--dsn", "postgresql://x:sec@ret@127.0.0.1:1/none")
    assert (unread.exit_code, "--dsn is no DSN of PostgreSQL; write" in unread.output) == (2, True)
    local = await _run("draft", "--dsn", "postgresql://x:secret@127.0.0.1:1/none?sslmode=disable")
    assert local.exit_code == (2 if environment else 1)


async def test_draft_of_a_live_database_needs_only_decisions(shop: Shop, tmp_path: Path) -> None:
    """A draft joins like the map written by hand; once decided, it compares clean with the database."""
    _files(tmp_path)
    result = await _run("draft", "--dsn", shop.dsn, "--store", "shop", "--policy", str(tmp_path / "policy.yaml"))
    assert result.exit_code == 0
    assert "field: steps.id" in result.stdout
    assert "REVIEW" in result.stdout
    (tmp_path / "draft.yaml").write_text(result.stdout, encoding="utf-8")
    undecided = await _run(
        "check", "--dsn", shop.dsn, "--map", str(tmp_path / "draft.yaml"), "--policy", str(tmp_path / "policy.yaml")
    )
    assert undecided.exit_code == 1
    assert "nobody has decided" in undecided.output
