"""Where values of people could have been left: dumps of the databases, Kafka's data, logs, traces, artefacts; and the search in them."""

import asyncio
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from habeas_demo.canary import Canary, Scan, needles_of
from habeas_demo.checks import Check
from habeas_demo.people import Person
from habeas_embedded.postgres import postgres_programs
from habeas_embedded.waiting import until

_DUMP_LIMIT_S: Final = 120.0
_NAMED_HITS: Final = 4
_AGAIN_S: Final = 1.0


class DumpFailed(Exception):
    """pg_dump did not give the dump; without it nothing can be said about the database."""


async def dump_database(dsn: str, target: Path) -> Path:
    """Write a database as text, with every schema that it has. Raises DumpFailed."""
    parts = urlsplit(dsn)
    env = {"PATH": os.defpath, "PGPASSWORD": unquote(parts.password or "")}
    place = (
        "--host",
        parts.hostname or "",
        "--port",
        str(parts.port or 5432),
        "--username",
        unquote(parts.username or ""),
    )
    program = str(postgres_programs() / "bin" / "pg_dump")
    process = await asyncio.create_subprocess_exec(
        program,
        *place,
        "--no-password",
        f"--file={target}",
        parts.path.lstrip("/"),
        env=env,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_DUMP_LIMIT_S):
            _, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise DumpFailed("pg_dump took too long") from None
    if process.returncode != 0:
        raise DumpFailed(f"pg_dump ended with {process.returncode}")
    return target


async def search_fleet(run: Path, habeas_dsn: str, everybody: Sequence[Person], limit_s: float) -> Scan:
    """Search whatever the fleet wrote for anybody's values: its database, Kafka, logs, traces, artefacts, audit log.

    Sensitive topics are trimmed a moment after their records were taken, so the search is repeated until it finds
    nothing, at most for `limit_s`.
    """
    canary = await asyncio.to_thread(Canary, needles_of(everybody))
    last = Scan()

    async def is_clean() -> bool:
        nonlocal last
        if last.files:
            await asyncio.sleep(_AGAIN_S)
        await dump_database(habeas_dsn, _dumps(run) / "habeas.sql")
        last = await asyncio.to_thread(lambda: canary.scan(_written_by_fleet(run)))
        return not last.hits

    await until(is_clean, limit_s)
    return last


async def search_platform(run: Path, platform_dsn: str, erased: Sequence[Person]) -> Scan:
    """Search a dump of the platform's own database for the erased."""
    dump = await dump_database(platform_dsn, _dumps(run, "platform-dumps") / "platform.sql")
    return await asyncio.to_thread(Canary(needles_of(erased)).scan, [dump])


def _dumps(run: Path, name: str = "dumps") -> Path:
    (run / name).mkdir(exist_ok=True)
    return run / name


def _written_by_fleet(run: Path) -> list[Path]:
    """Of a run's directory all but the server's files, which hold the platform itself, and mail that was delivered."""
    return [path for path in run.iterdir() if path.name not in {"postgres", "mail", "platform-dumps"}]


def judge_scan(name: str, scan: Scan, run: Path) -> Check:
    """Say what was found, by place and kind; the values are not repeated."""
    size = f"{scan.files} files, {scan.searched_bytes / 1e6:.0f} MB"
    if scan.unreadable:
        return Check(
            name,
            passed=False,
            detail=f"{len(scan.unreadable)} files could not be read, such as {scan.unreadable[0].name}",
        )
    if not scan.files:
        return Check(name, passed=False, detail="nothing was there to search")
    if not scan.hits:
        return Check(name, passed=True, detail=f"{size}, nothing found")
    places = Counter((hit.file, hit.kind, hit.form) for hit in scan.hits)
    named = [
        f"{file.relative_to(run) if file.is_relative_to(run) else file.name}: {kind} ({form}) × {count}"
        for (file, kind, form), count in places.most_common(_NAMED_HITS)
    ]
    return Check(name, passed=False, detail=f"{len(scan.hits)} hits in {size}: {'; '.join(named)}")


def judge_control(scan: Scan, people: Sequence[Person]) -> Check:
    """The control: before the erasure, the same search must find every value of everybody, or its silence means nothing."""
    wanted = {(needle.person, needle.kind) for needle in needles_of(people)}
    found = {(hit.person, hit.kind) for hit in scan.hits}
    detail = f"{len(found & wanted)} of {len(wanted)} values found before anything was erased"
    return Check("canary · sees everybody before", bool(wanted) and found == wanted, detail)
