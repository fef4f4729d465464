"""Setting up tracing for a process: what is kept, and where spans go."""

import asyncio
from threading import Thread
from typing import Final

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from typing_extensions import override

from habeas.chassis.redaction import Name
from habeas.chassis.settings import ChassisSettings
from habeas.chassis.span_file import JsonlSpanExporter

LINKS_MAX: Final = 128

_QUEUE_MAX: Final = 8_192
_BATCH_MAX: Final = 512
_DELAY_S: Final = 1.0
_NEVER_MS: Final = 24 * 60 * 60 * 1_000
_EXPORT_TIMEOUT_S: Final = 10
_SHUTDOWN_S: Final = 3.0


class WokenSpanProcessor(BatchSpanProcessor):
    """Sends spans a second after the first that waits; without spans its thread sleeps instead of looking for some each second.

    To be made and used in a running event loop; without one, spans wait for a full batch or the end.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        super().__init__(
            exporter,
            max_queue_size=_QUEUE_MAX,
            max_export_batch_size=_BATCH_MAX,
            schedule_delay_millis=_NEVER_MS,
            export_timeout_millis=_EXPORT_TIMEOUT_S * 1_000,
        )
        self._is_due = False

    @override
    def on_end(self, span: ReadableSpan) -> None:
        super().on_end(span)
        if not self._is_due:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                return
            self._is_due = True
            loop.call_later(_DELAY_S, self._send)

    def _send(self) -> None:
        """Write a file, or speak to a collector that may be away: nobody waits for it, also at the end."""
        self._is_due = False
        Thread(target=self.force_flush, name="spans", daemon=True).start()


class Tracing:
    """What `configure` set up; without it nothing is traced."""

    def __init__(self) -> None:
        self.provider: TracerProvider | None = None
        self.tracer: trace.Tracer | None = None
        self.begins = False  # whether any new trace is kept


state = Tracing()


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
        span_limits=SpanLimits(max_span_attributes=64, max_links=LINKS_MAX, max_events=0, max_attribute_length=256),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(WokenSpanProcessor(exporter))
    shutdown()
    state.provider = provider
    state.tracer = provider.get_tracer("habeas.chassis")
    state.begins = settings.trace_ratio > 0


def shutdown() -> None:
    """Send what is queued and stop tracing, in three seconds at most: a collector that is away is not waited for.

    Idempotent. Blocks the caller meanwhile.
    """
    provider, state.provider, state.tracer = state.provider, None, None
    if provider is not None:
        sending = Thread(target=provider.shutdown, name="last spans", daemon=True)
        sending.start()
        sending.join(_SHUTDOWN_S)


def _exporter(service: str, settings: ChassisSettings) -> SpanExporter | None:
    if settings.otlp_endpoint is not None:
        return OTLPSpanExporter(endpoint=settings.otlp_endpoint, timeout=_EXPORT_TIMEOUT_S)
    if settings.traces_dir is not None:
        settings.traces_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return JsonlSpanExporter(settings.traces_dir / f"{Name(service)}.jsonl")
    return None
