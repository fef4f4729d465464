"""Values in JSON and CSV: no common reader may hold another value than the database, and no cell is a formula."""

import csv
import io
import json
import math
from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export_builder.gateways.values import converters, csv_lines, holds_exactly, json_lines

TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"))
DEEP = "[" * 3_000 + "]" * 3_000


def in_json(base: str, spelled: str | None) -> object:
    """What a reader of the JSON form finds, read by the standard library and by orjson alike."""
    (line,) = json_lines([(spelled,)], ["v"], converters([base]))
    found = json.loads(line)["v"]
    assert orjson.loads(line)["v"] == found
    return found


@pytest.mark.parametrize(
    ("base", "spelled", "expected"),
    [
        ("integer", "-5", -5),
        ("bigint", "9007199254740991", 2**53 - 1),
        ("bigint", "9007199254740993", "9007199254740993"),
        ("bigint", "-9223372036854775808", "-9223372036854775808"),
        ("numeric", "1.00", 1.0),
        ("numeric", "0.1234567890123456789", "0.1234567890123456789"),
        ("numeric", "1" + "0" * 400, "1" + "0" * 400),
        ("numeric", "0." + "0" * 400 + "1", "0." + "0" * 400 + "1"),
        ("numeric", "9007199254740993.5", "9007199254740993.5"),
        ("numeric", "NaN", "NaN"),
        ("double precision", "1.7976931348623157e+308", 1.7976931348623157e308),
        ("double precision", "5e-324", 5e-324),
        ("double precision", "1e+22", 1e22),
        ("double precision", "-Infinity", "-Infinity"),
        ("boolean", "true", True),
        ("boolean", "false", False),
        ("text", "", ""),
        ("text", None, None),
        ("inet", "192.168.1.1", "192.168.1.1"),
        ("integer[]", "{1,NULL,-3}", [1, None, -3]),
        ("integer[]", "{}", []),
        ("integer[]", "{{1,2},{3,4}}", [[1, 2], [3, 4]]),
        ("integer[]", "[0:1]={1,2}", "[0:1]={1,2}"),
        ("bigint[]", "{9007199254740993}", ["9007199254740993"]),
        ("boolean[]", "{t,f,NULL}", [True, False, None]),
        ("text[]", r'{"","NULL",NULL,"a\"\\b",x y,"{,}"}', ["", "NULL", None, 'a"\\b', "x y", "{,}"]),
        ("anyenum[]", '{sad,"very happy"}', ["sad", "very happy"]),
        ("box[]", "{(1,1),(0,0);(2,2),(1,1)}", "{(1,1),(0,0);(2,2),(1,1)}"),
        ("jsonb[]", '{"{\\"a\\": 1}"}', '{"{\\"a\\": 1}"}'),
    ],
)
def test_what_json_holds_stays_and_the_rest_is_text(base: str, spelled: str | None, expected: object) -> None:
    """Numbers within a double (RFC 7493, 2.2), booleans and arrays of them are JSON's own; the rest is the database's text."""
    found = in_json(base, spelled)
    assert (type(found), found) == (type(expected), expected)


@pytest.mark.parametrize(
    "spelled",
    [
        '{"a": 1}',
        '{"a":\n1}',
        "[]",
        "0",
        "true",
        '{"a": [1.50, "\\u00e4", "\\ud83d\\ude00", "\\\\u0000", {"b": null}]}',
        '{"a": {"a": {"a": 1}}}',
        "[" * 500 + "]" * 500,
        json.dumps(["[" * 3_000] * 3),
        json.dumps([[n] for n in range(1_000)]),
    ],
)
def test_json_that_everybody_reads_stays_json(spelled: str) -> None:
    """Objects, arrays, numbers and booleans stand in the file as they are."""
    assert in_json("json", spelled) == json.loads(spelled)


@pytest.mark.parametrize(
    "spelled",
    [
        '"a"',
        "null",
        " 1",
        "[]\n",
        '{"a": 1, "a": 2}',
        '[{"a": 1, "b": 2, "\\u0061": 3}]',
        '"\\u0000"',
        '{"a\\u0000": 1}',
        '["\\\\\\u0000"]',
        '"\\ud83d"',
        '["\\ude00\\ud83d"]',
        "1e999999999",
        "[1e400]",
        "[1e-400]",
        "[1e-99999999999999999999999]",
        "[-0]",
        "[12345678901234567890]",
        "[0.12345678901234567890]",
        "1" + "0" * 5_000,
        DEEP,
        '{"a":' * 501 + "1" + "}" * 501,
    ],
)
def test_json_that_some_reader_loses_is_text(spelled: str) -> None:
    """The text itself, of which a reader with other limits makes the value; a string is always such a text."""
    assert in_json("json", spelled) == spelled


