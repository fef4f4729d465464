"""As much of PromQL as tells which metrics and labels a query names. What it does not understand is an error, never passed over."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

FUNCTIONS: Final = frozenset(
    [
        "avg",
        "count",
        "histogram_quantile",
        "increase",
        "max",
        "min",
        "rate",
        "sum",
        "vector",
    ]  # those that the files use; more may be added
)
_WORDS: Final = frozenset(["and", "bool", "offset", "or", "unless"])
_LABEL_LISTS: Final = frozenset(["by", "group_left", "group_right", "ignoring", "on", "without"])
_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<range>\[[0-9]+[smhd]\])|(?P<number>[0-9]+(?:\.[0-9]+)?(?:e[0-9]+)?)
    |(?P<word>[a-zA-Z_:][a-zA-Z0-9_:]*)|(?P<sign>=~|!~|!=|==|>=|<=|[-+*/%^<>=(){},]))""",
    re.VERBOSE,
)


class NotUnderstood(ValueError):
    """The query has something that this reader does not know."""


@dataclass
class Named:
    """What a query names: the labels that are asked of each metric, and those by which it groups."""

    metrics: dict[str, set[str]] = field(default_factory=dict)
    grouped: set[str] = field(default_factory=set)


def read(query: str) -> Named:
    """Read a query; raises NotUnderstood."""
    tokens = list(_tokens(query))
    found, at = Named(), 0
    while at < len(tokens):
        kind, text = tokens[at]
        follows = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        at += 1
        if kind != "word" or text in _WORDS:
            continue
        if text in _LABEL_LISTS:
            labels, at = _inside(tokens, at, "(", ")")
            found.grouped |= {word for kind, word in labels if kind == "word"}
        elif follows == "(" or (text in FUNCTIONS and follows in _LABEL_LISTS):
            if text not in FUNCTIONS:
                message = f"the function {text}"
                raise NotUnderstood(message)
        else:
            labels, at = _inside(tokens, at, "{", "}") if follows == "{" else ([], at)
            found.metrics.setdefault(text, set()).update(word for kind, word in labels if kind == "word")
    return found


def _inside(tokens: list[tuple[str, str]], at: int, first: str, last: str) -> tuple[list[tuple[str, str]], int]:
    """Give the tokens between two brackets, which hold no further ones, and where to go on."""
    if at >= len(tokens) or tokens[at][1] != first:
        message = f"{first} is missing"
        raise NotUnderstood(message)
    for end in range(at + 1, len(tokens)):
        if tokens[end][1] == last:
            return tokens[at + 1 : end], end + 1
    message = f"{last} is missing"
    raise NotUnderstood(message)


def _tokens(query: str) -> Iterator[tuple[str, str]]:
    at = 0
    while query[at:].strip():
        found = _TOKEN.match(query, at)
        if found is None:
            message = f"what stands at {at}"
            raise NotUnderstood(message)
        at = found.end()
        yield str(found.lastgroup), found[0].strip()
