"""What the source of a PL/pgSQL function can do besides answering: which tables it writes to, and what nobody can see from here.

The words are read, nothing is parsed: where a word could mean a change, it is taken for one. PostgreSQL's documentation, 4.1 (lexical
structure) and 41 (PL/pgSQL).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

_TOKEN: Final = re.compile(
    r"""
      (?P<skip>\s+|--[^\n]*)
    | (?P<comment>/\*)
    | (?P<text>[eE]'(?:[^'\\]|\\.|'')*'|(?:[uU]&|[bBxXnN])?'(?:[^']|'')*'|\$(?P<tag>[^\W\d]\w*)?\$.*?\$(?(tag)(?P=tag))\$)
    | (?P<quoted>(?:[uU]&)?"(?:[^"]|"")+")
    | (?P<word>[^\W\d][\w$]*)
    | (?P<rest>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_ACTS: Final = frozenset(
    {
        "execute",
        "call",
        "copy",
        "truncate",
        "merge",
        "notify",
        "create",
        "drop",
        "alter",
        "refresh",
        "import",
        "load",
        "grant",
        "do",
    }
)
"""Statements by which anything may happen; `execute` runs a text that only the run knows."""

_BEFORE_BRACKETS: Final = frozenset(
    """
    all and any array as assert between by case cast check conflict distinct else elsif except exists filter foreach from group having
    if ilike in intersect into is join lateral like limit loop materialized not offset on or order over partition perform raise
    recursive return returning row select set similar slice some then union using values when where while window with within bit char
    character decimal float interval nchar numeric time timestamp varchar varying
    """.split()  # noqa: SIM905 - a list would take a line for each
)
"""Words that may stand before a bracket and call nothing."""

HARMLESS: Final = frozenset(
    """
    abs age array_agg array_append array_cat array_length array_position array_prepend array_remove array_replace array_to_json
    array_to_string array_upper avg bool_and bool_or btrim cardinality ceil ceiling char_length character_length clock_timestamp
    coalesce concat concat_ws count current_database current_schema current_setting currval date_part date_trunc decode encode extract
    floor format gen_random_uuid generate_series greatest hashtext hashtextextended initcap int4range isfinite json_agg
    json_array_length json_build_array json_build_object json_object json_object_keys jsonb_agg jsonb_array_elements
    jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object jsonb_each jsonb_each_text jsonb_object_agg
    jsonb_object_keys jsonb_pretty jsonb_set jsonb_strip_nulls jsonb_typeof justify_days justify_hours least left length localtimestamp
    lower lpad ltrim make_date make_interval make_time make_timestamp make_timestamptz max md5 min mod nextval now nullif num_nonnulls
    num_nulls octet_length overlay pg_backend_pid pg_trigger_depth pg_typeof plainto_tsquery position power quote_ident quote_literal
    quote_nullable random regexp_match regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table repeat replace reverse
    right round row_number row_to_json rpad rtrim setweight sha224 sha256 sha384 sha512 sign split_part sqrt starts_with
    statement_timestamp string_agg string_to_array strpos strip substr substring sum timezone to_char to_date to_hex to_json to_jsonb
    to_number to_timestamp to_tsquery to_tsvector transaction_timestamp translate trim trunc txid_current unnest upper uuid_send
    websearch_to_tsquery
    """.split()  # noqa: SIM905 - a list would take a line for each
)
"""Functions of PostgreSQL that only compute (a number of a sequence names nobody)."""


class _Token(NamedTuple):
    kind: str
    text: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Effects:
    """What a trigger function does. `writes` are tables, each as (name,) or (schema, name); `doubts` are words that may do anything.

    `gives_back_nothing`: every RETURN gives NULL or NEW, so that before a deletion, where there is no NEW, the row stays.
    """

    writes: tuple[tuple[str, ...], ...]
    doubts: tuple[str, ...]
    gives_back_nothing: bool


def read_effects(source: str) -> Effects:
    """Read the source of a function in PL/pgSQL."""
    tokens = _tokens(source)
    if tokens is None:
        return Effects((), ("a text without an end",), gives_back_nothing=False)
    writes: list[tuple[str, ...]] = []
    doubts: list[str] = []
    returned: set[str] = set()
    targets: set[int] = set()
    for at, token in enumerate(tokens):
        if token.kind != "name":
            continue
        word = token.parts[0] if len(token.parts) == 1 and not token.text.startswith('"') else ""
        after = tokens[at + 1] if at + 1 < len(tokens) else _Token("end", "")
        if word in {"insert", "delete"} or (word == "update" and not _is_no_update(tokens, at)):
            found = _target(tokens, at, {"insert": "into", "delete": "from"}.get(word))
            if found is None:
                doubts.append(word.upper())
            else:
                targets.add(found)
                writes.append(tokens[found].parts)
        elif word in _ACTS and not (word == "do" and after.text.lower() in {"update", "nothing"}):
            doubts.append(word.upper())
        elif word == "return":
            returned.add(after.text.lower())
        elif after.text == "(" and at not in targets and word not in _BEFORE_BRACKETS and not _is_harmless(token):
            doubts.append(f"{token.text}()")
    gives_back_nothing = bool(returned) and returned <= {"null", "new"}
    return Effects(tuple(dict.fromkeys(writes)), tuple(dict.fromkeys(doubts)), gives_back_nothing)


def _tokens(source: str) -> list[_Token] | None:
    """Split a source into names (dotted ones as one), texts and signs; None when something is left open."""
    found: list[_Token] = []
    at = 0
    while at < len(source):
        match = _TOKEN.match(source, at)
        if match is None:
            return None
        kind, at = match.lastgroup or "", match.end()
        kind = "text" if kind == "tag" else kind
        if kind == "comment":
            end = _end_of_comment(source, at)
            if end is None:
                return None
            at = end
        elif kind in {"word", "quoted"}:
            text = match[0]
            part = text[1:-1].replace('""', '"') if kind == "quoted" else text.lower()
            is_dotted = len(found) > 1 and found[-1].text == "." and found[-2].kind == "name"
            if is_dotted:
                before = found[-2]
                found[-2:] = [_Token("name", f"{before.text}.{text}", (*before.parts, part))]
            else:
                found.append(_Token("name", text, (part,)))
        elif kind == "text":
            found.append(_Token("text", "''"))
        elif kind == "rest":
            if match[0] in {"'", '"'}:
                return None
            found.append(_Token("sign", match[0]))
    return found


def _end_of_comment(source: str, at: int) -> int | None:
    """Return where a comment ends, which may hold others."""
    depth = 1
    for mark in re.finditer(r"/\*|\*/", source[at:]):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return at + mark.end()
    return None


def _is_no_update(tokens: Sequence[_Token], at: int) -> bool:
    """`FOR UPDATE`, `FOR NO KEY UPDATE` and `ON CONFLICT … DO UPDATE SET` write to no table that is not named elsewhere."""
    before = tokens[at - 1].text.lower() if at else ""
    return before in {"for", "key", "do"}


def _target(tokens: Sequence[_Token], at: int, word: str | None) -> int | None:
    """Return the place of the table's name behind INSERT INTO, DELETE FROM or UPDATE."""
    place = at + 1
    if word is not None:
        if place >= len(tokens) or tokens[place].text.lower() != word:
            return None
        place += 1
    if place < len(tokens) and tokens[place].text.lower() == "only":
        place += 1
    is_name = place < len(tokens) and tokens[place].kind == "name" and len(tokens[place].parts) <= 2  # noqa: PLR2004 - schema.table
    return place if is_name else None


def _is_harmless(token: _Token) -> bool:
    *schema, name = token.parts
    return name in HARMLESS and schema in ([], ["pg_catalog"])