JSON_TEXT = st.recursive(
    st.one_of(
        st.none().map(json.dumps),
        st.booleans().map(json.dumps),
        st.integers().map(str),
        st.floats(allow_nan=False, allow_infinity=False).map(repr),
        st.decimals(allow_nan=False, allow_infinity=False).map("{:f}".format),
        st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?", fullmatch=True),
        st.text().map(json.dumps),
        st.from_regex(r'"(a|\\u0000|\\\\|\\ud83d|\\ude00|\\")*"', fullmatch=True),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda parts: "[" + " , ".join(parts) + "]"),
        st.lists(st.tuples(st.sampled_from(['"a"', '"b"', '"\\u0061"']), inner), max_size=3).map(
            lambda pairs: "{" + ",".join(f"{name}:\n{value}" for name, value in pairs) + "}"
        ),
    ),
    max_leaves=8,
)


def _exact(text: str) -> object:
    """The value, with nothing lost: members in pairs, numbers in decimals."""
    return json.loads(text, parse_int=Decimal, parse_float=Decimal, object_pairs_hook=lambda pairs: ["members", *pairs])


def _double(text: str) -> object:
    """The value as a reader holds it that has doubles and objects, written out again as short as it goes."""
    return json.loads(
        text,
        parse_int=lambda n: Decimal(repr(float(n))) if math.isfinite(float(n)) else None,
        parse_float=lambda n: Decimal(repr(float(n))) if math.isfinite(float(n)) else None,
        object_pairs_hook=lambda pairs: ["members", *dict(pairs).items()],
    )


@pytest.mark.parametrize(
    ("base", "spelled"), [("double precision", "-0"), ("real", "-0"), ("double precision[]", "{-0}")]
)
def test_a_zero_keeps_its_sign(base: str, spelled: str) -> None:
    """Readers make the integer 0 of `-0`, which has no sign."""
    found = in_json(base, spelled)
    assert repr(found).strip("[]") == "-0.0"


@given(JSON_TEXT)
def test_what_is_called_exact_is_so_for_a_reader_of_doubles(text: str) -> None:
    """Whatever JSON it is: when it is called exact, a reader with doubles, objects and UTF-8 holds the same value."""
    if holds_exactly(text):
        assert _double(text) == _exact(text)
        assert "\0" not in json.dumps(json.loads(text), ensure_ascii=False).encode().decode()
        orjson.loads(text)


@given(st.one_of(st.integers(-(2**53) + 1, 2**53 - 1), st.floats(allow_nan=False, allow_infinity=False, width=32)))
def test_what_a_double_holds_is_called_exact(number: float) -> None:
    """Integers to 2^53 - 1 and numbers of few digits are not made text without need."""
    assert holds_exactly(repr(number)) or len(repr(number)) > 15


def in_csv(*rows: tuple[str | None, ...]) -> list[list[str]]:
    """The cells as another program reads them."""
    return list(csv.reader(io.StringIO(csv_lines(rows, frozenset({1})), newline=""), strict=True))


@given(st.lists(st.tuples(TEXT | st.none(), st.from_regex(r"-?[0-9]{1,5}", fullmatch=True) | st.just("-Infinity"))))
def test_no_cell_is_a_formula_and_none_is_lost(rows: list[tuple[str | None, str]]) -> None:
    """No cell of text begins as OWASP says that formulas do, and one apostrophe less gives the value back."""
    cells = in_csv(*rows)
    assert [len(row) for row in cells] == [2] * len(rows)
    for (text, number), found in zip(rows, cells, strict=True):
        assert found[0][:1] not in set("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
        assert found[0].removeprefix("'") == (text or "")
        assert found[1] == (number if number[-1].isdigit() else f"'{number}")


@pytest.mark.parametrize("begin", "=+-@\t\r\n")
def test_formulas_get_an_apostrophe(begin: str) -> None:
    """What spreadsheets run is text; a semicolon or a quote in it does not begin another cell."""
    assert csv_lines([(f'{begin}1+1";=1', "-1")], frozenset({1})) == f'"\'{begin}1+1"";=1","-1"\r\n'


def test_null_is_not_empty_text() -> None:
    """As PostgreSQL's own CSV has it: nothing for NULL, two quotes for an empty text."""
    assert csv_lines([(None, "", "a")], frozenset()) == ',"","a"\r\n'
