"""docs/performance.md and its chart, written from the newest kept figures of each benchmark."""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Final

from tests.bench.report import Figure, machine, newest

PAGE: Final = Path("docs/performance.md")
CHART: Final = Path("docs/performance.svg")

_BLOCK: Final = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- /figures -->)", re.DOTALL)
_ROW_PX: Final = 22
_LABEL_PX: Final = 430
_UNIT_PX: Final = 260  # the length of a bar that has just reached its goal
_MOST: Final = 2.0


def write() -> None:
    """Put the figures into the page and draw the chart. Raises ``ValueError`` when the page has no place for them."""
    kept = newest()
    figures = [each for _, found in kept.values() for each in found]
    text = PAGE.read_text()
    if not _BLOCK.search(text):
        raise ValueError(f"{PAGE} has no block for figures")
    block = "".join(_tables([(name, at, found) for name, (at, found) in kept.items()]))
    PAGE.write_text(_BLOCK.sub(lambda _: block, text))
    CHART.write_text(_chart([each for each in figures if each.of_goal is not None]))


def _tables(kept: Sequence[tuple[str, datetime, Sequence[Figure]]]) -> Iterator[str]:
    facts = machine()
    yield f"Machine: {facts['cores']} cores of {facts['cpu']}, {facts['system']}, Python {facts['python']}.\n"
    for name, at, figures in kept:
        yield f"\n### `make bench ARGS={name}`\n\nMeasured on {at:%Y-%m-%d}.\n\n"
        yield "| bench | what | measured | goal | of goal | of the raw limit | remarks |\n|---|---|---|---|---|---|---|\n"
        for each in figures:
            goal = "" if each.goal is None else f"{each.goal:g} {each.unit}"
            cpu = ", ".join(f"{part} {seconds:.1f}" for part, seconds in each.cpu_s.items())
            remarks = "; ".join(part for part in (each.note, f"CPU-seconds: {cpu}" if cpu else "") if part)
            shares = f"{_share(each.of_goal)} | {_share(each.of_raw)}"
            yield f"| {each.bench} | {each.what} | {each.value:,.3g} {each.unit} | {goal} | {shares} | {remarks} |\n"
    yield "\n"


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.2f}"


def _chart(figures: Sequence[Figure]) -> str:
    """Draw one bar for each figure: how much of its goal it reaches, and a tick where the raw limit lies."""
    height = _ROW_PX * (len(figures) + 2)
    width = _LABEL_PX + int(_UNIT_PX * _MOST) + 60
    goal_x = _LABEL_PX + _UNIT_PX
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{goal_x}" y="14" text-anchor="middle" fill="#444444">goal</text>',
        f'<line x1="{goal_x}" y1="18" x2="{goal_x}" y2="{height - 6}" stroke="#444444" stroke-dasharray="3 3"/>',
    ]
    for row, each in enumerate(figures, 1):
        share = each.of_goal or 0.0
        y = row * _ROW_PX + 4
        color = "#2e7d32" if share >= 1 else "#b35c00"
        length = int(min(share, _MOST) * _UNIT_PX)
        parts += [
            f'<text x="{_LABEL_PX - 8}" y="{y + 12}" text-anchor="end" fill="#222222">{escape(f"{each.bench} {each.what}"[:66])}</text>',
            f'<rect x="{_LABEL_PX}" y="{y}" width="{length}" height="15" fill="{color}"/>',
            f'<text x="{_LABEL_PX + length + 6}" y="{y + 12}" fill="#222222">{share:.2f}</text>',
        ]
        if each.raw and each.goal:
            limit = each.raw / each.goal if each.better == "higher" else each.goal / each.raw
            x = _LABEL_PX + int(min(limit, _MOST) * _UNIT_PX)
            parts.append(f'<line x1="{x}" y1="{y - 2}" x2="{x}" y2="{y + 17}" stroke="#1a4f9c" stroke-width="3"/>')
    return "\n".join([*parts, "</svg>", ""])
