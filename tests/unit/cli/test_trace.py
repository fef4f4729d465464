import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from habeas.cli.trace import Tree, read_spans, trace

TRACE = "0af7651916cd43dd8448eb211c80319c"  # the example of W3C Trace Context
MS = 1_000_000


def line(span_id: str, parent_id: str | None, name: str, start_ms: int, end_ms: int, **changed: Any) -> dict[str, Any]:
    """A line as services write it."""
    return {
        "trace_id": TRACE,
        "span_id": span_id,
        "parent_id": parent_id,
        "links": [],
        "name": name,
        "kind": "internal",
        "service": "one",
        "start_ns": 1_000 * MS + start_ms * MS,
        "end_ns": 1_000 * MS + end_ms * MS,
        "attributes": {},
        "status": "unset",
        **changed,
    }


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Files of two services: a tree of five spans, and one of another trace; the last line is not finished."""
    one = [
        line("a", "f" * 16, "message.handle", 0, 5, attributes={"type": "request.accepted", "event_id": "x"}),
        line("c", "a", "transaction/save", 3, 4, attributes={"db.statements": 2}),
        line("b", "a", "kafka.publish", 1, 9, attributes={"topic": "t.v1"}),
        line("z", None, "message.handle", 0, 5, trace_id="e" * 32),
    ]
    two = [
        line("d", "b", "inbox.wait", 9, 10, service="two"),
        line("e", "d", "message.handle", 10, 1_234, service="two", status="error", attributes={"error.type": "Retry"}),
    ]
    (tmp_path / "one.jsonl").write_text("".join(json.dumps(each) + "\n" for each in one))
    (tmp_path / "two.jsonl").write_text("".join(json.dumps(each) + "\n" for each in two) + '{"trace_id": "0a')
    return tmp_path


DRAWN = """\
    start         took
      0.0 ms      5.0 ms  one message.handle request.accepted
      1.0 ms      8.0 ms  ├─ one kafka.publish t.v1
      9.0 ms      1.0 ms  │  └─ two inbox.wait
     10.0 ms   1224.0 ms  │     └─ two message.handle Retry FAILED
      3.0 ms      1.0 ms  └─ one transaction/save (2 statements)
"""


@pytest.mark.parametrize("name", [TRACE, f"00-{TRACE}-b7ad6b7169203331-01"])
def test_a_trace_is_drawn_as_a_tree(directory: Path, name: str) -> None:
    """Each span stands under its cause, whichever file it is in, in order of time; a traceparent names its trace too."""
    shown = CliRunner().invoke(trace, [str(directory), name])
    assert (shown.exit_code, shown.output) == (0, DRAWN)


def test_unknown_trace_fails(directory: Path) -> None:
    """A trace that no file knows is not an empty tree."""
    shown = CliRunner().invoke(trace, [str(directory), "f" * 32])
    assert shown.exit_code == 1
    assert "no file knows this trace" in shown.output


def test_programs_get_json(directory: Path) -> None:
    """With --json the spans come as they are, in order of time."""
    shown = CliRunner().invoke(trace, [str(directory), TRACE, "--json"])
    assert [span["span_id"] for span in json.loads(shown.output)] == ["a", "b", "c", "d", "e"]


def test_lost_spans_leave_several_roots(directory: Path) -> None:
    """Without the span between, what it caused stands alone: nothing pretends to be one tree."""
    tree = Tree(span for span in read_spans(directory) if span.trace_id == TRACE and span.span_id != "b")
    assert [span.span_id for span in tree.roots] == ["a", "d"]


def test_causes_lead_to_the_root(directory: Path) -> None:
    """The way to a span begins at the root and ends with it."""
    tree = Tree(span for span in read_spans(directory) if span.trace_id == TRACE)
    assert [span.span_id for span in tree.causes(tree.by_id["e"])] == ["a", "b", "d", "e"]
