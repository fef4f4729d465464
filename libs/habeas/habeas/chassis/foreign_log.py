"""What libraries log, made safe: their own words pass, what they filled in does not.

A library's message passes when the very text stands as a constant in the function that logged it: then no value is in
it, at most places for values. Any other message was put together while running and becomes `REDACTED`, except for the
names of known exceptions in it. Some libraries repeat themselves several times a second while a server is away, so each
message of each logger is let through a few times and then at long intervals, with the number left out.
"""

import builtins
import inspect
import logging
import re
from collections.abc import Callable
from functools import cache
from types import FrameType
from typing import Final, Protocol

import aiokafka.errors
from typing_extensions import override

from habeas.chassis.clock import Clock
from habeas.chassis.redaction import REDACTED, Words, place
from habeas.chassis.settings import LogLevel


class Say(Protocol):
    """Writes one event; this is `log.event`."""

    def __call__(self, name: str, /, *, severity: LogLevel | None = None, **fields: object) -> None:
        """Write it."""
        ...


_LIBRARIES: Final = ("aiokafka", "asyncio", "asyncpg", "faststream", "opentelemetry", "psycopg", "uvicorn", "yoyo")
_BURST: Final = 3
_INTERVAL_S: Final = 30.0
_MESSAGES_MAX: Final = 1_000
_FRAMES_MAX: Final = 30
_LOGGER: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]{0,100}")
_CAPITALISED: Final = re.compile(r"\b[A-Z][A-Za-z]{2,60}\b")


def adopt(say: Say, is_logged: Callable[[LogLevel], bool], clock: Clock) -> None:
    """Take over the log of every library in the process: `say` writes an event when `is_logged` lets its severity.

    Idempotent. Loggers of libraries lose the handlers that they made themselves, so that nothing is written past this
    one; FastStream makes its own at each start unless it is given a logger: give it `logging.getLogger("faststream")`.
    """
    root = logging.getLogger()
    root.handlers = [Foreign(say, is_logged, clock)]
    root.setLevel(logging.INFO)
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in _LIBRARIES]
    for name in (*_LIBRARIES, *names):
        library = logging.getLogger(name)
        library.handlers = []
        library.propagate = True


class Foreign(logging.Handler):
    """Turns records of the standard library's logging into events `library.said`.

    Information from libraries is only logged while our own level is debug; warnings and errors follow our level.
    """

    def __init__(self, say: Say, is_logged: Callable[[LogLevel], bool], clock: Clock) -> None:
        super().__init__()
        self._say = say
        self._is_logged = is_logged
        self._clock = clock
        self._repeats: dict[tuple[str, str], _Repeats] = {}

    @override
    def emit(self, record: logging.LogRecord) -> None:
        severity = _severity(record.levelno)
        if not self._is_logged(severity) or (severity is LogLevel.INFO and not self._is_logged(LogLevel.DEBUG)):
            return
        origin = place(record.pathname, record.lineno, record.funcName)
        left_out = self._left_out(record.name, origin)
        if left_out is None:
            return
        fields: dict[str, object] = {"message": _words(record), "origin": Words(origin)}
        if _LOGGER.fullmatch(record.name):
            fields["logger"] = Words(record.name)
        if left_out:
            fields["left_out"] = left_out
        if record.exc_info:  # event loops say False where there is none
            fields["error"] = record.exc_info[1]
        self._say("library.said", severity=severity, **fields)

    def _left_out(self, logger: str, origin: str) -> int | None:
        """Give how many were left out since the last one was let through, or None to leave this one out too."""
        if len(self._repeats) >= _MESSAGES_MAX:
            self._repeats.clear()
        repeats = self._repeats.setdefault((logger, origin), _Repeats())
        return repeats.count(self._clock.monotonic())


class _Repeats:
    __slots__ = ("left_out", "let_through", "since")

    def __init__(self) -> None:
        self.let_through = 0
        self.left_out = 0
        self.since = 0.0

    def count(self, now: float) -> int | None:
        if self.let_through >= _BURST and now - self.since < _INTERVAL_S:
            self.left_out += 1
            return None
        self.let_through += 1
        self.since = now
        left_out, self.left_out = self.left_out, 0
        return left_out


def _severity(levelno: int) -> LogLevel:
    if levelno >= logging.ERROR:
        return LogLevel.ERROR
    if levelno >= logging.WARNING:
        return LogLevel.WARNING
    return LogLevel.INFO if levelno >= logging.INFO else LogLevel.DEBUG


def _words(record: logging.LogRecord) -> Words:
    """Give the library's own words, without what it filled in."""
    if isinstance(record.msg, str):
        frame = _frame_of(record)
        if frame is not None and record.msg in frame.f_code.co_consts:
            return Words(record.msg)
    named = sorted(set(_CAPITALISED.findall(str(record.msg))) & _exceptions())
    return Words(" ".join((REDACTED, *named)))


def _frame_of(record: logging.LogRecord) -> FrameType | None:
    frame = inspect.currentframe()
    for _ in range(_FRAMES_MAX):
        if frame is None:
            return None
        if frame.f_code.co_filename == record.pathname and frame.f_code.co_name == record.funcName:
            return frame
        frame = frame.f_back
    return None


@cache
def _exceptions() -> frozenset[str]:
    """Give the names of exceptions that help when a library put the class into its message."""
    return frozenset(
        name
        for module in (builtins, aiokafka.errors)
        for name, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, BaseException)
    )
