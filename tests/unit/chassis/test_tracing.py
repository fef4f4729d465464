"""Spans; the traceparent examples are those of W3C Trace Context."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import UUID

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import SecretStr
from typing_extensions import override

from habeas.chassis import trace_setup, tracing
from habeas.chassis.log import Name
from habeas.chassis.redaction import REDACTED
from habeas.chassis.settings import ChassisSettings, Environment
from habeas.chassis.span_file import JsonlSpanExporter

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
KEPT = f"00-{TRACE}-00f067aa0ba902b7-01"  # section 3.2.3 of W3C Trace Context, as is the next
NOT_KEPT = f"00-{TRACE}-00f067aa0ba902b7-00"
T0 = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
T1 = datetime(2026, 11, 24, 12, 0, 1, 500_000, tzinfo=UTC)
T0_NS = 1_795_521_600_000_000_000  # date -d 2026-11-24T12:00:00Z +%s
PERSON = "ada.lovelace@example.org"

Spans = Callable[[], list[dict[str, Any]]]


@dataclass(frozen=True)
class Message:
    """A message of an inbox."""

    inbox_id: int
    traceparent: str | None
    event_id: UUID = field(default_factory=lambda: UUID(int=7))
    type: str = "request.accepted"
    received_at: datetime = T0
    attempts: int = 1


def settings(**given: Any) -> ChassisSettings:
    """Settings of a developer's machine."""
    return ChassisSettings(
        environment=Environment.DEVELOPMENT,
        kafka_bootstrap="127.0.0.1:9092",
        database_dsn=SecretStr("postgresql:///x"),
        instance=3,
        **given,
    )


def start(directory: Path, ratio: float) -> Spans:
    """Trace into the directory; gives what reads the spans."""
    tracing.configure("erasure-executor", settings(traces_dir=directory / "traces", trace_ratio=ratio))

    def spans() -> list[dict[str, Any]]:
        tracing.shutdown()
        lines = (directory / "traces" / "erasure-executor.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    return spans


@pytest.fixture
def spans(tmp_path: Path) -> Iterator[Spans]:
    """Tracing that keeps every trace."""
    yield start(tmp_path, 1)
    tracing.shutdown()


@pytest.fixture
def no_spans(tmp_path: Path) -> Iterator[Spans]:
    """Tracing that keeps no new trace."""
    yield start(tmp_path, 0)
    tracing.shutdown()


def test_traceparent_comes_back() -> None:
    """What is read from a header is written as the same header."""
    assert tracing.inject(tracing.extract(KEPT)) == KEPT
    assert tracing.inject(tracing.extract(NOT_KEPT)) == NOT_KEPT


def test_a_later_version_is_read_as_ours() -> None:
    """A higher version may carry more after a dash; we write version 00 (W3C Trace Context 3.2.4)."""
    assert tracing.inject(tracing.extract(f"cc-{TRACE}-00f067aa0ba902b7-01-what-the-future-will-be-like")) == KEPT
    assert tracing.inject(tracing.extract(f"cc-{TRACE}-00f067aa0ba902b7-01")) == KEPT
    assert tracing.inject(tracing.extract(f"00-{TRACE}-00f067aa0ba902b7-ff")) == KEPT


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        "",
        "x",
        KEPT.upper(),
        KEPT + "-extra",
        KEPT + "\n",
        " " + KEPT,
        KEPT.replace("-", "_"),
        f"ff-{TRACE}-00f067aa0ba902b7-01",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-00f067aa0ba902b7-1",
        f"cc-{TRACE}-00f067aa0ba902b7-01.future",
        f"cc-{TRACE}-00f067aa0ba902b7-01-" + "x" * 10_000,
    ],
)
def test_a_wrong_traceparent_starts_a_new_trace(spans: Spans, wrong: str | None) -> None:
    """A header that is not exactly as W3C writes it is not believed at all."""
    assert tracing.inject(tracing.extract(wrong)) is None
    with tracing.span("x", tracing.extract(wrong)):
        pass
    assert spans()[0]["parent_id"] is None


