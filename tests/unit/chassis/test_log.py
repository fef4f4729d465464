"""Logs that cannot carry values."""

import errno
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from habeas.chassis import foreign_log, log
from habeas.chassis.clock import FakeClock
from habeas.chassis.log import LogLevel, Name
from habeas.chassis.redaction import REDACTED, clean, literal
from tests.support.waiting import HANGS_S

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
PERSON = "ada.lovelace@example.org"


class Colour(StrEnum):
    """A closed vocabulary."""

    RED = "Red wine"


class Size(IntEnum):
    """A closed vocabulary of numbers."""

    BIG = 3


class Log:
    """What was logged."""

    def __init__(self) -> None:
        self.clock = FakeClock(NOON)
        self.lines: list[bytes] = []

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines, read."""
        return [json.loads(line) for line in self.lines]

    @property
    def last(self) -> dict[str, Any]:
        """The last line, read."""
        return self.events[-1]


@pytest.fixture
def logged() -> Iterator[Log]:
    """The log of a configured service; everything global is put back afterwards."""
    root = logging.getLogger()
    before = (dict(vars(log._log)), root.handlers, root.level)
    hooks = (sys.excepthook, threading.excepthook, sys.unraisablehook)
    sink = Log()
    log.configure("erasure-executor", instance=2, clock=sink.clock, write=sink.lines.append)
    yield sink
    vars(log._log).update(before[0])
    root.handlers, root.level = before[1:]
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks


def test_one_line_of_json_says_what_when_where(logged: Log) -> None:
    """An event is one line with time, level, event, service and instance first."""
    log.event("message.handled", rows=3)
    assert logged.lines == [
        (
            b'{"time":"2026-11-24T12:00:00Z","level":"info","event":"message.handled","service":"erasure-executor",'
            b'"instance":2,"rows":3}\n'
        )
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        (True, True),
        (-7, -7),
        (2.5, 2.5),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (NOON, "2026-11-24T12:00:00Z"),
        (date(2026, 11, 24), "2026-11-24"),
        (timedelta(minutes=1), 60.0),
        (Name("erase plan"), "erase plan"),
        (Colour.RED, "Red wine"),
        (Size.BIG, 3),
        ([1, Name("a"), PERSON], [1, "a", REDACTED]),
        (PERSON, REDACTED),
        (PERSON.encode(), REDACTED),
        ({"name": PERSON}, REDACTED),
        (2**64, REDACTED),
        (object(), REDACTED),
    ],
)
def test_type_decides_what_passes(logged: Log, value: object, shown: object) -> None:
    """What cannot carry a person's text is shown, everything else is redacted."""
    log.event("x", value=value)
    assert logged.last["value"] == shown


