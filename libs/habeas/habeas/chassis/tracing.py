"""Spans: where a request spent its time, across services, by identity and never by value.

Attributes pass through `redaction.clean` as log fields do. A trace that is not kept costs next to nothing: its spans are
not made. Without an endpoint or a directory for spans nothing is traced at all.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Token
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Final, Protocol, Self, TypeAlias, final
from uuid import UUID

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    Span,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)
from opentelemetry.util.types import AttributeValue

from habeas.chassis.redaction import REDACTED, Json, class_name, clean, literal, named
from habeas.chassis.trace_context import extract, inject, is_kept, not_kept, write
from habeas.chassis.trace_setup import LINKS_MAX, configure, shutdown, state

__all__ = [
    "Attributes",
    "Context",
    "SpanKind",
    "configure",
    "current",
    "extract",
    "finished",
    "inject",
    "shutdown",
    "span",
    "span_from_times",
    "start_hop",
    "start_messages",
]

Attributes: TypeAlias = Mapping[str, object]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def current() -> Context:
    """Give the context that goes on now, to be a parent later."""
    return contexts.get_current()


@final
class span:  # noqa: N801 -- used like a function, `with span("…"):`; a class costs less than a generator
    """Make a span for the time of a `with` block and let the context in it go on; gives the span's context.

    `name` and the keys of `attributes` are literals; `parent` is a context or a
    `traceparent`; None means the current context, an empty one a new trace.
    An exception that leaves the block marks the span as failed by its class, and goes on. Spans of a trace that is not
    kept are not made: the block runs in the parent's context.
    """

    __slots__ = ("_attributes", "_kind", "_links", "_name", "_parent", "_span", "_token")

    def __init__(
        self,
        name: str,
        parent: Context | str | None = None,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        links: Sequence[Context] = (),
        attributes: Attributes | None = None,
    ) -> None:
        self._name = name
        self._parent = extract(parent) if isinstance(parent, str) else parent
        self._kind = kind
        self._links = links
        self._attributes = attributes
        self._span: Span = INVALID_SPAN
        self._token: Token[Context] | None = None

    def __enter__(self) -> Self:
        """Start the span."""
        tracer = state.tracer
        if tracer is None:
            return self
        parent = self._parent
        above = trace.get_current_span(parent).get_span_context()
        if above.is_valid and not above.trace_flags & TraceFlags.SAMPLED:
            if parent is not None:
                self._token = contexts.attach(parent)
            return self
        self._span = tracer.start_span(
            literal(self._name),
            parent,
            self._kind,
            _clean(self._attributes),
            _links(self._links),
            record_exception=False,
        )
        self._token = contexts.attach(trace.set_span_in_context(self._span, parent))
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """End the span."""
        if self._token is not None:
            contexts.detach(self._token)
        if self._span is not INVALID_SPAN:
            if error is not None:
                _fail(self._span, error)
            self._span.end()

    def set_attribute(self, key: str, value: object) -> None:
        """Add an attribute, cleaned as the others."""
        if self._span.is_recording():
            self._span.set_attribute(literal(key), _attribute(clean(value)))


def span_from_times(
    name: str,
    parent: Context | str | None,
    start: datetime,
    end: datetime,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    links: Sequence[Context] = (),
    attributes: Attributes | None = None,
) -> Context:
    """Record a span after the fact and give its context, to be the parent of what followed.

    For hops that no block of code encloses: through Kafka, or the wait in an inbox. An `end` before `start`, as clocks of
    two machines can give it, is moved to `start`. Where the trace is not kept the parent is given back.
    """
    above = parent if isinstance(parent, Context) else extract(parent)
    made = _start(name, above, start, kind, attributes, links)
    if made is None:
        return above
    made.end(_nanoseconds(max(start, end)))
    return trace.set_span_in_context(made, above)


@final
class Hop:
    """The way of one message from the transaction that emitted it to Kafka's acknowledgement."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span_of_hop: Span | None) -> None:
        self._span = span_of_hop
        self.traceparent = not_kept() if span_of_hop is None else write(span_of_hop.get_span_context())

    def end(self) -> None:
        """Kafka has acknowledged the message."""
        if self._span is not None:
            self._span.end()


