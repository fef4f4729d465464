"""Logs: one JSON line for each event on standard output, which cannot carry a value that a person gave us.

An event has a literal name and typed fields; `redaction.clean` decides by type what passes. What libraries log comes in
through `foreign_log`, which is as strict. One wide event for each message or batch is the style of the house.
"""

import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

import orjson
from opentelemetry.trace import get_current_span

from habeas.chassis import foreign_log
from habeas.chassis.clock import Clock, SystemClock
from habeas.chassis.redaction import Name, Words, clean
from habeas.chassis.settings import LogLevel

__all__ = ["LogLevel", "Name", "Words", "configure", "enabled_for_messages", "event", "is_logged", "level", "set_level"]

_RANK: Final = {LogLevel.DEBUG: 0, LogLevel.INFO: 1, LogLevel.WARNING: 2, LogLevel.ERROR: 3}
_NAMES_MAX: Final = 4096
_REFUSED: Final = "log.name_refused"


class _Log:
    """Where events go. Until `configure` ran, only warnings and errors are written, to standard error."""

    def __init__(self) -> None:
        self.rank = _RANK[LogLevel.WARNING]
        self.level = LogLevel.WARNING
        self.clock: Clock = SystemClock()
        self.service: str | None = None
        self.instance: int | None = None
        self.write: Callable[[bytes], object] = _to_standard_error
        self.failed = 0  # lines that could not be written since the last that could


def _to_standard_error(line: bytes) -> None:
    sys.stderr.write(line.decode())


def _to_standard_output(line: bytes) -> None:
    output = sys.stdout.buffer
    output.write(line)
    output.flush()


_log = _Log()
_known_names: set[str] = set()


def configure(
    service: str,
    log_level: LogLevel = LogLevel.INFO,
    *,
    instance: int = 0,
    clock: Clock | None = None,
    write: Callable[[bytes], object] = _to_standard_output,
) -> None:
    """Log for `service` from now on; `write` takes one whole line at a time.

    Also takes over what libraries log (`foreign_log`), and makes uncaught exceptions end up in the log by class and
    frames: Python itself would print their messages. Idempotent.
    """
    _log.service = Name(service)
    _log.instance = instance
    _log.clock = SystemClock() if clock is None else clock
    _log.write = write
    set_level(log_level)
    foreign_log.adopt(event, is_logged, _log.clock)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable


def set_level(log_level: LogLevel) -> None:
    """Change, while running, which events are logged: those of `log_level` and the more severe ones."""
    _log.level = log_level
    _log.rank = _RANK[log_level]


def level() -> LogLevel:
    """Give the least severe level that is logged."""
    return _log.level


def is_logged(severity: LogLevel) -> bool:
    """Whether events of this severity are logged now; ask before gathering fields that cost something."""
    return _RANK[severity] >= _log.rank


def enabled_for_messages() -> bool:
    """Whether the one line for each message, at level info, is logged now."""
    return is_logged(LogLevel.INFO)


def event(name: str, /, *, severity: LogLevel | None = None, **fields: object) -> None:
    """Log one event with its fields; a value whose type may not leave the process becomes `redaction.REDACTED`.

    Never raises because of a field, and not on a full disk: how many lines failed is told with the next that can be written.
    `name` is a literal; one that could not be a `Name` is logged as log.name_refused.
    Without a severity it is information, or a warning when a field is an exception. The trace that is going on is told
    by `trace_id`.
    """
    if severity is None:
        failed = any(isinstance(value, BaseException) for value in fields.values())
        severity = LogLevel.WARNING if failed else LogLevel.INFO
    if _RANK[severity] < _log.rank:
        return
    now = _log.clock.now()
    line: dict[str, Any] = {
        "time": now,
        "level": severity.value,
        "event": name if name in _known_names else _check(name),
        "service": _log.service,
        "instance": _log.instance,
    }
    trace = get_current_span().get_span_context()
    if trace.is_valid:
        line["trace_id"] = f"{trace.trace_id:032x}"
    for key, value in fields.items():
        checked = key if key in _known_names else _check(key)
        line[checked if checked not in line else f"field.{checked}"] = clean(value)
    try:
        _log.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z))
    except OSError:
        _log.failed += 1
        return
    if _log.failed:
        lines, _log.failed = _log.failed, 0
        event("log.write_failed", severity=LogLevel.WARNING, lines=lines)


def _check(name: str) -> str:
    """Let a literal pass and remember it; names that come without end are data, and are not remembered."""
    try:
        Name(name)
    except ValueError:
        return _REFUSED
    if len(_known_names) >= _NAMES_MAX:
        return _REFUSED
    _known_names.add(name)
    return str(name)


def _uncaught(_kind: type[BaseException], error: BaseException, _traceback: TracebackType | None) -> None:
    if isinstance(error, KeyboardInterrupt):
        return
    event("process.error_uncaught", severity=LogLevel.ERROR, error=error)


def _uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    event("thread.error_uncaught", severity=LogLevel.ERROR, error=arguments.exc_value)


def _unraisable(arguments: "sys.UnraisableHookArgs") -> None:
    event("process.error_unraisable", severity=LogLevel.ERROR, error=arguments.exc_value)
