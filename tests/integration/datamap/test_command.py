"""`habeas datamap`: what a person or a pipeline sees."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


async def test_check_without_database_looks_at_the_files(shop: Shop, tmp_path: Path) -> None:
    """Without a DSN the files alone are judged, and the answer says so."""
    result = await _run("check", *_files(tmp_path))
    assert result.exit_code == 0
    assert "no database was looked at" in result.output
    assert (await _run("check", *_files(tmp_path, DATAMAP.replace("delete", "remove", 1)))).exit_code == 1


async def test_unreachable_database_is_no_success(shop: Shop, tmp_path: Path) -> None:
    """A database that does not answer is a failure, told without a trace."""
    result = await _run("check", "--dsn", "postgresql://x:secret@127.0.0.1:1/none", *_files(tmp_path))
    assert result.exit_code == 1
    assert "no_connection" in result.output
    assert "secret" not in result.output


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