def test_a_span_is_one_line(spans: Spans) -> None:
    """A span is written with its place in the trace, its times, kind, service, attributes and status."""
    with tracing.span("erase plan", KEPT, kind=tracing.SpanKind.CONSUMER, attributes={"rows": 3}) as open_span:
        open_span.set_attribute("store", Name("platform"))
        inside = tracing.inject()
    (made,) = spans()
    assert made.pop("end_ns") >= made.pop("start_ns")
    assert inside == f"00-{TRACE}-{made.pop('span_id')}-01"
    assert made == {
        "trace_id": TRACE,
        "parent_id": "00f067aa0ba902b7",
        "links": [],
        "name": "erase plan",
        "kind": "consumer",
        "service": "erasure-executor",
        "attributes": {"rows": 3, "store": "platform"},
        "status": "unset",
    }


def test_spans_nest_and_the_outer_comes_back(spans: Spans) -> None:
    """A span inside another is its child; afterwards the outer goes on."""
    with tracing.span("outer"):
        outside = tracing.inject()
        with tracing.span("inner"):
            assert tracing.inject() != outside
        assert tracing.inject() == outside
    inner, outer = spans()
    assert (inner["parent_id"], inner["trace_id"]) == (outer["span_id"], outer["trace_id"])


async def test_tasks_do_not_mix_their_spans(spans: Spans) -> None:
    """Spans of tasks that run at the same time have their own parents."""

    async def work(parent: str) -> None:
        with tracing.span(f"{parent}"):
            await asyncio.sleep(0)
            with tracing.span(f"{parent} child"):
                await asyncio.sleep(0)

    await asyncio.gather(work("a"), work("b"))
    by_name = {made["name"]: made for made in spans()}
    assert all(by_name[f"{name} child"]["parent_id"] == by_name[name]["span_id"] for name in "ab")


def test_values_are_redacted_by_type(spans: Spans) -> None:
    """Attributes obey what log fields obey."""
    with tracing.span("x", attributes={"who": PERSON, "id": UUID(int=1), "all": [1, PERSON], "none": None}):
        pass
    assert spans()[0]["attributes"] == {
        "who": REDACTED,
        "id": "00000000-0000-0000-0000-000000000001",
        "all": ["1", REDACTED],
        "none": REDACTED,
    }


def test_errors_are_told_by_class(spans: Spans) -> None:
    """An exception passes through, and marks the span with its class alone."""
    with pytest.raises(ValueError, match="ada"), tracing.span("x"):
        raise ValueError(PERSON)
    (made,) = spans()
    assert (made["status"], made["attributes"]) == ("error", {"error.type": "ValueError"})


def test_a_trace_that_is_not_kept_passes_through(spans: Spans) -> None:
    """Whoever began the trace decided not to keep it: no spans, and the same header goes on."""
    with tracing.span("x", NOT_KEPT):
        assert tracing.inject() == NOT_KEPT
        with tracing.span("y"):
            assert tracing.inject() == NOT_KEPT
    assert tracing.inject() is None
    assert tracing.start_hop("a.b.v1", NOT_KEPT, T0) is None
    assert spans() == []


def test_the_decision_not_to_keep_goes_along(no_spans: Spans) -> None:
    """A new trace that is not kept tells the next service so."""
    with tracing.span("x"):
        passed_on = tracing.inject()
    assert passed_on is not None
    assert passed_on.endswith("-00")
    traces = tracing.start_messages([Message(1, None)], T1).traces
    assert (traces[1] or "").endswith("-00")
    hop = tracing.start_hop("a.b.v1", None, T0)
    assert hop is not None
    assert hop.traceparent.endswith("-00")
    assert no_spans() == []


def test_without_configuration_nothing_is_traced() -> None:
    """Without a place for spans everything passes on what came in."""
    with tracing.span("x", KEPT):
        assert tracing.inject() is None
    assert tracing.start_hop("a.b.v1", KEPT, T0) is None
    assert tracing.start_messages([Message(1, KEPT)], T1).traces == {1: KEPT}


def test_spans_after_the_fact(spans: Spans) -> None:
    """A span of given times is recorded to the microsecond; an end before the start is moved to it."""
    above = tracing.span_from_times("inbox.wait", KEPT, T0, T1)
    tracing.span_from_times("next", above, T1, T0)
    wait, following = spans()
    assert (wait["start_ns"], wait["end_ns"]) == (T0_NS, T0_NS + 1_500_000_000)
    assert (following["parent_id"], following["start_ns"]) == (wait["span_id"], following["end_ns"])


