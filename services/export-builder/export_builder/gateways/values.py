r"""Values as PostgreSQL spells them, and what becomes of them in JSON and in CSV.

Each value comes as the text that its type reads back. In JSON it is a number, a boolean, an array or an object where every common reader
of JSON then holds the same value (RFC 7493, I-JSON), and that very text as a string where not. So what stands there as a string is always
what PostgreSQL reads, in columns of JSON too: the JSON string `"a"` is exported as the string `"\"a\""`, and JSON's null as `"null"`.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import accumulate
from typing import Any, Final, TypeAlias

import orjson

from habeas.datamap.postgres import Row

Converter: TypeAlias = Callable[[str], Any]

BOM: Final = "\ufeff"
"""Without it spreadsheets take UTF-8 for the machine's old code page."""

_DIGITS_MAX: Final = 15
"""So many decimal digits survive in an IEEE double, whatever they are (C's DBL_DIG)."""

_INTEGER_MAX: Final = 2**53 - 1
"""RFC 7493, 2.2: beyond it a reader may hold another integer."""

_MINUS_ZERO: Final = "-0"

_DEPTH_MAX: Final = 500
"""Half of what readers in Python and Java allow when nobody asks for more."""

_FORMULA: Final = frozenset("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""What a cell must not begin with, by OWASP's page on CSV injection, with the wide forms that some spreadsheets take for the same."""

_GUARD: Final = "'"
_GUARDED: Final = _FORMULA | {_GUARD}

_BLANKS: Final = frozenset(" \t\r\n")
_NOT_FIRST: Final = _BLANKS | {'"', "n"}
_NUL: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*+"')
_BRACKET: Final = re.compile(r"[][{}]")
_STEP: Final = {"[": 1, "{": 1, "]": -1, "}": -1}
_ELEMENT: Final = re.compile(r'"((?:[^"\\]|\\.)*+)"|([{},])|([^{},"]+)')
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)


def json_lines(rows: Iterable[Row], columns: Sequence[str], converters: Mapping[int, Converter]) -> list[bytes]:
    """Return one JSON object for each row."""
    lines = []
    for row in rows:
        values: list[Any] = list(row)
        for at, convert in converters.items():
            value = values[at]
            if value is not None:
                values[at] = convert(value)
        lines.append(orjson.dumps(dict(zip(columns, values, strict=True))))
    return lines


def csv_lines(rows: Iterable[Row], numeric: frozenset[int]) -> str:
    """Return rows as RFC 4180 has it, every value in quotes and NULL without; ``numeric`` are the places of columns of numbers.

    A cell that a spreadsheet could take for a formula gets an apostrophe in front, and so does one that begins with an apostrophe:
    whoever takes one away from every cell that begins with it has the values. A number is no formula.
    """
    return "".join(
        [
            ",".join(
                [
                    ""
                    if value is None
                    else '"' + value.replace('"', '""') + '"'
                    if value[:1] not in _GUARDED
                    else _guarded(value, is_number=at in numeric)
                    for at, value in enumerate(row)
                ]
            )
            + "\r\n"
            for row in rows
        ]
    )


def _guarded(value: str, *, is_number: bool) -> str:
    guard = "" if is_number and value[-1].isdigit() else _GUARD
    return f'"{guard}' + value.replace('"', '""') + '"'


def converters(bases: Sequence[str]) -> dict[int, Converter]:
    """Return what makes JSON of a value, by the place of its column; places that are missing hold text."""
    found = ((at, _CONVERTERS.get(base)) for at, base in enumerate(bases))
    return {at: converter for at, converter in found if converter is not None}


def numbers(bases: Sequence[str]) -> frozenset[int]:
    """Return the places of columns that hold nothing but numbers."""
    return frozenset(at for at, base in enumerate(bases) if base in _NUMBERS)


def holds_exactly(text: str) -> bool:
    """Tell whether common readers of JSON hold this JSON value as it is, and PostgreSQL's ``jsonb`` can take it.

    Not for members of one name, numbers beyond a double, NUL, lone surrogates and arrays in arrays without end (RFC 7493, 2.1 to 2.3).
    """
    try:
        json.loads(text, object_pairs_hook=_members, parse_int=_number, parse_float=_number)
    except (ValueError, RecursionError):
        return False
    return _is_whole_text(text) and _is_flat(text)


