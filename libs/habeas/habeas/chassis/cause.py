"""The cause of what is being done now, as a W3C trace parent: what a message, a row or a tick brought along."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, Token
from datetime import datetime
from typing import Final

from opentelemetry.trace import SpanKind

from habeas.chassis import tracing
from habeas.chassis.clock import Clock
from habeas.chassis.trace_context import extract, is_kept

_LINKS_MAX: Final = 32

_cause: ContextVar[str | None] = ContextVar("cause", default=None)


def current() -> str | None:
    """Give the trace parent of the message or row that is being handled, if any."""
    return _cause.get()


def become(traceparent: str | None) -> "Token[str | None]":
    """Name the cause of what follows in this task, until ``go_back`` is called with what this gives."""
    return _cause.set(traceparent)


def go_back(before: "Token[str | None]") -> None:
    """Take up the cause again that was named before."""
    _cause.reset(before)


def record(
    name: str,
    causes: Sequence[str],
    started: datetime,
    ended: datetime,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: tracing.Attributes | None = None,
) -> None:
    """Record work that was done for several causes at once: a span under the first, with links to the others."""
    kept = [each for each in dict.fromkeys(causes) if is_kept(each)]
    if not kept:
        return
    first, *others = kept
    links = [extract(other) for other in others[:_LINKS_MAX]]
    tracing.span_from_times(name, extract(first), started, ended, kind=kind, links=links, attributes=attributes)


@contextmanager
def worked(name: str, traces: Sequence[str | None], clock: Clock) -> Iterator[None]:
    """Record the block as a span of the traces that it works for, whether or not it succeeds."""
    started = clock.now()
    try:
        yield
    finally:
        record(name, [trace for trace in traces if trace is not None], started, clock.now(), kind=SpanKind.CLIENT)
