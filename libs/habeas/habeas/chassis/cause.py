"""The cause of what is being done now, as a W3C trace parent: what a message, a row or a tick brought along."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Final

from opentelemetry.trace import SpanKind

from habeas.chassis import tracing
from habeas.chassis.clock import Clock
from habeas.chassis.trace_context import extract

_LINKS_MAX: Final = 32

_cause: ContextVar[str | None] = ContextVar("cause", default=None)


def current() -> str | None:
    """Give the trace parent of the message or row that is being handled, if any."""
    return _cause.get()


def become(traceparent: str | None) -> None:
    """Name the cause of what follows in this task."""
    _cause.set(traceparent)


@contextmanager
def of(traceparent: str | None) -> Iterator[None]:
    """Name the cause of what the block does."""
    token = _cause.set(traceparent)
    try:
        yield
    finally:
        _cause.reset(token)


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
    if not causes:
        return
    first, *others = dict.fromkeys(causes)
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
