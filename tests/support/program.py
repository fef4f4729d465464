"""The program `habeas` as an operator runs it: a process of its own, with the fleet's addresses in its environment."""

import asyncio
import os
import sys
from pathlib import Path
from typing import NamedTuple

from tests.support.stage import Stage
from tests.support.waiting import HANGS_S


class Ran(NamedTuple):
    """How a command ended, and what it wrote."""

    code: int
    text: str


async def run_habeas(stage: Stage, *arguments: str, answer: str = "") -> Ran:
    """Run a command to its end, typing the ``answer`` when it asks. Raises TimeoutError, after ending it, when it hangs."""
    env = {
        **os.environ,
        "HABEAS_ENVIRONMENT": "development",
        "HABEAS_KAFKA_BOOTSTRAP": stage.servers.kafka_bootstrap,
        "HABEAS_ADMIN_DATABASE_DSN": stage.access.admin_dsn,
        "HABEAS_OPERATOR_DATABASE_DSN": stage.access.operator_dsn,
    }
    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("habeas")), *arguments),
        env=env,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(HANGS_S):
            out, _ = await process.communicate(answer.encode())
    except TimeoutError:
        process.kill()
        raise
    return Ran(process.returncode or 0, out.decode())