def start_hop(topic: str, traceparent: str | None, emitted_at: datetime) -> Hop | None:
    """Start the span of a message that goes out, back when it was emitted; None where others do not keep its trace."""
    if state.tracer is None or (traceparent is not None and not is_kept(traceparent)):
        return None
    if traceparent is None and not state.begins:
        return Hop(None)  # the decision not to keep it goes along
    made = _start("kafka.publish", extract(traceparent), emitted_at, SpanKind.PRODUCER, {"topic": named(topic)})
    return None if made is None else Hop(made)


class Received(Protocol):
    """What the spans of a message tell about it."""

    @property
    def inbox_id(self) -> int:
        """Its row."""
        ...

    @property
    def event_id(self) -> UUID:
        """Its id, the same wherever it goes."""
        ...

    @property
    def type(self) -> str:
        """The type of its event, as the catalogue writes it."""
        ...

    @property
    def traceparent(self) -> str | None:
        """What came with it."""
        ...

    @property
    def received_at(self) -> datetime:
        """When it was stored."""
        ...

    @property
    def attempts(self) -> int:
        """How often it was tried before."""
        ...


@final
class MessageSpans:
    """One open span for each message of a batch whose trace is kept; `traces` has what its effects pass on, by row."""

    __slots__ = ("spans", "traces")

    def __init__(self, spans: Sequence[Span], traces: Mapping[int, str | None]) -> None:
        self.spans = spans
        self.traces = traces


def start_messages(messages: Sequence[Received], now: datetime) -> MessageSpans:
    """Record how long each message waited in the inbox, until `now`, and start the span of its handling."""
    spans: list[Span] = []
    traces: dict[int, str | None] = {}
    for message in messages:
        parent = traces[message.inbox_id] = message.traceparent
        if state.tracer is None:
            continue
        if parent is None and not state.begins:
            traces[message.inbox_id] = not_kept()
            continue
        if parent is not None and not is_kept(parent):
            continue
        above = span_from_times("inbox.wait", message.traceparent, message.received_at, now, kind=SpanKind.CONSUMER)
        attributes = {"type": named(message.type), "event_id": message.event_id, "attempts": message.attempts}
        made = _start("message.handle", above, now, SpanKind.CONSUMER, attributes)
        if made is not None:
            spans.append(made)
            traces[message.inbox_id] = write(made.get_span_context())
        elif message.traceparent is None:
            traces[message.inbox_id] = inject(above)  # the decision not to keep the trace goes along with it
    return MessageSpans(spans, traces)


@contextmanager
def finished(spans: MessageSpans) -> Iterator[None]:
    """End the spans of a batch with the block; one that raises marks them all as failed, by the error's class."""
    try:
        yield
    except BaseException as error:
        for each in spans.spans:
            _fail(each, error)
        raise
    finally:
        for each in spans.spans:
            each.end()


def _start(
    name: str,
    parent: Context,
    start: datetime,
    kind: SpanKind,
    attributes: Attributes | None,
    links: Sequence[Context] = (),
) -> Span | None:
    """Start a span at a time of our own clock; None where others decided not to keep the trace.

    A new trace that is not kept gives a span that records nothing, so that the decision can be passed on.
    """
    tracer = state.tracer
    above = trace.get_current_span(parent).get_span_context()
    if tracer is None or (above.is_valid and not above.trace_flags & TraceFlags.SAMPLED):
        return None
    return tracer.start_span(
        literal(name), parent, kind, _clean(attributes), _links(links), _nanoseconds(start), record_exception=False
    )


def _fail(failed: Span, error: BaseException) -> None:
    failed.set_attribute("error.type", class_name(error))
    failed.set_status(Status(StatusCode.ERROR))


def _links(links: Sequence[Context]) -> list[Link]:
    spans = (trace.get_current_span(link).get_span_context() for link in links[:LINKS_MAX])
    return [Link(span_context) for span_context in spans if span_context.is_valid]


def _clean(attributes: Attributes | None) -> dict[str, AttributeValue] | None:
    if not attributes:
        return None
    return {literal(key): _attribute(clean(value)) for key, value in attributes.items()}


def _attribute(value: Json) -> AttributeValue:
    """Give the value in a type that spans know: lists become lists of text, anything deeper is left out."""
    if isinstance(value, list):
        return [str(member) for member in value if not isinstance(member, list | dict)]
    if value is None or isinstance(value, dict):
        return REDACTED
    return value


def _nanoseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND * 1_000
