"""How a trace travels between processes and in rows: the `traceparent` of W3C Trace Context."""

import os
import re
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

# W3C Trace Context, section 3.2: lower-case hexadecimal; a later version may append fields after a dash.
_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[ -~]{0,256})?")
_VERSION_NOW: Final = "00"
_VERSION_INVALID: Final = "ff"
_NOTHING: Final = Context()
_SAMPLED_DIGITS: Final = frozenset("13579bdf")


def extract(traceparent: str | None) -> Context:
    """Read a W3C `traceparent` strictly; what is missing or wrong gives an empty context, in which a new trace starts."""
    match = _TRACEPARENT.fullmatch(traceparent) if traceparent is not None else None
    if match is None:
        return _NOTHING
    version, trace_id, span_id, flags, rest = match.groups()
    if version == _VERSION_INVALID or (version == _VERSION_NOW and rest is not None):
        return _NOTHING
    span_context = SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16) & TraceFlags.SAMPLED)
    )
    if not span_context.is_valid:
        return _NOTHING
    return trace.set_span_in_context(NonRecordingSpan(span_context), _NOTHING)


def is_kept(traceparent: str) -> bool:
    """Answer from the last digit, the sampled flag, whether the trace is kept; for what was read or written by this module."""
    return traceparent[-1] in _SAMPLED_DIGITS


def not_kept() -> str:
    """Begin a trace that nobody keeps, so that this decision travels; costs a microsecond where spans would cost thirty."""
    digits = os.urandom(24).hex()
    return f"00-{digits[:32]}-{digits[32:]}-00"


def inject(context: Context | None = None) -> str | None:
    """Write the context, or the current one, as a W3C `traceparent` of version 00; None where no trace goes on."""
    span_context = trace.get_current_span(context).get_span_context()
    return write(span_context) if span_context.is_valid else None


def write(span_context: SpanContext) -> str:
    """Write the place of a span in its trace as a `traceparent` of version 00."""
    return f"00-{span_context.trace_id:032x}-{span_context.span_id:016x}-{span_context.trace_flags & 1:02x}"