def _is_whole_text(text: str) -> bool:
    if "\\u" not in text:
        return True
    if _NUL.search(text):
        return False
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:  # a surrogate alone
        return False
    return True


def _is_flat(text: str) -> bool:
    if text.count("[") + text.count("{") <= _DEPTH_MAX:
        return True
    brackets = _BRACKET.findall(_STRING.sub("", text))
    return max(accumulate(map(_STEP.__getitem__, brackets))) <= _DEPTH_MAX


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        message = "two members of one name"
        raise ValueError(message)
    return members


def _number(spelled: str) -> None:
    if not _is_exact(spelled):
        message = "a number that a double does not hold"
        raise ValueError(message)


def _is_exact(spelled: str) -> bool:
    """Tell whether reading the number as a double and writing that as short as it goes gives the same number.

    Not so for `-0`, of which many readers make the integer 0.
    """
    if spelled == _MINUS_ZERO:
        return False
    if len(spelled) <= _DIGITS_MAX and "e" not in spelled and "E" not in spelled:
        return True
    value = float(spelled)
    if not value or not math.isfinite(value) or (abs(value) > _INTEGER_MAX and spelled.lstrip("-").isdigit()):
        return False
    return Decimal(repr(value)) == Decimal(spelled)


def _boolean(spelled: str) -> bool:
    return spelled[0] == "t"


def _integer(spelled: str) -> int | str:
    if len(spelled) <= _DIGITS_MAX or abs(int(spelled)) <= _INTEGER_MAX:
        return int(spelled)
    return spelled


def _numeric(spelled: str) -> orjson.Fragment | str:
    return orjson.Fragment(spelled) if spelled[-1].isdigit() and _is_exact(spelled) else spelled


def _float(spelled: str) -> orjson.Fragment | str:
    if spelled == _MINUS_ZERO:
        return orjson.Fragment("-0.0")
    return orjson.Fragment(spelled) if spelled[-1].isdigit() else spelled  # not for NaN and the infinities


def _json(spelled: str) -> orjson.Fragment | str:
    """Keep objects, arrays, numbers and booleans; a string and ``null`` would be taken for text, and for no value.

    Blanks before and after the value, which ``json`` keeps, would belong to the file.
    """
    is_other = spelled[0] in _NOT_FIRST or spelled[-1] in _BLANKS
    return spelled if is_other or not holds_exactly(spelled) else orjson.Fragment(spelled)


def _array_of(convert: Converter) -> Converter:
    """Return a converter of arrays (PostgreSQL, 8.15.6); one whose subscripts do not begin with 1 stays text, which says so."""

    def array(spelled: str) -> list[Any] | str:
        return spelled if spelled[0] == "[" else _parsed(spelled, convert)

    return array


def _parsed(spelled: str, convert: Converter) -> list[Any]:
    outermost: list[Any] = []
    opened = [outermost]
    for quoted, mark, plain in _ELEMENT.findall(spelled):
        if mark == "{":
            inner: list[Any] = []
            opened[-1].append(inner)
            opened.append(inner)
        elif mark == "}":
            opened.pop()
        elif plain:
            opened[-1].append(None if plain == "NULL" else convert(plain))
        elif not mark:
            opened[-1].append(convert(_ESCAPE.sub(r"\1", quoted)))
    whole: list[Any] = outermost[0]
    return whole


def _text(spelled: str) -> str:
    return spelled


_NUMBERS: Final[Mapping[str, Converter]] = {
    **dict.fromkeys(("smallint", "integer", "bigint"), _integer),
    **dict.fromkeys(("real", "double precision"), _float),
    "numeric": _numeric,
}
_ELEMENTS: Final[Mapping[str, Converter]] = {
    **_NUMBERS,
    "boolean": _boolean,
    **dict.fromkeys(("text", "character varying", "uuid", "date", "anyenum"), _text),
    **dict.fromkeys(("timestamp without time zone", "timestamp with time zone"), _text),
}
_CONVERTERS: Final[Mapping[str, Converter]] = {
    **_NUMBERS,
    "boolean": _boolean,
    **dict.fromkeys(("json", "jsonb"), _json),
    **{f"{element}[]": _array_of(convert) for element, convert in _ELEMENTS.items()},
}
"""By the type below domains. Everything else stays text: what it means is the type's own business."""