@given(st.recursive(st.text(min_size=1), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_no_text_passes(value: object) -> None:
    """No plain text passes, however it is nested."""
    cleaned = json.dumps(clean(value), ensure_ascii=False)
    assert cleaned.replace(REDACTED, "").strip('[], "') == ""


def test_long_collections_are_cut() -> None:
    """A collection shows its first 50 members."""
    assert clean(list(range(1000))) == list(range(50))


def test_exceptions_show_class_and_frames_only(logged: Log) -> None:
    """An exception is told by class, frames and causes; no message of any of them is shown; it is a warning."""
    try:
        try:
            raise KeyError(PERSON)
        except KeyError as error:
            raise ValueError(PERSON) from error
    except ValueError as error:
        log.event("x", error=error)
    assert PERSON not in logged.lines[-1].decode()
    assert logged.last["level"] == "warning"
    assert logged.last["error"]["class"] == "ValueError"
    assert [cause["class"] for cause in logged.last["error"]["causes"]] == ["KeyError"]
    assert logged.last["error"]["frames"][0].endswith("test_exceptions_show_class_and_frames_only")


def test_groups_show_their_members(logged: Log) -> None:
    """A group of exceptions is told member by member, without messages."""
    log.event("x", error=ExceptionGroup(PERSON, [ValueError(PERSON), TypeError(PERSON)]))
    assert [member["class"] for member in logged.last["error"]["members"]] == ["ValueError", "TypeError"]
    assert PERSON not in logged.lines[-1].decode()


def test_names_are_checked() -> None:
    """Data that is passed off as a name is refused, without repeating it."""
    for text in ("", PERSON, "Ada", "1a", "ä", "a" * 82, "a\n"):
        with pytest.raises(ValueError, match="a name is") as raised:
            Name(text)
        assert text == "" or text not in str(raised.value)


def test_wrong_event_and_field_names_do_not_break_or_leak(logged: Log) -> None:
    """An event or field that is no name loses its name, not the program its way."""
    fields: dict[str, Any] = {PERSON: 1}
    log.event(PERSON, **fields)
    assert PERSON not in logged.lines[-1].decode()
    assert logged.last["event"] == "log.name_refused"


def test_fields_do_not_overwrite_the_head(logged: Log) -> None:
    """A field called like a part of the head stands beside it."""
    log.event("x", level=5, service=6)
    assert (logged.last["level"], logged.last["service"]) == ("info", "erasure-executor")
    assert (logged.last["field.level"], logged.last["field.service"]) == (5, 6)


def test_level_changes_while_running(logged: Log) -> None:
    """Events below the level are not written; the level may change at any time."""
    log.set_level(LogLevel.ERROR)
    log.event("x", severity=LogLevel.WARNING)
    assert not log.enabled_for_messages()
    log.set_level(LogLevel.DEBUG)
    log.event("y", severity=LogLevel.DEBUG)
    assert log.level() is LogLevel.DEBUG
    assert [event["event"] for event in logged.events] == ["y"]


def test_libraries_speak_in_their_own_words_only(logged: Log) -> None:
    """A library's constant template is logged, what it fills in is not."""
    logging.getLogger("aiokafka.client").warning("Unable to reach %s: %s", PERSON, ValueError(PERSON))
    assert logged.last["message"] == "Unable to reach %s: %s"
    assert (logged.last["logger"], logged.last["level"]) == ("aiokafka.client", "warning")
    assert PERSON not in logged.lines[-1].decode()


def test_ready_made_messages_are_redacted_but_for_exceptions(logged: Log) -> None:
    """A message that was put together before is redacted; the names of known exceptions in it stay."""
    logging.getLogger("faststream").error("KafkaConnectionError: %s LovelaceError" % PERSON)  # noqa: G002, UP031 -- ready-made, as FastStream does it
    assert logged.last["message"] == f"{REDACTED} KafkaConnectionError"


def test_a_librarys_exceptions_show_no_message(logged: Log) -> None:
    """A traceback that a library logs becomes class and frames."""
    try:
        raise ValueError(PERSON)
    except ValueError:
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application\n")
    assert logged.last["error"]["class"] == "ValueError"
    assert PERSON not in logged.lines[-1].decode()


def test_a_library_may_say_that_there_is_no_exception(logged: Log) -> None:
    """An event loop reports what was never closed with an exception that is false and not absent: the report is what is logged."""
    logging.getLogger("asyncio").error("Unclosed %s", "connection", exc_info=False)
    assert logged.last["event"] == "library.said"
    assert logged.last["message"] == "Unclosed %s"
    assert "error" not in logged.last


def test_chatter_of_libraries_is_for_debugging(logged: Log) -> None:
    """Information from libraries is logged only while our own level is debug."""
    logging.getLogger("aiokafka").info("Joined group")
    log.set_level(LogLevel.DEBUG)
    logging.getLogger("aiokafka").info("Left group")
    assert [event["message"] for event in logged.events] == ["Left group"]


def test_a_library_that_repeats_itself_is_slowed_down(logged: Log) -> None:
    """The same line of code is let through three times, then every half minute with the number left out."""
    for number in range(100):
        if number == 98:
            assert len(logged.lines) == 3
            logged.clock.advance(timedelta(seconds=31))
        logging.getLogger("aiokafka.cluster").error("Topic %s is not available", "x")
    assert len(logged.lines) == 4
    assert logged.last["left_out"] == 95


def test_adopting_twice_is_as_once(logged: Log) -> None:
    """Whoever takes over the libraries' logs again does not double the lines."""
    foreign_log.adopt(log.event, log.is_logged, logged.clock)
    logging.getLogger("asyncpg").error("x")
    assert len(logged.lines) == 1


def test_uncaught_exceptions_end_up_in_the_log() -> None:
    """What Python would print with its message is logged by class and frames, on standard output and nowhere else."""
    program = (
        "from habeas.chassis import log; import threading\n"
        "log.configure('x')\n"
        f"def fail(): raise ValueError('{PERSON}')\n"
        "thread = threading.Thread(target=fail); thread.start(); thread.join()\n"
        "fail()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=HANGS_S, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr == ""
    events = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [event["event"] for event in events] == ["thread.error_uncaught", "process.error_uncaught"]
    assert PERSON not in ended.stdout


def test_a_full_disk_ends_no_service(logged: Log) -> None:
    """A line that cannot be written is no reason to stop; how many failed is told as soon as one can be written again."""
    is_full = True

    def write(line: bytes) -> None:
        if is_full:
            raise OSError(errno.ENOSPC, "no space left")
        logged.lines.append(line)

    log.configure("tests", clock=logged.clock, write=write)
    log.event("test.lost")
    log.event("test.lost_too")
    is_full = False
    log.event("test.written")
    log.event("test.written_too")
    told = [(each["event"], each.get("lines")) for each in logged.events]
    assert told == [("test.written", None), ("log.write_failed", 2), ("test.written_too", None)]


def test_literals_are_plain_strings() -> None:
    """Encoders get plain strings, as they refuse subclasses for keys."""
    assert type(literal("a.b")) is str
