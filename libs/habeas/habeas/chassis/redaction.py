"""What may leave the process in a log line, a span or a metric: types that cannot carry what a person typed.

Nothing is filtered by looking for what seems personal. A value passes because of its type, and every other value, any
plain string above all, becomes `REDACTED`.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from functools import lru_cache
from itertools import islice
from pathlib import PurePath
from traceback import walk_tb
from types import TracebackType
from typing import Any, Final, TypeAlias, final
from uuid import UUID

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"

REDACTED: Final = "\u2039redacted\u203a"  # single angle marks, which no value in quotes can be confused with

_NAME: Final = re.compile(r"[a-z][a-z0-9_.\-:/ ]{0,80}")
_MEMBERS_MAX: Final = 50
_FRAMES_MAX: Final = 20
_CAUSES_MAX: Final = 4
_PARTS_OF_PATH: Final = 3
_INTEGER_MAX: Final = 2**63 - 1


@final
class Name(str):
    """A word of the program: an event, a topic, a state. Made from literals only, never from what came in a message."""

    __slots__ = ()

    def __new__(cls, literal: str) -> "Name":
        """Make a name, or raise ValueError when the text could not be one; the text is not repeated in the error."""
        if not _NAME.fullmatch(literal):
            raise ValueError(
                "a name is a lower-case letter, then up to 80 lower-case letters, digits, blanks or _ . - : /"
            )
        return super().__new__(cls, literal)


@lru_cache(maxsize=4096)
def named(text: str) -> Name:
    """Make a `Name` as its constructor does, and remember it: for words that come from the program again and again."""
    return Name(text)


@lru_cache(maxsize=4096)
def literal(text: str) -> str:
    """Check once that a literal could be a `Name`, and give it as the plain string that encoders want."""
    return str(Name(text))


@final
class Words(str):
    """Text of which the caller has made sure that it stands in a program as it is, such as a library's message."""

    __slots__ = ()


def clean(value: object) -> Json:
    """Give the value when its type may leave the process, in a form that JSON knows, else `REDACTED`.

    Booleans, numbers, names, members of enums, ids and times pass; collections pass member by member, up to 50;
    exceptions pass as their classes and frames.
    """
    kind = type(value)
    if value is None or isinstance(value, bool | float):
        return value
    if kind is str:
        return REDACTED
    convert = _CONVERSIONS.get(kind)
    if convert is not None:
        return convert(value)
    for base, convert in _CONVERSIONS.items():
        if isinstance(value, base):
            return convert(value)
    return REDACTED


def describe(error: BaseException) -> dict[str, Json]:
    """Tell an exception by its class and frames, and its causes likewise; never by its message, which may hold data."""
    described = _describe_one(error)
    causes: list[Json] = []
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    while cause is not None and len(causes) < _CAUSES_MAX:
        causes.append(_describe_one(cause))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    if causes:
        described["causes"] = causes
    if isinstance(error, BaseExceptionGroup):
        described["members"] = [describe(each) for each in error.exceptions[:_CAUSES_MAX]]
    return described


def frames_of(traceback: TracebackType | None) -> list[str]:
    """Give the innermost frames of a traceback, outermost first, each as file:line:function."""
    frames = [
        place(frame.f_code.co_filename, line, frame.f_code.co_name)
        for frame, line in (walk_tb(traceback) if traceback is not None else ())
    ]
    return frames[-_FRAMES_MAX:]


def place(path: str, line: int, function: str) -> str:
    """Write a place in the code, with the last parts of its path only: where the checkout lies is nobody's business."""
    short = "/".join(PurePath(path.lstrip("/")).parts[-_PARTS_OF_PATH:])
    return f"{short}:{line}:{function}"


def class_name(error: BaseException) -> str:
    """Give the class of an exception with its module, as Python writes it; builtins without."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _describe_one(error: BaseException) -> dict[str, Json]:
    frames: list[Json] = [*frames_of(error.__traceback__)]
    return {"class": class_name(error), "frames": frames}


def _integer(value: int) -> Json:
    return int(value) if -_INTEGER_MAX <= value <= _INTEGER_MAX else REDACTED


def _moment(moment: datetime) -> str:
    if moment.tzinfo is None:
        return moment.isoformat()
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _member(member: Enum) -> Json:
    return str(member.value) if isinstance(member.value, str) else clean(member.value)


def _members(values: Iterable[object]) -> list[Json]:
    return [clean(value) for value in islice(values, _MEMBERS_MAX)]


# Order matters for subclasses: members of enums are often int or str too, and a datetime is a date.
_CONVERSIONS: Final[Mapping[type, Callable[[Any], Json]]] = {
    Enum: _member,
    int: _integer,
    Name: str,
    Words: str,
    UUID: str,
    datetime: _moment,
    date: date.isoformat,
    timedelta: timedelta.total_seconds,
    BaseException: describe,
    tuple: _members,
    list: _members,
    set: _members,
    frozenset: _members,
}
