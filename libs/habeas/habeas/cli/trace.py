"""`habeas trace DIRECTORY TRACE`: the spans that services wrote into files, as the tree that they form."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from habeas.cli.output import AS_JSON, say, write_json

_SHOWN: Final = {"type": "{}", "topic": "{}", "db.statements": "({} statements)", "error.type": "{}"}
"""Attributes that say what a span was about, and how; the others are ids."""


@dataclass(frozen=True, slots=True)
class Span:
    """One line of a file of spans; ``parent_id`` is None where a trace began."""

    trace_id: str
    span_id: str
    parent_id: str | None
    service: str
    name: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Any]
    failed: bool

    @property
    def title(self) -> str:
        """What is said of it in a tree."""
        about = (form.format(self.attributes[name]) for name, form in _SHOWN.items() if name in self.attributes)
        return " ".join((self.service, self.name, *about)) + (" FAILED" if self.failed else "")


def read_spans(directory: Path) -> Iterator[Span]:
    """Give the spans of every file in a directory; a line that is still being written is left out."""
    for path in sorted((*directory.glob("*.jsonl.1"), *directory.glob("*.jsonl"))):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                yield _span(json.loads(line))


class Tree:
    """The spans of one trace, each under the span that caused it.

    ``roots`` are those whose cause is in no file: one, where the trace came from somebody who writes no files, and more where spans
    were lost.
    """

    def __init__(self, spans: Iterable[Span]) -> None:
        ordered = sorted(spans, key=lambda span: (span.start_ns, span.end_ns, span.span_id))
        self.by_id = {span.span_id: span for span in ordered}
        self._children: dict[str, list[Span]] = defaultdict(list)
        roots = []
        for span in ordered:
            if span.parent_id in self.by_id:
                self._children[span.parent_id or ""].append(span)
            else:
                roots.append(span)
        self.roots = tuple(roots)

    def children(self, span: Span) -> tuple[Span, ...]:
        """Give what a span caused, in order of time."""
        return tuple(self._children[span.span_id])

    def causes(self, span: Span) -> tuple[Span, ...]:
        """Give the way from the root to a span, itself included."""
        way = [span]
        while (above := self.by_id.get(way[-1].parent_id or "")) is not None:
            way.append(above)
        return tuple(reversed(way))

    def lines(self) -> Iterator[str]:
        """Draw the tree: when each span began, counted from the first, how long it took, and what it was."""
        first_ns = min((span.start_ns for span in self.by_id.values()), default=0)
        waiting = [(span, "", "") for span in reversed(self.roots)]
        while waiting:
            span, branch, below = waiting.pop()
            start, took = (span.start_ns - first_ns) / 1e6, (span.end_ns - span.start_ns) / 1e6
            yield f"{start:9.1f} ms {took:8.1f} ms  {branch}{span.title}"
            caused = self.children(span)
            for child in reversed(caused):
                last = child is caused[-1]
                waiting.append((child, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  ")))


@click.command(name="trace")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("trace_id", metavar="TRACE")
@AS_JSON
def trace(directory: Path, trace_id: str, *, as_json: bool) -> None:
    """Draw the tree of one TRACE from the span files in DIRECTORY, such as .habeas/run/dev/traces.

    TRACE is its id, or a traceparent that holds it. Exit code 1 when no file knows it.
    """
    parts = trace_id.split("-")
    wanted = parts[1] if len(parts) > 1 else trace_id
    spans = [span for span in read_spans(directory) if span.trace_id == wanted]
    if not spans:
        raise click.ClickException("no file knows this trace")
    tree = Tree(spans)
    if as_json:
        write_json([_plain(span) for span in tree.by_id.values()])
        return
    say("    start         took")
    for line in tree.lines():
        say(line)


def _span(line: Mapping[str, Any]) -> Span:
    failed = line["status"] == "error"
    return Span(failed=failed, **{name: line[name] for name in Span.__slots__ if name != "failed"})


def _plain(span: Span) -> dict[str, Any]:
    return {name: getattr(span, name) for name in Span.__slots__}
