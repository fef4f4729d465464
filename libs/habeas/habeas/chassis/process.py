"""The process around a service: settings in, exit code out."""

import asyncio
import gc
import sys
from collections.abc import Callable
from typing import Final, NoReturn, TypeVar

import uvloop

from habeas.chassis.environment import SettingsError
from habeas.chassis.service import Service

T = TypeVar("T")

_EXIT_WRONG_USE: Final = 2
_YOUNG_OBJECTS: Final = 20_000  # a batch of messages is a few thousand objects, all of which live until it is done


def main(load: Callable[[], T], build: Callable[[T], Service], refused: type[Exception] = SettingsError) -> NoReturn:
    """Load settings, build the service, run it, exit with its code: 0 stopped, 2 wrong configuration, 65, 70 or 75 failed.

    ``refused`` is what ``build`` raises for a configuration that a person has to mend; its text is written, and holds no secret.
    """
    try:
        settings = load()
    except SettingsError as error:
        _refuse(error)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            service = build(settings)
        except refused as error:
            _refuse(error)
        _collect_less()
        sys.exit(runner.run(service.run()))


def _refuse(error: Exception) -> NoReturn:
    sys.stderr.write(f"{error}\n")
    sys.exit(_EXIT_WRONG_USE)


def _collect_less() -> None:
    """Leave what the program itself is made of out of garbage collection, and look at new objects less often.

    Collecting took an eighth of the services' time: every batch is thousands of new objects, and each of its passes over all that was
    imported stops the service for tens of milliseconds.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 20, 20)
