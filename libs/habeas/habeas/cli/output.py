"""What commands write: tables and lines for people, JSON for programs. Colour on a terminal only.

Whatever strangers chose is shown and never obeyed: characters that a terminal acts upon, or that reorder what is read, are written as
escapes, here and nowhere else.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

AS_JSON: Final = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")

_PIPED_WIDTH: Final = 200
_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_DAY_S: Final = 86_400
_ACTING: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Controls (ECMA-48, C0 and C1), line and paragraph ends, marks that are not seen or turn the direction (UTR 36, section 2.5)."""
_STYLES: Final = {"parked": "red", "stuck": "red", "FAIL": "red", "PASS": "green", "completed": "green"}


def console(*, stderr: bool = False) -> Console:
    """Give a console; piped output has no colour and is so wide that no line is cut."""
    shown = Console(stderr=stderr, highlight=False)
    return shown if shown.is_terminal else Console(stderr=stderr, highlight=False, width=_PIPED_WIDTH)


def write_json(value: object) -> None:
    """Write one JSON document; times in RFC 3339, ids as text."""
    lines = json.dumps(value, indent=2, ensure_ascii=False, default=_plain).split(
        "\n"
    )  # line ends of values are escaped
    click.echo("\n".join(map(visible, lines)))


def visible(text: str) -> str:
    """Return a text with every character that a terminal would act upon as JSON escapes it, and all others as they are."""
    return _ACTING.sub(_escaped, text)


def write_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write rows under headings; numbers stand to the right."""
    table = Table(box=None, pad_edge=False)
    for index, heading in enumerate(headings):
        numbers = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        table.add_column(heading, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    if title:
        say(title)
    console().print(table)


def write_facts(facts: Mapping[str, object]) -> None:
    """Write names with values, one a line however long it is; what is unknown is left out."""
    width = max((len(name) for name in facts), default=0)
    lines = Console(soft_wrap=True, highlight=False)
    for name, value in facts.items():
        if value is not None:
            lines.print(Text.assemble((f"{name:<{width}}  ", "dim"), _cell(value)))


def say(text: str) -> None:
    """Write a line."""
    Console(soft_wrap=True, highlight=False).print(Text(visible(text)))


def age(moment: datetime | None, now: datetime) -> str | None:
    """Give how long ago something was, in the largest unit that fits; None for nothing."""
    return None if moment is None else span(now - moment)


def span(duration: timedelta | None) -> str:
    """Give a duration for people: `12 ms`, `3.4 s`, `5 min`, `7 h`, `3 d`."""
    if duration is None:
        return ""
    seconds = duration.total_seconds()
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s"
    if seconds < 2 * _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    return f"{seconds / _HOUR_S:.0f} h" if seconds < 2 * _DAY_S else f"{seconds / _DAY_S:.0f} d"


def _cell(value: object) -> Text:
    if value is None:
        return Text("")
    if isinstance(value, datetime):
        return Text(value.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z")
    return Text(visible(str(value)), _STYLES.get(str(value), ""))


def _escaped(found: "re.Match[str]") -> str:
    code = found[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{code[at : at + 4]}" for at in range(0, len(code), 4))


def _plain(value: Any) -> str:  # noqa: ANN401 -- whatever json does not know
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else str(value)
