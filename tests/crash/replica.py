"""One replica of a service as a real process, forked from a server that has all services imported, so that a start costs little."""

import ctypes
import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from habeas.chassis.batch import Batch
from habeas.chassis.database import Transaction
from habeas.chassis.process import main
from habeas.chassis.service import Service
from habeas_embedded.provision import SERVICES
from habeas_embedded.waiting import until

CLUMSY: Final = "CRASH_TEST_CLUMSY"
"""With this variable every handler fails at the first attempt of each message, in a way that nobody foresaw."""

IMPATIENT: Final = "CRASH_TEST_IMPATIENT"
"""With this variable the lease of an erasure's attempt is so short that it has to be renewed at once."""

_PR_SET_PDEATHSIG: Final = 1
_CONTEXT: Final = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])

_BUILDS: Final[dict[str, tuple[Callable[[], Any], Callable[[Any], Service]]]] = {}
for _service in SERVICES:
    _package = _service.replace("-", "_")
    _BUILDS[_service] = (
        importlib.import_module(f"{_package}.settings").Settings.load,
        importlib.import_module(f"{_package}.app").build,
    )


class Replica:
    """A process that is started again and again; everything it says goes into one log."""

    def __init__(self, service: str, environment: Mapping[str, str], log: Path) -> None:
        self.service = service
        self.environment = dict(environment)
        self.log = log
        self._process: Any = None

    def start(self, **more: str) -> None:
        """Start it with these variables more."""
        assert not self.alive
        self.log.parent.mkdir(parents=True, exist_ok=True)
        arguments = (self.service, {**self.environment, **more}, str(self.log))
        self._process = _CONTEXT.Process(target=_run, args=arguments, daemon=True)
        self._process.start()

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.is_alive()

    @property
    def exit_code(self) -> int | None:
        """How it ended; minus the number of the signal that ended it."""
        code: int | None = None if self._process is None else self._process.exitcode
        return code

    async def ends(self, limit_s: float) -> int | None:
        """Wait until it has ended; gives its exit code, None when it runs on."""
        await until(lambda: not self.alive, limit_s)
        return None if self.alive else self.exit_code

    def terminate(self) -> None:
        """Ask it to end in order."""
        self._process.terminate()

    async def stop(self, limit_s: float = 15.0) -> None:
        """Ask it to end in order; kill it when it does not."""
        if self.alive:
            self.terminate()
            if await self.ends(limit_s) is None:
                await self.kill()

    async def kill(self) -> None:
        """End it as a crash would."""
        if self.alive:
            self._process.kill()
            await self.ends(10)


def _run(service: str, environment: Mapping[str, str], log: str) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    os.environ.clear()
    os.environ.update(environment)
    target = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(target, 1)
    os.dup2(target, 2)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 -- for the life of the process
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 -- for the life of the process
    if IMPATIENT in environment:
        vars(importlib.import_module("erasure_executor.lifecycle"))["LEASE"] = timedelta(milliseconds=30)
    load, build = _BUILDS[service]
    main(load, _clumsily(build) if CLUMSY in environment else build)


def _clumsily(build: Callable[[Any], Service]) -> Callable[[Any], Service]:
    def built(settings: Any) -> Service:  # noqa: ANN401 -- each service has its own
        service = build(settings)
        for kind, handler in list(service.handlers.items()):

            async def clumsy(batch: Batch[Any], tx: Transaction, handler: Any = handler) -> None:  # noqa: ANN401 -- any handler
                if any(message.attempts == 0 for message in batch._messages):
                    raise ZeroDivisionError
                await handler(batch, tx)

            service.handlers[kind] = clumsy
        return service

    return built
