"""The cause of what is being done now, as a W3C trace parent: what a message, a row or a tick brought along."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

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
