"""The key that wraps all others is changed while requests run and services are killed: all complete, without the old key."""

import asyncio
import datetime as dt
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
from pydantic import HttpUrl

from habeas.contracts.platform import PolicyChanged
from habeas.contracts.vocabulary import Right
from habeas.sealing.kek import RingTokens, kek_id_of, read_ring
from habeas_demo.histories import Size
from habeas_embedded.provision import SERVICES
from tests.support.program import run_habeas
from tests.support.stage import Stage, raised
from tests.support.waiting import HANGS_S, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

REQUESTS: Final = int(os.environ.get("HABEAS_ROTATION_REQUESTS", "60"))
KILLS: Final = 8
RIGHTS: Final = (Right.ERASURE, Right.ACCESS, Right.PORTABILITY)
SQL_OLD_KEYS: Final = (
    "SELECT (SELECT count(*) FROM sealing.subject_keys WHERE kek_id = $1)"
    " + (SELECT count(*) FROM notification_mailer.campaigns WHERE kek_id = $1)"
)


@asynccontextmanager
async def supervised(stage: Stage) -> AsyncIterator[asyncio.TaskGroup]:
    """Bring back whoever dies, as whatever runs a fleet does; gives the group of its tasks."""
    stopping = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(stage.fleet.supervise(stopping))
        try:
            yield group
        finally:
            stopping.set()


async def rotate(stage: Stage, *, cut_off: bool) -> int:
    """Run the command as an operator does; `cut_off` ends it by SIGKILL as soon as the ring has changed. Gives its exit code."""
    before = read_ring(stage.fleet.kek_file)
    command = (str(Path(sys.executable).with_name("habeas")), "keys", "rotate", "--kek-file", str(stage.fleet.kek_file))
    env = {**os.environ, "HABEAS_ADMIN_DATABASE_DSN": stage.access.admin_dsn}
    process = await asyncio.create_subprocess_exec(*command, env=env, stdout=asyncio.subprocess.DEVNULL)
    if cut_off:
        await until(lambda: read_ring(stage.fleet.kek_file) != before, "the first step of the rotation")
        if process.returncode is None:
            process.kill()
    async with asyncio.timeout(HANGS_S):
        return await process.wait()


async def load_and_kills(stage: Stage, rng: random.Random) -> list[object]:
    """Ask for everything, and kill some service whenever a part of it is done; gives the requests."""
    people = stage.take(REQUESTS)
    asked = [await stage.ask(RIGHTS[number % len(RIGHTS)], person) for number, person in enumerate(people)]
    for kill in range(1, KILLS + 1):

        async def is_due(part: int = REQUESTS * kill // (KILLS + 1)) -> bool:
            await stage.heard.listen()
            return len(stage.heard.completed.keys() & set(asked)) >= part

        await until(is_due, f"the moment of kill {kill}", stage.progress)
        member = stage.fleet.member(rng.choice(SERVICES))
        if member.alive:
            await stage.fleet.kill(member.service)
    return list(asked)


async def test_keys_are_rotated_under_load_and_kills() -> None:
    """All requests complete, a campaign too; nothing is wrapped by the old key, which leaves the ring; and a restart goes on."""
    size = Size(accounts=REQUESTS * 2 + 20, logs_each=2, tasks_each=1)
    async with raised(f"tests-rotation-{os.getpid()}", size=size) as stage:
        old = RingTokens.parse(read_ring(stage.fleet.kek_file))
        now = stage.clock.now()
        change = PolicyChanged(
            change_id="rotation",
            material=True,
            published_at=now,
            effective_on=(now + dt.timedelta(days=60)).date(),
            version="rotation",
            summary={"en": "Something changes."},
            url=HttpUrl("https://example.org/privacy"),
        )
        async with supervised(stage) as group:
            await stage.publisher.policy_change(change)
            working = group.create_task(load_and_kills(stage, random.Random(7)))  # noqa: S311 -- which service dies is no secret
            await until(lambda: stage.heard.count > REQUESTS // 2 or working.done(), "a fleet at work", stage.progress)
            assert await rotate(stage, cut_off=True) in (0, -signal.SIGKILL)
            assert await rotate(stage, cut_off=False) == 0
            asked = await working

            async def all_done() -> bool:
                await stage.heard.listen()
                ended = await stage.habeas.fetchval(
                    "SELECT count(*) FROM notification_mailer.campaigns WHERE state = 'notified'"
                )
                return set(asked) <= stage.heard.completed.keys() and ended == 1

            await until(all_done, f"{REQUESTS} completions and the campaign", stage.progress)
        new = RingTokens.parse(read_ring(stage.fleet.kek_file))
        assert (len(new.wrap), new.next, new.derive) == (1, None, old.derive)
        assert not set(old.wrap) & set(new.wrap)
        assert await stage.habeas.fetchval(SQL_OLD_KEYS, kek_id_of(old.wrap[0])) == 0
        assert await stage.parked() == {}
        await stage.fleet.stop()
        await stage.fleet.start()
        await stage.completed(*[await stage.ask(right, stage.take_one()) for right in RIGHTS])
        assert (await run_habeas(stage, "status", "--check")).code == 0
