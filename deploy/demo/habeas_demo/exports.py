"""What the exports hold: opened with each person's key, counted row by row, and compared with what the platform had before."""

import asyncio
import csv
import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg

from habeas.chassis.clock import SystemClock
from habeas.contracts.vocabulary import Right
from habeas.sealing import KeyKind, KeyStore, Place, open_sealed
from habeas.sealing.artefact import ArtefactCipher
from habeas.sealing.kek import KekSettings, open_kek
from habeas_demo.checks import Check, Held
from habeas_demo.looks import LOOKS
from habeas_demo.scenario import Asked

_KEYS: Final = """
    SELECT request_id, export_id, attempts, subject_id, artefact_key
      FROM export_builder.exports
     WHERE request_id = ANY ($1::uuid[]) AND state = 'completed'
"""
_SECRETS: Final = frozenset({"sealed", "hash", "token_hash"})
"""Columns that no export may show, whatever the right."""

_NOT_PORTABLE: Final = frozenset({"quality_scores", "provider_keys"})
"""What the platform inferred, and secrets: part of access (secrets by name only), never of portability (Art. 20(1))."""

_PURPOSES, _CATEGORIES, _RECIPIENTS, _RECIPIENTS_IN_US, _RIGHTS = 8, 9, 5, 3, 7

_OWNED: Final = frozenset(LOOKS) - {"accounts", "task_steps", "task_contents", "ticket_messages"}
"""Tables whose rows name their account themselves."""


@dataclass(frozen=True, slots=True)
class Opened:
    """One export in clear."""

    tables: Mapping[str, list[dict[str, Any]]] = field(repr=False)
    csv_rows: Mapping[str, int]
    information: Mapping[str, Any]


HeldBy = Mapping[str, Mapping[str, Held]]


async def open_exports(
    habeas_dsn: str, kek_file: Path, artefacts: Path, requests: Sequence[UUID]
) -> dict[UUID, Opened]:
    """Open the finished exports of these requests; one that can't be opened is missing from the answer."""
    conn = await asyncpg.connect(habeas_dsn)
    try:
        rows = await conn.fetch(_KEYS, list(requests))
        keys = KeyStore(open_kek(KekSettings(file=kek_file)), SystemClock().now)
        data_keys = await keys.read(conn, [row["subject_id"] for row in rows], KeyKind.DATA)
    finally:
        await conn.close()
    opened = {}
    for row in rows:
        if row["subject_id"] in data_keys and row["artefact_key"]:
            place = Place("export", row["export_id"], "artefact_key")
            secret = open_sealed(data_keys[row["subject_id"]], place, row["artefact_key"])
            path = artefacts / f"{row['export_id']}.{row['attempts']}.zip.tink"
            try:
                opened[row["request_id"]] = await asyncio.to_thread(_open, path, secret, row["export_id"])
            except (OSError, ValueError, KeyError, zipfile.BadZipFile):
                continue
    return opened


def _open(path: Path, secret: bytes, export_id: UUID) -> Opened:
    with ArtefactCipher.decrypting_reader(path, secret, export_id.bytes) as reader:
        archive = zipfile.ZipFile(io.BytesIO(reader.read()))
    tables: dict[str, list[dict[str, Any]]] = {}
    csv_rows: dict[str, int] = {}
    for name in archive.namelist():
        table, _, kind = name.removeprefix("tables/platform.").rpartition(".")
        if name.startswith("tables/") and kind == "json":
            tables[table] = json.loads(archive.read(name))
        elif name.startswith("tables/") and kind == "csv":
            text = io.StringIO(archive.read(name).decode("utf-8-sig"), newline="")
            csv_rows[table] = sum(1 for _ in csv.reader(text)) - 1
    return Opened(tables, csv_rows, json.loads(archive.read("information.json")))


def check_exports(asked: Sequence[Asked], opened: Mapping[UUID, Opened], held: HeldBy) -> list[Check]:
    """Compare exports with the rows counted before: all, or all but those that retention was free to take meanwhile."""
    checks = []
    for right in (Right.ACCESS, Right.PORTABILITY):
        mine = [each for each in asked if each.right is right]
        there = [(each, opened[each.request_id]) for each in mine if each.request_id in opened]
        tables = frozenset(LOOKS) - (_NOT_PORTABLE if right is Right.PORTABILITY else frozenset())
        name = f"exports · {right.value}"
        rows = sum(len(table) for _, export in there for table in export.tables.values())
        detail = f"{len(there)} of {len(mine)} open with the person's key, {rows} rows"
        checks.append(Check(f"{name} opens", bool(mine) and len(there) == len(mine), detail))
        for what, judge in _JUDGES.items():
            wrong = sum(not judge(each, export, held[each.person.account_id], tables) for each, export in there)
            checks.append(Check(f"{name} {what}", bool(there) and not wrong, f"{wrong} of {len(there)} are wrong"))
    return checks


Judge = Callable[[Asked, Opened, Mapping[str, Held], frozenset[str]], bool]


def _is_complete(_: Asked, export: Opened, held: Mapping[str, Held], tables: frozenset[str]) -> bool:
    """Every table with every row, in both forms."""
    return set(export.tables) == tables and all(
        held[table].staying <= len(export.tables[table]) <= held[table].all
        and held[table].all > 0
        and export.csv_rows.get(table) == len(export.tables[table])
        for table in tables
    )


def _is_own(asked: Asked, export: Opened, _: Mapping[str, Held], __: frozenset[str]) -> bool:
    """Nobody else's rows."""
    me = asked.person.account_id
    accounts = export.tables.get("accounts", [])
    return [row.get("id") for row in accounts] == [me] and all(
        row.get("account_id", me) == me for table in _OWNED for row in export.tables.get(table, [])
    )


def _shows_no_secret(_: Asked, export: Opened, __: Mapping[str, Held], ___: frozenset[str]) -> bool:
    """No secret column, in any table."""
    return not any(_SECRETS & row.keys() for table in export.tables.values() for row in table)


def _informs(asked: Asked, export: Opened, _: Mapping[str, Held], __: frozenset[str]) -> bool:
    """Beside the copy stands what Art. 15(1) and (2) demand; the figures are counted by hand in policy.yaml."""
    if asked.right is not Right.ACCESS:
        return True
    told = export.information
    abroad = [recipient for recipient in told.get("recipients", []) if recipient.get("country") == "US"]
    return (
        len(told.get("purposes", [])) == _PURPOSES
        and len(told.get("categories", {})) == _CATEGORIES
        and len(told.get("recipients", [])) == _RECIPIENTS
        and len(abroad) == _RECIPIENTS_IN_US
        and all(recipient.get("safeguard") for recipient in abroad)
        and {"execution", "task_content", "account", "invoices"} <= set(told.get("retention", {}))
        and len(told.get("rights", [])) == _RIGHTS
        and bool(told.get("complaint", {}).get("authority"))
        and told.get("automated_decisions") == []
    )


_JUDGES: Final[Mapping[str, Judge]] = {
    "holds every row": _is_complete,
    "holds nobody else's rows": _is_own,
    "shows no secret": _shows_no_secret,
    "tells purposes, recipients and rights": _informs,
}
