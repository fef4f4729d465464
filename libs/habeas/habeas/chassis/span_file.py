"""Spans as JSON lines in a file, for where no collector runs."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Final, final

import orjson
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from typing_extensions import override

_BYTES_MAX: Final = 64 * 1024 * 1024


@final
class JsonlSpanExporter(SpanExporter):
    """Appends one line for each span to a file, whole batches at once, so that several processes may share it.

    Past 64 MiB the file becomes `<file>.1`, in place of an older one: at most 128 MiB are kept.
    """

    def __init__(self, path: Path) -> None:
        """Open or make `path`; raises OSError when it cannot be written."""
        self._path = path
        self._lock = Lock()
        self._file = self._open()

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        lines = b"".join(orjson.dumps(_line(span), option=orjson.OPT_APPEND_NEWLINE) for span in spans)
        try:
            with self._lock:
                if os.fstat(self._file).st_size + len(lines) > _BYTES_MAX:
                    self._turn_over()
                os.write(self._file, lines)
        except OSError:
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    @override
    def shutdown(self) -> None:
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    @override
    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _turn_over(self) -> None:
        os.close(self._file)
        self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        self._file = self._open()


def _line(span: ReadableSpan) -> Mapping[str, object]:
    own = span.get_span_context()
    return {
        "trace_id": f"{own.trace_id:032x}" if own is not None else None,
        "span_id": f"{own.span_id:016x}" if own is not None else None,
        "parent_id": f"{span.parent.span_id:016x}" if span.parent is not None else None,
        "links": [
            {"trace_id": f"{x.context.trace_id:032x}", "span_id": f"{x.context.span_id:016x}"} for x in span.links
        ],
        "name": span.name,
        "kind": span.kind.name.lower(),
        "service": span.resource.attributes["service.name"],
        "start_ns": span.start_time,
        "end_ns": span.end_time,
        "attributes": dict(span.attributes or {}),
        "status": span.status.status_code.name.lower(),
    }
