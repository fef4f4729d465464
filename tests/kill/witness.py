"""The demonstration's witness of the platform, with notes that survive the death of its database server."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from habeas_demo.checks import Check, Witness
from habeas_demo.generator import Connection
from habeas_demo.looks import MAKE_NOTES


@dataclass(frozen=True, slots=True)
class LastingWitness:
    """Every row of the platform as it was, in a file; compared by the demonstration's own statements."""

    notes: Path
    as_of: dt.datetime | None
    digests: dict[str, str | None] = field(repr=False)
    log_days: set[str] = field(repr=False)

    @classmethod
    async def note(cls, dsn: str, as_of: dt.datetime | None, notes: Path) -> Self:
        """Note what is there now."""
        witness = await Witness.open(dsn, as_of)
        try:
            await witness.conn.copy_from_table("before_rows", output=notes)
            return cls(notes, as_of, witness._digests, witness._log_days)
        finally:
            await witness.close()

    async def compare(self, conn: Connection, erased: Sequence[str]) -> list[Check]:
        """Compare now with then, for these erased accounts; every other person is somebody whose rows must stay."""
        if not await conn.fetchval("SELECT to_regclass('pg_temp.before_rows') IS NOT NULL"):
            await conn.execute(MAKE_NOTES.format(name="before_rows"))
            await conn.copy_to_table("before_rows", source=self.notes)
            await conn.execute("CREATE INDEX ON before_rows (table_name, id)")
            await conn.execute("ANALYZE before_rows")
        return await Witness(conn, self.as_of, self.digests, self.log_days).check_platform(erased)
