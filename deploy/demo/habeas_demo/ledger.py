"""The audit log as an auditor takes it: the published directory, the key, and nothing of the services' word."""

import asyncio
from pathlib import Path
from typing import Final

import asyncpg

from habeas.auditlog.notes import Verifier
from habeas.auditlog.verify import verify_log
from habeas_demo.checks import Check

_LIMIT_S: Final = 15.0
_LOOK_S: Final = 0.25
_COUNT: Final = """
    SELECT (SELECT count(*) FROM request_intake.audit_outbox) + (SELECT count(*) FROM erasure_executor.audit_outbox)
         + (SELECT count(*) FROM export_builder.audit_outbox) + (SELECT count(*) FROM retention_sweeper.audit_outbox)
         + (SELECT count(*) FROM notification_mailer.audit_outbox) + (SELECT count(*) FROM audit_ledger.audit_outbox)
         + (SELECT count(*) FROM request_intake.audit_lines) + (SELECT count(*) FROM erasure_executor.audit_lines)
         + (SELECT count(*) FROM export_builder.audit_lines) + (SELECT count(*) FROM retention_sweeper.audit_lines)
         + (SELECT count(*) FROM notification_mailer.audit_lines) + (SELECT count(*) FROM audit_ledger.audit_lines)
"""


async def check_audit_log(directory: Path, admin_dsn: str) -> Check:
    """Wait until the log holds every entry that the services have written, then verify all of it offline."""
    conn = await asyncpg.connect(admin_dsn)
    try:
        wanted = await conn.fetchval(_COUNT)
    finally:
        await conn.close()
    size, holds, failed = 0, False, ""
    try:
        async with asyncio.timeout(_LIMIT_S):
            while not holds or size < wanted:
                size, holds, failed = await asyncio.to_thread(_verified, directory)
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        pass  # what was seen last is judged
    detail = f"{size} entries signed, {wanted} written by the services{failed}"
    return Check("audit · every entry is in the log, and the log verifies", holds and size >= wanted, detail)


def _verified(directory: Path) -> tuple[int, bool, str]:
    key = directory / "vkey"
    if not key.exists():
        return 0, False, "; nothing was published"
    report = verify_log(directory, Verifier.parse(key.read_text().strip()), key_source="the run's directory")
    failed = ", ".join(str(finding.check) for finding in report.findings if str(finding.verdict) == "FAIL")
    return report.size or 0, report.ok, f"; failed: {failed}" if failed else ""
