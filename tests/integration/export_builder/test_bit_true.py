"""Exports hold what the database holds: PostgreSQL itself reads JSON and CSV back, and finds the same bytes in every column.

The oracle is PostgreSQL's input functions, its `json_populate_record`, its COPY, and `record_image_eq`, which compares the stored bytes.
"""

import io
import json
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

import asyncpg
import orjson
import pytest

from habeas.datamap.planner.sql import quoted
from tests.integration.export_builder.conftest import (
    JSON_TYPES,
    ONE,
    OTHER,
    Exported,
    MakeThings,
    Things,
    fill,
    kinds_of,
    read,
)

DEEP: Final = "[" * 3_000 + "]" * 3_000
HARD_JSON: Final = (
    '{"a": 1}', '{"a":\n[1.50, null, "x"]}', '"text"', "null", "true", "12", '"{\\"a\\": 1}"', "[]", '{"a": 1e400}',
    DEEP, '{"id": 9007199254740993}', '"\\ud83d\\ude00"', '["\\\\u0000"]', "-0", "1.000",
)  # fmt: skip
ONLY_JSON: Final = (
    '"\\u0000"', '"\\ud83d"', "1e999999999", '{"a": 1, "a": 2}', '{ "b":1,  "a":2 }', "1E5", "[-0, 1e-400]", "\n[\t1 ]\n",
)  # fmt: skip
"""What jsonb does not take, or does not keep."""