def test_a_message_makes_one_trace_through_kafka_and_inbox(spans: Spans) -> None:
    """Hop, wait and handling hang together, and what the handler emits hangs on the handling."""
    hop = tracing.start_hop("request-intake.requests.v1", KEPT, T0)
    assert hop is not None
    hop.end()
    batch = tracing.start_messages([Message(1, hop.traceparent)], T1)
    with tracing.finished(batch):
        emitted = batch.traces[1]
    publish, wait, handle = spans()
    assert (publish["name"], publish["parent_id"], publish["start_ns"]) == ("kafka.publish", "00f067aa0ba902b7", T0_NS)
    assert (wait["name"], wait["parent_id"]) == ("inbox.wait", publish["span_id"])
    assert (handle["name"], handle["parent_id"]) == ("message.handle", wait["span_id"])
    assert handle["attributes"]["type"] == "request.accepted"
    assert emitted == f"00-{TRACE}-{handle['span_id']}-01"


def test_a_failed_batch_marks_its_messages(spans: Spans) -> None:
    """When a batch raises, the span of each of its messages says so."""
    batch = tracing.start_messages([Message(1, KEPT), Message(2, KEPT)], T1)
    with pytest.raises(KeyError), tracing.finished(batch):
        raise KeyError(PERSON)
    handled = [made for made in spans() if made["name"] == "message.handle"]
    assert [made["status"] for made in handled] == ["error", "error"]


def test_links_lead_to_other_traces(spans: Spans) -> None:
    """A span may point at what it also belongs to; what is no trace is left out."""
    with tracing.span("x", links=[tracing.extract(KEPT), tracing.extract(None)]):
        pass
    assert spans()[0]["links"] == [{"trace_id": TRACE, "span_id": "00f067aa0ba902b7"}]


def test_the_file_of_spans_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spans: Spans) -> None:
    """A file that is full makes room by becoming the older one."""
    monkeypatch.setattr("habeas.chassis.span_file._BYTES_MAX", 1_000)
    for _ in range(20):
        with tracing.span("x"):
            pass
        provider = trace_setup.state.provider
        assert provider is not None
        provider.force_flush()
    directory = tmp_path / "traces"
    assert sorted(file.name for file in directory.iterdir()) == [
        "erasure-executor.jsonl",
        "erasure-executor.jsonl.1",
    ]
    assert all(file.stat().st_size <= 1_000 for file in directory.iterdir())


def test_spans_are_for_their_owner_only(tmp_path: Path) -> None:
    """Files of spans are readable by the service's user alone."""
    exporter = JsonlSpanExporter(tmp_path / "x.jsonl")
    exporter.shutdown()
    assert (tmp_path / "x.jsonl").stat().st_mode & 0o777 == 0o600


def test_spans_go_to_the_collector() -> None:
    """With an endpoint, spans are posted there as OTLP protobuf, with service and instance."""
    received: list[tuple[str, str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Take a batch."""
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append((self.path, self.headers["content-type"], body))
            self.send_response(200)
            self.end_headers()

        @override
        def log_message(self, *_: object) -> None:
            """Be silent."""

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        tracing.configure(
            "erasure-executor",
            settings(otlp_endpoint=f"http://127.0.0.1:{server.server_port}/v1/traces", trace_ratio=1),
        )
        with tracing.span("erase plan", KEPT):
            pass
        tracing.shutdown()
        server.shutdown()
        thread.join()
    ((path, kind, body),) = received
    assert (path, kind) == ("/v1/traces", "application/x-protobuf")
    sent = ExportTraceServiceRequest.FromString(body).resource_spans[0]
    assert {each.key: each.value.string_value for each in sent.resource.attributes} == {
        "service.name": "erasure-executor",
        "service.instance.id": "3",
    }
    assert [(each.name, each.trace_id.hex()) for each in sent.scope_spans[0].spans] == [("erase plan", TRACE)]


def test_a_silent_collector_does_not_hold_up_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector that takes connections and never answers delays the stop by a bounded time."""
    monkeypatch.setattr(trace_setup, "_SHUTDOWN_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        tracing.configure(
            "erasure-executor", settings(otlp_endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}/", trace_ratio=1)
        )
        with tracing.span("x"):
            pass
        tracing.shutdown()
        assert [each for each in threading.enumerate() if each.name == "last spans"], (
            "it still waits, and nobody for it"
        )
