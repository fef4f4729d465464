"""The platform's database on a server: made, filled, and opened to each service with the role that it needs."""

import datetime as dt
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import asyncpg

from habeas_demo.generator import Loaded, create_platform, load_platform
from habeas_demo.histories import Size
from habeas_embedded.provision import create_database, drop_database, with_database, with_role

ROLES: Final = MappingProxyType(
    {
        "request-intake": "habeas_intake",
        "erasure-executor": "habeas_eraser",
        "export-builder": "habeas_exporter",
        "retention-sweeper": "habeas_sweeper",
        "notification-mailer": "habeas_mailer",
    }
)
"""Which role of roles.sql each service has in the platform's database; audit-ledger has none."""


@dataclass(frozen=True, slots=True)
class PlatformAccess:
    """How to reach the platform's database: as its owner, and as each service. Holds passwords, so it shows none."""

    database: str
    owner_dsn: str = field(repr=False)
    service_dsns: Mapping[str, str] = field(repr=False)
    loaded: Loaded = field(repr=False)


async def prepare_platform(
    admin_dsn: str, *, seed: int, now: dt.datetime, size: Size | None = None, database: str = "platform"
) -> PlatformAccess:
    """Make the database anew, dropping an earlier one, fill it, and give every role a fresh password.

    Roles belong to the whole server: of two platforms on one server, the later one's passwords count.
    """
    await drop_database(admin_dsn, database)
    await create_database(admin_dsn, database)
    owner_dsn = with_database(admin_dsn, database)
    conn = await asyncpg.connect(owner_dsn)
    try:
        await create_platform(conn)
        loaded = await load_platform(conn, seed=seed, now=now, size=size)
        dsns = {}
        for service, role in ROLES.items():
            password = secrets.token_hex(24)
            statement = await conn.fetchval(
                "SELECT format('ALTER ROLE %I PASSWORD %L', $1::text, $2::text)", role, password
            )
            await conn.execute(statement)
            dsns[service] = with_role(owner_dsn, role, password)
    finally:
        await conn.close()
    return PlatformAccess(database, owner_dsn, MappingProxyType(dsns), loaded)