LITERALS: Final[Mapping[str, tuple[str, ...]]] = {
    "boolean": ("t", "f"),
    "smallint": ("-32768", "32767"),
    "integer": ("-2147483648", "0", "2147483647"),
    "bigint": ("-9223372036854775808", "9007199254740993", "9223372036854775807", "1"),
    "numeric": (
        "1e400", "-1e400", "1e-400", "NaN", "Infinity", "-Infinity", "0.10", "1.00", "0", "12345678901234567.8",
        "1e131071", "1e-16383", "-0.000",
    ),
    "real": ("0.1", "NaN", "-Infinity", "-0", "3.4028235e38", "1e-45", "16777217"),
    "double precision": (
        "0.1", "NaN", "Infinity", "-0", "1.7976931348623157e308", "5e-324", "0.30000000000000004", "123456789012345678",
    ),
    "text": ("", " ", "=1+1", "'quoted'", 'a "quote", \\ and\n\r\ttabs', "€ 𝄞 \x01\x7f", "\ufeff", "null", "NULL"),
    "character varying": ("", "x  "),
    "character(5)": ("", "ab", "ab   "),
    '"char"': ("", "x", "\\201"),
    "name": ("", "A name"),
    "bytea": ("", "\\x00ff22", "\\x5c78"),
    "date": ("2026-11-24", "infinity", "-infinity", "4714-11-24 BC", "0044-03-15 BC", "5874897-12-31", "10000-01-01"),
    "timestamp without time zone": (
        "2026-11-24 09:12:00.000001", "infinity", "-infinity", "4714-11-24 00:00:00 BC", "294276-12-31 23:59:59.999999",
        "0044-03-15 12:00:00.5 BC",
    ),
    "timestamp with time zone": (
        "2026-11-24 09:12:00.000001+05:45", "infinity", "-infinity", "4714-11-24 00:00:00+00 BC",
        "294276-12-31 23:59:59.999999+00", "0044-03-15 12:00:00+00 BC",
    ),
    "time without time zone": ("00:00:00", "24:00:00", "23:59:59.999999"),
    "time with time zone": ("00:00:00+15:59:59", "24:00:00-15:59:59", "12:00:00.000001+01"),
    "interval": (
        "1 year -2 mons +3 days -04:05:06.000007", "-1 mons", "infinity", "-infinity", "0", "-00:00:00.000001",
        "178956970 years 7 mons", "-178956970 years -8 mons", "2147483647 days", "2562047788:00:54.775807",
        "-2562047788:00:54.775807", "1 mon -1 day", "-1 year 1 mon -1 day 00:00:01",
    ),
    "uuid": ("00000000-0000-0000-0000-000000000000", "01990c5e-7b1a-7c62-9f0e-3d6a5b1c2d3f"),
    "json": (*HARD_JSON, *ONLY_JSON),
    "jsonb": HARD_JSON,
    "jsonpath": ('$."a"[*] ? (@ > 1)', "strict $"),
    "xml": (
        "<a/>", '<?xml version="1.0" encoding="UTF-8"?><a>ä &amp; \n</a>', "plain", "", "<a/><b/>",
        '<?xml version="1.0" standalone="yes"?>\n<a/>',
    ),
    "money": ("-12345.67", "0.01", "92233720368547758.07"),
    "bit(8)": ("10101010",),
    "bit varying": ("", "1", "0101"),
    "inet": ("192.168.1.1", "192.168.1.1/24", "::1", "fe80::1/64", "0.0.0.0/0"),
    "cidr": ("192.168.1.0/24", "2001:db8::/32", "10.0.0.1"),
    "macaddr": ("08:00:2b:01:02:03",),
    "macaddr8": ("08:00:2b:01:02:03:04:05",),
    "point": ("(0.1,-0)", "(NaN,Infinity)"),
    "line": ("{1,-1,0.1}",),
    "lseg": ("[(0.1,0.2),(3,4)]",),
    "box": ("(1.1,1),(0,0)",),
    "path": ("((0,0),(1.5,1))", "[(0,0),(1,1)]"),
    "polygon": ("((0,0),(1,1),(0.1,1))",),
    "circle": ("<(0.1,0),1.5>",),
    "tsvector": ("'a':1A 'b''c':2,3B", "", "'\\\\':1"),
    "tsquery": ("'a' & !'b' <-> 'c':*A", "'x''y'"),
    "pg_lsn": ("0/0", "FFFFFFFF/FFFFFFFF"),
    "oid": ("0", "4294967295"),
    "xid": ("0", "4294967295"),
    "xid8": ("0", "18446744073709551615"),
    "cid": ("4294967295",),
    "tid": ("(4294967295,65535)",),
    "txid_snapshot": ("10:20:10,14,15",),
    "pg_snapshot": ("10:20:10,14,15",),
    "refcursor": ("a cursor", ""),
    "aclitem": ("=r/postgres",),
    "int2vector": ("1 -2 3", ""),
    "oidvector": ("1 2 4294967295",),
    "regclass": ("pg_class", "0", "things"),
    "regtype": ("double precision", "0"),
    "regproc": ("pg_catalog.now", "0"),
    "regprocedure": ("pg_catalog.sin(double precision)",),
    "regoper": ("pg_catalog.||/", "0"),
    "regoperator": ("pg_catalog.+(integer,integer)",),
    "regrole": ("pg_monitor",),
    "regnamespace": ("pg_catalog",),
    "regcollation": ('pg_catalog."C"',),
    "regconfig": ("english",),
    "regdictionary": ("simple",),
    "int4range": ("[1,5)", "empty", "(,)", "(,3)"),
    "int8range": ("[-9223372036854775808,9223372036854775807)",),
    "numrange": ("[1e400,)", "(0.10,0.2]", "[NaN,NaN]"),
    "tsrange": ('["2026-11-24 09:00:00",infinity)', "[infinity,]"),
    "tstzrange": ('["0044-03-15 12:00:00+00 BC","2026-11-24 09:00:00+00")',),
    "daterange": ("[-infinity,infinity)", "[2026-11-24,)"),
    "int4multirange": ("{}", "{[1,5),[7,9)}"),
    "int8multirange": ("{[1,)}",),
    "nummultirange": ("{(,-1e400),[0.10,0.2]}",),
    "tsmultirange": ('{["2026-11-24 09:00:00","2026-11-25 09:00:00")}',),
    "tstzmultirange": ('{["2026-11-24 09:00:00+00","2026-11-25 09:00:00+00")}',),
    "datemultirange": ("{[2026-11-24,2026-11-25),[2027-01-01,)}",),
}  # fmt: skip

WITHOUT_INPUT: Final = frozenset(
    {
        *("pg_node_tree", "gtsvector", "pg_ndistinct", "pg_dependencies", "pg_mcv_list"),
        *("pg_brin_bloom_summary", "pg_brin_minmax_multi_summary"),
    }
)
"""Types of the catalogue's own whose input functions refuse everything."""

