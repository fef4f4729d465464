"""One erasure is one trace: from the platform's message to the mail, through every service, topic and transaction."""

from collections import Counter
from typing import Any

import pytest

from habeas.chassis.ids import uuid7
from habeas.cli.trace import Span, Tree, read_spans
from habeas.contracts import topics
from habeas.contracts.vocabulary import Right
from tests.support.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")

PLATFORM_SPAN = "b7ad6b7169203331"  # the platform's own span, the example of W3C Trace Context

# Who handles what on the way, from docs/life-of-a-request.md.
HANDLED = Counter(
    {
        ("request-intake", "dsr_request.submitted"): 1,
        ("notification-mailer", "request.accepted"): 1,
        ("erasure-executor", "request.verified"): 1,
        ("export-builder", "request.verified"): 1,  # not its business, which it finds out by taking it
        ("request-intake", "erasure.completed"): 1,
        ("export-builder", "erasure.completed"): 1,
        ("notification-mailer", "request.fulfilled"): 1,
        ("request-intake", "mail.sent"): 2,
        ("notification-mailer", "request.completed"): 1,
    }
)
TRANSACTIONS = {
    "request-intake": {"inbox-direct", "open-received"},
    "erasure-executor": {"inbox-direct", "erasures-begin", "erasures-finish"},
    "export-builder": {"inbox-direct"},
    "notification-mailer": {"inbox-direct", "mails-claim", "mails-journal"},
    "audit-ledger": {"sequence-entries"},
}
WAY_TO_THE_MAIL = ["dsr_request.submitted", "request.verified", "erasure.completed", "request.fulfilled"]


async def test_an_erasure_is_one_tree(stage: Stage) -> None:
    """On an idle fleet the spans of one erasure form one tree that hangs on the platform's span and misses nobody."""
    person = stage.take_one()
    trace_id = f"{uuid7(stage.clock).int:032x}"
    await stage.idle()
    request_id = await stage.ask(Right.ERASURE, person, traceparent=f"00-{trace_id}-{PLATFORM_SPAN}-01")
    await stage.completed(request_id)
    await stage.idle()

    def spans() -> list[Span]:
        return [span for span in read_spans(stage.fleet.traces_dir) if span.trace_id == trace_id]

    # Files are written a second later; the last spans are those of the audit log, which reads what the others have told.
    published = Counter(str(said.event.topic.name) for said in stage.heard.all_of(request_id))
    await stage.until(lambda: handled(spans()) == HANDLED and topics_of(spans()) >= published, "all spans")
    await stage.until(lambda: sequenced(spans()) == len(stage.heard.actions(request_id)) == 11, "the log's spans")
    await stage.until(lambda: any(span.service == "audit-ledger" for span in spans()), "the audit log's own span")

    found = spans()
    tree = Tree(found)
    [root] = tree.roots
    assert (root.parent_id, root.service) == (PLATFORM_SPAN, "request-intake")
    assert {span.service for span in found} == TRANSACTIONS.keys()
    assert topics_of(found) == published + Counter({topics.AUDIT_ENTRIES.name: 11})
    assert {service: names(found, service, "transaction/") for service in TRANSACTIONS} == TRANSACTIONS
    assert not any(span.failed for span in found)
    assert all(root.start_ns <= span.start_ns <= span.end_ns for span in found)

    answered = [span for span in found if span.name == "smtp.send"][-1]
    way = [above.attributes["type"] for above in tree.causes(answered) if above.name == "message.handle"]
    assert way == WAY_TO_THE_MAIL
    [erased] = [span for span in found if span.name == "stores.erase"]
    assert [above.attributes["type"] for above in tree.causes(erased) if "type" in above.attributes] == WAY_TO_THE_MAIL[
        :2
    ]


def handled(spans: list[Span]) -> Counter[tuple[str, Any]]:
    """How often which service handled which type."""
    return Counter((span.service, span.attributes["type"]) for span in spans if span.name == "message.handle")


def topics_of(spans: list[Span]) -> Counter[Any]:
    """How many messages went out, by topic."""
    return Counter(span.attributes["topic"] for span in spans if span.name == "kafka.publish")


def names(spans: list[Span], service: str, prefix: str) -> set[str]:
    """Names of a service's spans that begin so, without the beginning."""
    return {
        span.name.removeprefix(prefix) for span in spans if span.service == service and span.name.startswith(prefix)
    }


def sequenced(spans: list[Span]) -> int:
    """How many entries of the log went out within the trace."""
    return topics_of(spans)[topics.AUDIT_ENTRIES.name]
