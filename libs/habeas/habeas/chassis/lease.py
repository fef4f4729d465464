"""Leases of sweeps' attempts: renewed for as long as the process works on them, and run out soon after it died.

Rows that a sweep has claimed are due again when their lease ends, so a short lease is what makes a dead replica's work go on
quickly, and renewing it is what lets an attempt take as long as it has to. It is no fence: whoever finishes compares the version.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from habeas.chassis import log
from habeas.chassis.database import TRANSIENT, Database, Transaction
from habeas.chassis.waiting import wait_any


@asynccontextmanager
async def leased(db: Database, lease: timedelta, renew: str, *args: object) -> AsyncIterator[None]:
    """Run ``renew`` each third of the lease until the block ends; its first argument is the lease's new end, ``args`` follow.

    While the database is away nothing is renewed: then others may take the work up, and this attempt's result will not count.
    """
    done = asyncio.Event()
    keeping = asyncio.create_task(_keep(db, lease, renew, args, done))
    try:
        yield
    finally:
        done.set()
        await keeping


async def _keep(db: Database, lease: timedelta, renew: str, args: tuple[object, ...], done: asyncio.Event) -> None:
    async def again(tx: Transaction) -> None:
        await tx.execute(renew, tx.now + lease, *args)

    while not await wait_any(done, done, lease.total_seconds() / 3):
        try:
            await db.run("lease-keep", again)
        except TRANSIENT as error:
            log.event("lease.not_renewed", error=error)