OWN: Final = """
CREATE EXTENSION hstore;
CREATE EXTENSION citext;
CREATE EXTENSION ltree;
CREATE EXTENSION cube;
CREATE TYPE mood AS ENUM ('sad', 'very "happy"', '=ok');
CREATE TYPE place AS (street text, number integer, tags text[], doc json);
CREATE TYPE floats AS RANGE (subtype = double precision);
CREATE DOMAIN whole AS integer CHECK (value > 0);
CREATE DOMAIN small AS whole CHECK (value < 100);
CREATE DOMAIN doc AS json;
CREATE DOMAIN docb AS jsonb;
CREATE DOMAIN words AS text[];
CREATE DOMAIN somewhere AS place;
CREATE DOMAIN day AS date;
CREATE TYPE shop_masked;
CREATE FUNCTION masked_in(cstring) RETURNS shop_masked AS 'textin' LANGUAGE internal IMMUTABLE STRICT;
CREATE FUNCTION masked_out(shop_masked) RETURNS cstring AS 'textout' LANGUAGE internal IMMUTABLE STRICT;
CREATE TYPE shop_masked (INPUT = masked_in, OUTPUT = masked_out, LIKE = text);
CREATE FUNCTION mask(shop_masked) RETURNS text AS $$ SELECT '***' $$ LANGUAGE sql IMMUTABLE STRICT;
CREATE FUNCTION mask_json(shop_masked) RETURNS json AS $$ SELECT '0'::json $$ LANGUAGE sql IMMUTABLE STRICT;
CREATE FUNCTION format(text, shop_masked) RETURNS text AS $$ SELECT '***' $$ LANGUAGE sql IMMUTABLE STRICT;
CREATE CAST (shop_masked AS text) WITH FUNCTION mask(shop_masked);
CREATE CAST (shop_masked AS json) WITH FUNCTION mask_json(shop_masked);
"""
OWN_LITERALS: Final[Mapping[str, tuple[str, ...]]] = {
    "hstore": ('"a"=>"1", "b"=>NULL', "", '"a \\"=>b"=>"c"'),
    "citext": ("MiXed", ""),
    "ltree": ("Top.Science",),
    "cube": ("(0.1, 2), (3, 4)",),
    "mood": ("sad", 'very "happy"', "=ok"),
    "place": ('("Main St",12,"[0:1]={a,NULL}","{""a"": 1, ""a"": 2}")', "(,,,)", '("",,{},)'),
    "floats": ("[0.1,Infinity)", "empty"),
    "whole": ("5",),
    "small": ("7",),
    "doc": (*HARD_JSON, *ONLY_JSON),
    "docb": HARD_JSON,
    "words": ("{a,NULL}", "[0:1]={a,b}"),
    "somewhere": ("(x,,,)",),
    "day": ("0044-03-15 BC", "infinity"),
    "shop_masked": ("secret",),
}


async def find_lost(things: Things, exported: Exported, account: str) -> list[str]:
    """Read both files back into a second table; return form and type of every column that differs from the first one in any byte."""
    lost = []
    conn = things.owner
    kinds = await kinds_of(conn, "things")
    texts = ", ".join(f"{quoted(name)} text" for name in kinds)
    await conn.execute(f"DROP TABLE IF EXISTS cells; CREATE TABLE cells ({texts})")
    cells = io.BytesIO(exported.files["tables/shop.things.csv"].removeprefix("\ufeff".encode()))
    await conn.copy_to_table("cells", source=cells, format="csv", header=True)
    documents = {
        "JSON": [(line,) for line in _lines(exported.files["tables/shop.things.json"])],
        "CSV": [
            (json.dumps({name: None if cell is None else cell.removeprefix("'") for name, cell in row.items()}),)
            for row in await conn.fetch("SELECT * FROM cells")
        ],
    }
    back = ", ".join(
        read(f"line {'->>' if kind in JSON_TYPES else '->'} '{name}'", name, kind, "back")
        for name, kind in kinds.items()
    )
    same = ", ".join(f"bool_and(record_image_eq(ROW(b.{quoted(name)}), ROW(t.{quoted(name)})))" for name in kinds)
    for form, lines in documents.items():
        await conn.execute("DROP TABLE IF EXISTS documents, back; CREATE TABLE documents (line json)")
        await conn.execute("CREATE TABLE back (LIKE things)")
        await conn.executemany("INSERT INTO documents VALUES ($1::text::json)", lines)
        await conn.execute(f"INSERT INTO back SELECT {back} FROM documents")
        counts = await conn.fetchrow(
            "SELECT (SELECT count(*) FROM back), count(*) FROM things WHERE account_id = $1", account
        )
        assert counts is not None
        assert counts[0] == counts[1] > 0
        row = await conn.fetchrow(
            f"SELECT {same} FROM back AS b JOIN things AS t ON t.n = b.n WHERE t.account_id = $1", account
        )
        assert row is not None
        lost += [f"{form}: {kind}" for kind, is_same in zip(kinds.values(), row, strict=True) if not is_same]
    return lost


