from pathlib import Path

import asyncpg
import pytest

from habeas_demo.canary import Canary, needles_of
from habeas_demo.evidence import DumpFailed, dump_database, judge_control, judge_scan, search_fleet, search_platform
from habeas_demo.platform import PlatformAccess

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_platform_dump_shows_who_is_there(platform: PlatformAccess, tmp_path: Path) -> None:
    """People who were not erased are found in the dump with every kind of value; the report names none of them."""
    people = platform.loaded.people[:3]
    scan = await search_platform(tmp_path, platform.owner_dsn, people)
    assert {(hit.person, hit.kind) for hit in scan.hits} == {
        (person.index, kind) for person in people for kind in ("account id", "e-mail", "name", "ip", "identity")
    }
    assert judge_control(scan, people).passed
    assert not judge_control(scan, platform.loaded.people[:4]).passed
    check = judge_scan("canary", scan, tmp_path)
    assert not check.passed
    assert not any(value in check.detail for person in people for value in (person.name, person.email, person.ip))


async def test_all_schemas_are_dumped(platform: PlatformAccess, tmp_path: Path) -> None:
    """What stands in any schema of the fleet's database is searched, also as bytea and jsonb."""
    person = platform.loaded.people[0]
    conn = await asyncpg.connect(platform.owner_dsn)
    try:
        await conn.execute("CREATE SCHEMA fleet_part; CREATE TABLE fleet_part.inbox (body bytea, told jsonb)")
        await conn.execute("INSERT INTO fleet_part.inbox (body) VALUES ($1)", b"{" + person.email.encode() + b"}")
        (tmp_path / "mail").mkdir()
        (tmp_path / "mail" / "1.eml").write_text(person.email)
        (tmp_path / "logs").mkdir()
        (tmp_path / "logs" / "clean.log").write_text("nothing")
        scan = await search_fleet(tmp_path, platform.owner_dsn, [person], limit_s=0)
        forms = {(hit.file.name, hit.form) for hit in scan.hits if hit.kind == "e-mail"}
        assert ("habeas.sql", "hex") in forms
        assert {name for name, _ in forms} == {"habeas.sql"}
    finally:
        await conn.execute("DROP SCHEMA fleet_part CASCADE")
        await conn.close()


async def test_no_dump_is_not_a_clean_dump(platform: PlatformAccess, tmp_path: Path) -> None:
    """A database that can't be dumped is an error, and an empty search is not passed."""
    with pytest.raises(DumpFailed):
        await dump_database(platform.owner_dsn.replace("demo_tests", "nowhere"), tmp_path / "x.sql")
    (tmp_path / "empty").mkdir()

    assert not judge_scan(
        "canary", Canary(needles_of(platform.loaded.people[:1])).scan([tmp_path / "empty"]), tmp_path
    ).passed
