"""The process around a service: settings in, exit code out."""

import asyncio
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

import uvloop

from habeas.chassis.environment import SettingsError
from habeas.chassis.service import Service

T = TypeVar("T")

_EXIT_WRONG_USE = 2


def main(load: Callable[[], T], build: Callable[[T], Service]) -> NoReturn:
    """Load settings, build the service, run it, exit with its code: 0 stopped, 2 wrong configuration, 65, 69, 70 or 75 failed."""

    async def run() -> int:
        return await build(settings).run()

    try:
        settings = load()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(_EXIT_WRONG_USE)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(run()))