def _lines(content: bytes) -> list[str]:
    """The rows, each as it stands in the file; every reader takes the file as a whole, jsonb's rules included."""
    assert orjson.loads(content) == json.loads(content, object_pairs_hook=_once)
    text = content.decode()
    decoder, at, lines = json.JSONDecoder(), 1, []
    while text[at:].strip(",\n ") != "]":
        at += len(text[at:]) - len(text[at:].lstrip(",\n "))
        _, end = decoder.raw_decode(text, at)
        lines.append(text[at:end])
        at = end
    return lines


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def _columns(literals: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Two columns for each type: one of it, and one of arrays of it."""
    scalars = {f"v{at}": kind for at, kind in enumerate(literals)}
    return {**scalars, **{f"{name}s": f"{kind}[]" for name, kind in scalars.items()}}


async def _fill_all(things: Things, literals: Mapping[str, tuple[str, ...]]) -> None:
    """As many rows as the longest list of literals has, a row of NULLs, and arrays with all kinds of bounds."""
    longest = max(map(len, literals.values()))
    rows: list[list[str | None]] = [[values[n % len(values)] for values in literals.values()] for n in range(longest)]
    rows.append([None] * len(literals))
    both = [
        [*row, *(_array(kind, each, n) for kind, each in zip(literals, row, strict=True))] for n, row in enumerate(rows)
    ]
    await fill(things, ONE, list(_columns(literals)), both)
    await fill(things, OTHER, list(_columns(literals)), both[:1])


def _array(kind: str, literal: str | None, number: int) -> str | None:
    if literal is None:
        return None
    element = '"' + literal.replace("\\", "\\\\").replace('"', '\\"') + '"'
    and_ = ";" if kind == "box" else ","
    pair = f"{{{element}{and_}{element}}}"
    return (f"{{{element}{and_}NULL}}", "{}", f"{{{pair}{and_}{pair}}}", f"[-1:0]={pair}", None)[number % 5]


@pytest.mark.parametrize(("literals", "before"), [(LITERALS, ""), (OWN_LITERALS, OWN)], ids=["catalogue", "own"])
async def test_every_type_comes_back_to_the_bit(
    things: MakeThings, empty_database: str, literals: Mapping[str, tuple[str, ...]], before: str
) -> None:
    """All of PostgreSQL's types and kinds of types, their extremes and arrays of them: both files, read back, hold the same bytes."""
    if not await _reads_xml(empty_database):
        literals = {kind: values for kind, values in literals.items() if kind != "xml"}
    shop = await things(_columns(literals), before)
    await _fill_all(shop, literals)
    one, other = await shop.export(ONE, OTHER)
    assert await find_lost(shop, one, ONE) == []
    assert await find_lost(shop, other, OTHER) == []


async def _reads_xml(dsn: str) -> bool:
    """Whether the server was built with libxml; the embedded one is not."""
    conn = await asyncpg.connect(dsn)
    try:
        await conn.fetchval("SELECT '<a/>'::xml")
    except asyncpg.FeatureNotSupportedError:
        return False
    finally:
        await conn.close()
    return True


async def test_no_type_is_left_out(empty_database: str) -> None:
    """Every type of the catalogue that can hold a value is one of those above; a new version of PostgreSQL may bring more."""
    conn = await asyncpg.connect(empty_database)
    try:
        rows = await conn.fetch(
            "SELECT format_type(oid, NULL) AS name FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace"
            " AND typtype IN ('b', 'r', 'm') AND NOT (typcategory = 'A' AND typlen = -1 AND typname LIKE '\\_%')"
        )
    finally:
        await conn.close()
    known = {kind.partition("(")[0] for kind in LITERALS} | WITHOUT_INPUT
    assert {row["name"] for row in rows} - known == set()


async def test_what_json_cannot_hold_is_text(things: MakeThings) -> None:
    """Values that crashed readers, or that readers change, are strings in the JSON form; those that JSON holds are not."""
    columns = {
        "number": "numeric",
        "whole": "integer",
        "document": "json",
        "binary": "jsonb",
        "at": "timestamptz",
        "list": "text[]",
    }
    shop = await things(columns)
    hard = [
        ("1e400", "1", '"\\u0000"', "[1e400]", "infinity", "[0:0]={a}"),
        ("0.5", None, '"\\ud83d"', '"a"', "2026-11-24 09:12:00+00", "{a,NULL}"),
        (None, None, "1e999999999", DEEP, None, None),
        (None, None, DEEP, None, None, None),
        (None, None, '{"a": 1, "a": 2}', '{"a": 1}', None, None),
    ]
    await fill(shop, ONE, list(columns), hard)
    await fill(shop, OTHER, list(columns), [("1", "2", "{}", "[]", None, "{}")])
    one, other = await shop.export(ONE, OTHER)
    found = [tuple(row[name] for name in columns) for row in one.rows]
    assert found == [
        ("1" + "0" * 400, 1, '"\\u0000"', "[1" + "0" * 400 + "]", "infinity", "[0:0]={a}"),
        (0.5, None, '"\\ud83d"', '"a"', "2026-11-24T09:12:00+00:00", ["a", None]),
        (None, None, "1e999999999", DEEP, None, None),
        (None, None, DEEP, None, None, None),
        (None, None, '{"a": 1, "a": 2}', {"a": 1}, None, None),
    ]
    assert [tuple(row[name] for name in columns) for row in other.rows] == [(1, 2, {}, [], None, [])]


async def test_own_types_stand_in_json_as_what_they_are_made_of(things: MakeThings) -> None:
    """A domain is what lies below it, an array of an enumeration is an array, and the manifest tells the declared types."""
    columns = {"whole": "small", "document": "docb", "list": "words", "moods": "mood[]", "where_to": "place"}
    shop = await things(columns, OWN)
    await fill(shop, ONE, list(columns), [("7", '{"a": 1}', "{a,NULL}", "{sad,=ok}", '("Main St",12,,)')])
    (one,) = await shop.export(ONE)
    assert [one.rows[0][name] for name in columns] == [7, {"a": 1}, ["a", None], ["sad", "=ok"], '("Main St",12,,)']
    tables = {table["table"]: table for table in json.loads(one.files["manifest.json"])["tables"]}
    assert tables["things"]["types"][3:] == list(columns.values())


class Making:
    """Random values of a type, as literals that it reads."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 -- data of a test

    def row(self) -> list[str | None]:
        """A value for each column, now and then none."""
        made = [make(self) for make in RANDOM.values()]
        return [None if self._random.random() < 0.1 else value for value in made]

    def _numeric(self) -> str:
        digits = "".join(self._random.choices("0123456789", k=self._random.choice([1, 3, 15, 16, 17, 40])))
        return f"{self._random.choice(['', '-'])}{digits}e{self._random.choice([0, -3, -16, 5, 300, -300])}"

    def _double(self) -> str:
        return repr(
            self._random.choice(
                [self._random.uniform(-1, 1), self._random.gauss(0, 1) * 10 ** self._random.randint(-300, 300)]
            )
        )

    def _real(self) -> str:
        return repr(self._random.gauss(0, 1) * 10 ** self._random.randint(-30, 30))

    def _bigint(self) -> str:
        return str(self._random.getrandbits(self._random.choice([8, 53, 54, 63])) * self._random.choice([1, -1]))

    def _text(self) -> str:
        letters = self._random.choices(
            "aÄ€𝄞\"'\\,;\n\r\t=+-@{}[]: \x01\x1f\x7f\x85\u2028\ufeff\ufffd\uffff", k=self._random.randint(0, 9)
        )
        return "".join(letters)

    def _json_text(self) -> str:
        return self._json(4, is_binary=False)

    def _jsonb_text(self) -> str:
        return self._json(4, is_binary=True)

    def _date(self) -> str:
        return self._day(2_000_000)

    def _zoned(self) -> str:
        day, space, era = self._instant().partition(" BC")
        return f"{day}+00{space}{era}"

    def _interval(self) -> str:
        parts = [self._random.randint(-9_999, 9_999) for _ in range(4)]
        return f"{parts[0]} mons {parts[1]} days {parts[2]} secs {parts[3]} microseconds"

    def _bytes(self) -> str:
        return "\\x" + self._random.randbytes(self._random.randint(0, 9)).hex()

    def _texts(self) -> str:
        return self._array(self._text)

    def _numerics(self) -> str:
        return self._array(self._numeric)

    def _range(self) -> str:
        low, high = sorted(int(self._bigint()) // 2 for _ in range(2))
        return f"{self._random.choice('[(')}{low},{high}{self._random.choice('])')}"

    def _clock(self) -> str:
        clock = [self._random.randint(0, limit) for limit in (23, 59, 59, 999_999, 15, 59)]
        return "{:02}:{:02}:{:02}.{:06}-{:02}:{:02}".format(*clock)

    def _doubles(self) -> str:
        return self._array(self._double)

    def _bits(self) -> str:
        return "".join(self._random.choices("01", k=self._random.randint(0, 20)))

    def _padded(self) -> str:
        return self._text()[:9]

    def _jsonbs(self) -> str:
        return self._array(self._jsonb_text)

    def _instants(self) -> str:
        return self._array(lambda: f'["{self._instant()}",)')

    def _day(self, most: int) -> str:
        year = self._random.choice(
            [self._random.randint(1, 9_999), self._random.randint(1, 4_712), self._random.randint(1, most)]
        )
        day = f"{year:04}-{self._random.randint(1, 12):02}-{self._random.randint(1, 28):02}"
        return day + (" BC" if year < 4_713 and self._random.random() < 0.3 else "")

    def _instant(self) -> str:
        day, space, era = self._day(294_275).partition(" ")
        clock = [self._random.randint(0, limit) for limit in (23, 59, 59, 999_999)]
        return f"{day} {clock[0]:02}:{clock[1]:02}:{clock[2]:02}.{clock[3]:06}{space}{era}"

    def _array(self, make: Callable[[], str]) -> str:
        elements = [
            "NULL" if self._random.random() < 0.2 else '"' + make().replace("\\", "\\\\").replace('"', '\\"') + '"'
            for _ in range(self._random.randint(0, 3))
        ]
        low = self._random.choice([1, 1, 0, -2])
        bounds = f"[{low}:{low + len(elements) - 1}]=" if low != 1 and elements else ""
        return bounds + "{" + ",".join(elements) + "}"

    def _json(self, depth: int, *, is_binary: bool) -> str:
        kind = self._random.randint(0, 7 if depth > 0 else 3)
        if kind == 0:
            return self._random.choice(["null", "true", "false"])
        if kind == 1:
            return self._random.choice(
                [self._bigint(), "0.10", "-0", "1e5", "1E-5", "1e400", "9007199254740993", "0.1234567890123456789"]
            )
        if kind in {2, 3}:
            more = [] if is_binary else ["\\u0000", "\\ud83d", "\\ude00"]
            return (
                json.dumps(self._text(), ensure_ascii=False)[:-1]
                + self._random.choice(["", "\\ud83d\\ude00", "\\\\u0000", *more])
                + '"'
            )
        space = self._random.choice(["", " ", "\n"])
        inner = [self._json(depth - 1, is_binary=is_binary) for _ in range(self._random.randint(0, 3))]
        if kind in {4, 5}:
            return f"[{space}" + f",{space}".join(inner) + "]"
        return "{" + ",".join(f'"{self._random.choice("abc")}":{space}{each}' for each in inner) + "}"


RANDOM: Final[Mapping[str, Callable[[Making], str]]] = {
    "numeric": Making._numeric, "double precision": Making._double, "real": Making._real, "bigint": Making._bigint,
    "text": Making._text, "json": Making._json_text, "jsonb": Making._jsonb_text, "date": Making._date,
    "timestamp": Making._instant, "timestamptz": Making._zoned, "interval": Making._interval, "bytea": Making._bytes,
    "text[]": Making._texts, "numeric[]": Making._numerics, "int8range": Making._range, "timetz": Making._clock,
    "double precision[]": Making._doubles, "varbit": Making._bits, "character(9)": Making._padded, "jsonb[]": Making._jsonbs,
    "tsrange[]": Making._instants,
}  # fmt: skip
"""The types whose spelling is the hardest."""


async def test_random_values_come_back_to_the_bit(things: MakeThings) -> None:
    """Five hundred rows of random values of the types whose spelling is the hardest; another seed with each run."""
    seed = random.SystemRandom().getrandbits(32)
    making = Making(seed)
    columns = {f"v{at}": kind for at, kind in enumerate(RANDOM)}
    shop = await things(columns)
    await fill(shop, ONE, list(columns), [making.row() for _ in range(500)])
    (one,) = await shop.export(ONE)
    assert (seed, await find_lost(shop, one, ONE)) == (seed, [])
