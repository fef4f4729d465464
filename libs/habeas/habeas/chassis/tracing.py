"""Spans: where a request spent its time, across services, by identity and never by value.

Attributes pass through `redaction.clean` as log fields do. A trace that is not kept costs next to nothing: its spans are
not made. Without an endpoint or a directory for spans nothing is traced at all.
"""

import re
from collections.abc import Mapping, Sequence
from contextvars import Token
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Final, Self, TypeAlias, final

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)
from opentelemetry.util.types import AttributeValue

from habeas.chassis.redaction import REDACTED, Json, Name, class_name, clean, literal
from habeas.chassis.settings import ChassisSettings
from habeas.chassis.span_file import JsonlSpanExporter

__all__ = [
    "Attributes",
    "Context",
    "SpanKind",
    "configure",
    "current",
    "extract",
    "inject",
    "shut_down",
    "span",
    "span_from_times",
]

Attributes: TypeAlias = Mapping[str, object]

_QUEUE_MAX: Final = 8_192
_BATCH_MAX: Final = 512
_DELAY_MS: Final = 1_000
_EXPORT_TIMEOUT_S: Final = 10
_LINKS_MAX: Final = 128
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

# W3C Trace Context, section 3.2: lower-case hexadecimal; a later version may append fields after a dash.
_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[ -~]{0,256})?")
_VERSION_NOW: Final = "00"
_VERSION_INVALID: Final = "ff"
_NOTHING: Final = Context()


class _Tracing:
    """What `configure` set up; without it nothing is traced."""

    def __init__(self) -> None:
        self.provider: TracerProvider | None = None
        self.tracer: trace.Tracer | None = None


_tracing = _Tracing()


def configure(service: str, settings: ChassisSettings) -> None:
    """Trace for `service` from now on: to the OTLP endpoint when one is set, else to `<traces_dir>/<service>.jsonl`.

    A caller's decision to keep a trace is followed; of new ones the share `trace_ratio` is kept. Spans wait in a bounded
    queue and are dropped, not waited for, when it is full. Raises OSError when the directory cannot be written.
    """
    exporter = _exporter(service, settings)
    if exporter is None:
        return
    resource = Resource({"service.name": service, "service.instance.id": str(settings.instance)})
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(settings.trace_ratio)),
        resource=resource,
        span_limits=SpanLimits(max_span_attributes=64, max_links=_LINKS_MAX, max_events=0, max_attribute_length=256),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter,
            max_queue_size=_QUEUE_MAX,
            max_export_batch_size=_BATCH_MAX,
            schedule_delay_millis=_DELAY_MS,
            export_timeout_millis=_EXPORT_TIMEOUT_S * 1_000,
        )
    )
    shut_down()
    _tracing.provider = provider
    _tracing.tracer = provider.get_tracer("habeas.chassis")


def shut_down() -> None:
    """Send what is queued and stop tracing. Idempotent; blocks for some seconds at most."""
    provider, _tracing.provider, _tracing.tracer = _tracing.provider, None, None
    if provider is not None:
        provider.shutdown()


def extract(traceparent: str | None) -> Context:
    """Read a W3C `traceparent` strictly; what is missing or wrong gives an empty context, in which a new trace starts."""
    match = _TRACEPARENT.fullmatch(traceparent) if traceparent is not None else None
    if match is None:
        return _NOTHING
    version, trace_id, span_id, flags, rest = match.groups()
    if version == _VERSION_INVALID or (version == _VERSION_NOW and rest is not None):
        return _NOTHING
    span_context = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=_flags(int(flags, 16)))
    if not span_context.is_valid:
        return _NOTHING
    return trace.set_span_in_context(NonRecordingSpan(span_context), _NOTHING)


def inject(context: Context | None = None) -> str | None:
    """Write the context, or the current one, as a W3C `traceparent` of version 00; None where no trace goes on."""
    span_context = trace.get_current_span(context).get_span_context()
    if not span_context.is_valid:
        return None
    return f"00-{span_context.trace_id:032x}-{span_context.span_id:016x}-{span_context.trace_flags & 1:02x}"


def current() -> Context:
    """Give the context that goes on now, to be a parent later."""
    return contexts.get_current()


@final
class span:  # noqa: N801 -- used like a function, `with span("…"):`; a class costs less than a generator
    """Make a span for the time of a `with` block and let the context in it go on; gives the span's context.

    `name` and the keys of `attributes` are literals; `parent` None means the current context, an empty one a new trace.
    An exception that leaves the block marks the span as failed by its class, and goes on. Spans of a trace that is not
    kept are not made: the block runs in the parent's context.
    """

    __slots__ = ("_attributes", "_kind", "_links", "_name", "_parent", "_span", "_token")

    def __init__(
        self,
        name: str,
        parent: Context | None = None,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        links: Sequence[Context] = (),
        attributes: Attributes | None = None,
    ) -> None:
        self._name = name
        self._parent = parent
        self._kind = kind
        self._links = links
        self._attributes = attributes
        self._span: Span = INVALID_SPAN
        self._token: Token[Context] | None = None

    def __enter__(self) -> Self:
        """Start the span."""
        tracer = _tracing.tracer
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
                self._span.set_attribute("error.type", class_name(error))
                self._span.set_status(Status(StatusCode.ERROR))
            self._span.end()

    def set(self, key: str, value: object) -> None:
        """Add an attribute, cleaned as the others."""
        if self._span.is_recording():
            self._span.set_attribute(literal(key), _attribute(clean(value)))


def span_from_times(
    name: str,
    parent: Context,
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
    tracer = _tracing.tracer
    above = trace.get_current_span(parent).get_span_context()
    if tracer is None or (above.is_valid and not above.trace_flags & TraceFlags.SAMPLED):
        return parent
    made = tracer.start_span(
        literal(name), parent, kind, _clean(attributes), _links(links), _nanoseconds(start), record_exception=False
    )
    made.end(_nanoseconds(max(start, end)))
    return trace.set_span_in_context(made, parent)


def _exporter(service: str, settings: ChassisSettings) -> SpanExporter | None:
    if settings.otlp_endpoint is not None:
        return OTLPSpanExporter(endpoint=settings.otlp_endpoint, timeout=_EXPORT_TIMEOUT_S)
    if settings.traces_dir is not None:
        settings.traces_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return JsonlSpanExporter(settings.traces_dir / f"{Name(service)}.jsonl")
    return None


def _flags(flags: int) -> TraceFlags:
    return TraceFlags(flags & TraceFlags.SAMPLED)


def _links(links: Sequence[Context]) -> list[Link]:
    spans = (trace.get_current_span(link).get_span_context() for link in links[:_LINKS_MAX])
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
