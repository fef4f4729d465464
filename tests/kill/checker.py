"""Judges a history: every violation of the delivery core's invariants is found by what is missing, doubled or out of order.

Nothing is asked of the fleet here: a history is plain values. Numbers of invariants are those of docs/decisions and of the
architecture (I1-I10).
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from habeas.contracts.audit import Action, AuditOutcome
from habeas.contracts.catalogue import ROLLED
from habeas.contracts.topics import CATALOGUE
from tests.kill.history import Asked, History, Record, Request, Taken


class Fault(StrEnum):
    """What kind of promise was broken: the five figures of a campaign."""

    LOST = "lost"
    DOUBLE = "double effects"
    ORDER = "order violations"
    AUDIT = "audit gaps"
    LEFT = "left over"  # not done, not freed, not told


class Violation(NamedTuple):
    """One broken promise; `where` names ids and places, never a person."""

    fault: Fault
    what: str
    where: str


Found = Iterator[Violation]

WANTED: Final[Mapping[str, frozenset[str]]] = {
    "request-intake": frozenset(
        {"dsr_request.submitted", "erasure.completed", "erasure.stuck", "export.completed", "export.stuck"}
        | {"mail.sent", "mail.refused", "mail.uncertain"}
    ),
    "erasure-executor": frozenset({"request.verified"}),
    "export-builder": frozenset({"request.verified", "erasure.completed"}),
    "retention-sweeper": frozenset({"retention.ticked"}),
    "notification-mailer": frozenset(
        {"request.accepted", "request.fulfilled", "request.completed", "request.denied", "request.expired"}
        | {"request.withdrawn", "policy.changed"}
    ),
    "audit-ledger": frozenset(),
}
"""Which events each service takes: said here once more, so that a forgotten subscription is a lost message."""

_TOPICS: Final = {topic.name: topic for topic in CATALOGUE}
_OF_PLATFORMS: Final = frozenset(topic.name for topic in CATALOGUE if topic.strict)
_CAMPAIGN: Final = "policy_change"
_AUDIT_TOPIC: Final = "audit.entries.v1"
_DSR_TOPIC: Final = "platform.dsr-requests.v1"
_EXECUTED: Final = frozenset({"erasure", "access", "portability"})
_STEPS: Final = ("request.accepted", "request.verified", "request.fulfilled", "request.completed")
"""The life of a request in its order; a step may be left out, none comes before an earlier one."""


def check(history: History) -> list[Violation]:
    """Give every violation; none when all promises were kept."""
    return [violation for rule in RULES for violation in rule(history)]


def requests_are_there_once_and_final(history: History) -> Found:
    """I1: every acknowledged id is one request, in the state that it has to end in, or open with a reason."""
    first = _firsts(history.asked)
    for request_id, one in first.items():
        row = history.requests.get(request_id)
        if row is None:
            if one.acked:
                yield Violation(Fault.LOST, "an acknowledged request is not there", str(request_id))
            continue
        if row.right != one.right:
            yield Violation(Fault.LOST, "a request asks for another right than was sent", str(request_id))
        if not _is_final(one, row):
            yield Violation(Fault.LEFT, f"a request ended as {row.state} ({row.stuck_reason})", str(request_id))
    for request_id in history.requests.keys() - first.keys():
        yield Violation(Fault.DOUBLE, "a request that nobody sent", str(request_id))


def _firsts(asked: Iterable[Asked]) -> dict[UUID, Asked]:
    return {one.request_id: one for one in asked if not one.is_repeat}


def _is_final(asked: Asked, row: Request) -> bool:
    if not asked.is_verified:
        return row.state == "awaiting_identity" and not row.is_verified
    if not asked.is_carried_out:
        return row.state == "awaiting_decision" and row.stuck_reason == "needs_a_person"
    if row.state == "answering":  # done, and the person may not know it: somebody was told
        return row.stuck_reason in {"mail_refused", "mail_uncertain"} and row.outcome is not None
    return row.state == "completed" and row.outcome is not None


def other_bodies_are_set_aside(history: History) -> Found:
    """The first body of an id counts; each other one is parked, and nothing else of the campaign is."""
    changed = [one for one in history.asked if one.is_changed]
    least, most = sum(1 for one in changed if one.acked), sum(one.tries for one in changed)
    for service, held in history.slices.items():
        for row in held.inbox:
            if row.state == "parked" and (service, row.reason) != ("request-intake", "id_conflict"):
                yield Violation(Fault.LEFT, f"parked: {row.reason}", f"{service} {row.event_id}")
    parked = sum(1 for row in history.slices["request-intake"].inbox if row.state == "parked")
    if not least <= parked <= most:
        yield Violation(
            Fault.LOST if parked < least else Fault.DOUBLE,
            "bodies under a used id",
            f"{parked} parked, {least} to {most} sent",
        )


def outboxes_reach_kafka(history: History) -> Found:
    """Each row of an outbox is in Kafka, on its topic with its bytes, and each record of the fleet's topics has a row."""
    rows = {row.event_id: row for held in history.slices.values() for row in held.outbox}
    seen: set[UUID] = set()
    for record in history.records:
        if record.topic in _OF_PLATFORMS or record.topic == _AUDIT_TOPIC:
            continue
        row = None if record.event_id is None else rows.get(record.event_id)
        if row is None or (row.topic, row.type, row.key.encode(), row.digest) != (
            record.topic,
            record.type,
            record.key,
            record.digest,
        ):
            if record.type != ROLLED:
                yield Violation(Fault.DOUBLE, "a record that no outbox has", _place(record))
        else:
            seen.add(row.event_id)
    newest = {(row.topic, row.key): row.event_id for row in sorted(rows.values())}
    for row in rows.values():
        is_compacted = _TOPICS[row.topic].compacted and newest[row.topic, row.key] != row.event_id
        if row.event_id not in seen and not is_compacted:
            yield Violation(Fault.LOST, "an outbox row that is not in Kafka", f"{row.type} {row.event_id}")


def keys_are_published_in_order(history: History) -> Found:
    """Of one key's rows, first deliveries come in the order in which the rows were written."""
    order: dict[UUID, int] = {}
    for service, held in history.slices.items():
        counts = Counter(row.outbox_id for row in held.outbox)
        for number, count in counts.items():
            if count > 1:
                yield Violation(Fault.DOUBLE, "an outbox id twice", f"{service} {number}")
        order |= {row.event_id: row.outbox_id for row in held.outbox}
    reached: dict[tuple[str, int, bytes], int] = {}
    known: set[UUID] = set()
    for record in sorted(history.records, key=lambda each: (each.topic, each.partition, each.offset)):
        if record.event_id is None or record.event_id not in order or record.event_id in known:
            continue
        known.add(record.event_id)
        key = (record.topic, record.partition, record.key)
        number = order[record.event_id]
        if number < reached.get(key, 0):
            yield Violation(Fault.ORDER, "published behind a later event of its key", _place(record))
        reached[key] = max(number, reached.get(key, 0))


def inboxes_hold_each_event_once(history: History) -> Found:
    """I2: whatever Kafka has for a service came into its inbox once, is handled or parked; nothing else is."""
    records = defaultdict(set)
    for record in history.records:
        if record.event_id is not None and record.type is not None:
            records[record.type].add(record.event_id)
    for service, held in history.slices.items():
        ids = Counter(row.event_id for row in held.inbox)
        for event_id, count in ids.items():
            if count > 1:
                yield Violation(Fault.DOUBLE, "an event twice in an inbox", f"{service} {event_id}")
        for kind in WANTED[service]:
            for event_id in records[kind] - ids.keys():
                yield Violation(Fault.LOST, "a record that was not taken", f"{service} {kind} {event_id}")
        for row in held.inbox:
            if row.topic != _DSR_TOPIC and row.event_id not in records[row.type] and row.state != "parked":
                yield Violation(Fault.DOUBLE, "taken, and never published", f"{service} {row.type} {row.event_id}")
            if row.state == "pending":
                yield Violation(Fault.LEFT, "a message that waits", f"{service} {row.type} {row.event_id}")


def ids_are_known_again(history: History) -> Found:
    """I2: each message that came is known by its id, so that no copy of it is taken; no id is known of a message that never came."""
    for service, held in history.slices.items():
        ids = {row.event_id for row in held.inbox}
        for event_id in ids - held.seen:
            yield Violation(Fault.DOUBLE, "an id that was forgotten: a copy would be taken", f"{service} {event_id}")
        for event_id in held.seen - ids:
            yield Violation(Fault.LOST, "an id that is known, of a message that is not there", f"{service} {event_id}")


def keys_are_handled_in_order(history: History) -> Found:
    """Of one key's messages, a later one is never handled in an earlier transaction."""
    for service, held in history.slices.items():
        rows = [row for row in held.inbox if row.state == "handled"]
        reached: dict[tuple[str, int, bytes], Taken] = {}
        for row in sorted(rows, key=lambda each: (each.topic, each.partition, each.offset)):
            before = reached.get((row.topic, row.partition, row.key))
            if before is not None and row.xid < before.xid:
                yield Violation(
                    Fault.ORDER, "handled before an earlier message of its key", f"{service} {row.event_id}"
                )
            reached[row.topic, row.partition, row.key] = row


def effects_happen_once(history: History) -> Found:
    """I2: about each request exactly what its end demands was said, each thing once."""
    said: dict[str, Counter[str]] = defaultdict(Counter)
    for held in history.slices.values():
        for row in held.outbox:
            said[row.subject][row.type] += 1
    mails = defaultdict(list)
    for mail in history.mails:
        mails[mail.request_id].append(mail.state)
    for request_id, one in _firsts(history.asked).items():
        request = history.requests.get(request_id)
        if request is not None:
            wanted = _events_of(one, request, mails[request_id])
            yield from _compare(wanted, said[str(request_id)], _FREE_EVENTS, Fault.DOUBLE, Fault.LOST, str(request_id))


_FREE_EVENTS: Final = frozenset({"erasure.stuck", "export.stuck", "mail.uncertain"})
_FREE_FACTS: Final = frozenset({"erasure.stuck", "export.stuck", "mail.uncertain", "export.opened"})


def _events_of(asked: Asked, row: Request, mails: Iterable[str]) -> Counter[str]:
    wanted = Counter({"request.accepted": 1})
    states = Counter(mails)
    wanted += Counter({"mail.sent": states["sent"], "mail.refused": states["refused"]})
    if not asked.is_verified:
        return wanted + Counter({"request.identity_requested": 1})
    if asked.is_carried_out or asked.right != "erasure":
        wanted["request.verified"] = 1
    if asked.is_carried_out and row.outcome is not None:
        wanted["request.fulfilled"] = 1
        wanted["request.completed"] = int(row.state == "completed")
        wanted["erasure.completed" if asked.right == "erasure" else "export.completed"] = 1
        wanted["subject.flagged"] = 2 if asked.right == "erasure" else 0
    return wanted


def _compare(
    wanted: Counter[str], found: Counter[str], free: frozenset[str], more: Fault, less: Fault, where: str
) -> Found:
    for kind in sorted((wanted.keys() | found.keys()) - free):
        if found[kind] > wanted[kind]:
            yield Violation(more, f"{kind} {found[kind]} times, not {wanted[kind]}", where)
        elif found[kind] < wanted[kind]:
            yield Violation(less, f"{kind} {found[kind]} times, not {wanted[kind]}", where)


def changes_stand_in_the_log(history: History) -> Found:
    """I3: about each request the log has exactly the entries of its steps, in their order."""
    facts: dict[UUID, list[str]] = defaultdict(list)
    for entry in history.log.entries:
        if entry.fact.request is not None:
            facts[entry.fact.request].append(entry.fact.action.value)
    mails: dict[UUID | None, Counter[str]] = defaultdict(Counter)
    for mail in history.mails:
        mails[mail.request_id]["mail.queued"] += 1
        if mail.state in {"sent", "refused", "suppressed"}:
            mails[mail.request_id][f"mail.{mail.state}"] += 1
    for request_id, one in _firsts(history.asked).items():
        row = history.requests.get(request_id)
        if row is None:
            continue
        wanted = _facts_of(one, row, history) + mails[request_id]
        found = Counter(facts[request_id])
        # A request that could not be opened for a while has said so too.
        found["request.stuck"] = min(found["request.stuck"], wanted["request.stuck"])
        yield from _compare(wanted, found, _FREE_FACTS, Fault.DOUBLE, Fault.AUDIT, f"log, {request_id}")
        steps = [_STEPS.index(action) for action in facts[request_id] if action in _STEPS]
        if steps != sorted(steps):
            yield Violation(Fault.ORDER, "steps of a request out of order in the log", str(request_id))


def _facts_of(asked: Asked, row: Request, history: History) -> Counter[str]:
    wanted = Counter({"request.accepted": 1})
    if not asked.is_verified:
        return wanted + Counter({"request.identity_requested": 1})
    wanted["request.verified"] = 1
    if not asked.is_carried_out:
        wanted["request.stuck"] = 1
    request_id = asked.request_id
    if request_id in history.erasures:
        done = int(history.erasures[request_id] == "completed")
        wanted += Counter({"erasure.started": 1, "erasure.completed": done, "subject.key_destroyed": done})
    if request_id in history.exports:
        state = history.exports[request_id][0]
        done = int(state in {"completed", "withdrawing", "deleted"})
        wanted += Counter({"export.started": 1, "export.completed": done, "export.deleted": int(state == "deleted")})
    if row.outcome is not None:
        wanted += Counter({"request.fulfilled": 1, "request.completed": int(row.state == "completed")})
    return wanted


def audit_is_gapless(history: History) -> Found:
    """I9: each producer's entries are numbered without gap, all in Kafka, all in the log, the same bytes; the log verifies."""
    for problem in history.log.problems:
        yield Violation(Fault.AUDIT, "the published log does not verify", problem)
    logged: dict[str, dict[int, bytes]] = defaultdict(dict)
    for line, entry in zip(history.log.lines, history.log.entries, strict=True):
        if entry.seq in logged[entry.producer]:
            yield Violation(Fault.DOUBLE, "an entry twice in the log", f"{entry.producer} {entry.seq}")
        logged[entry.producer][entry.seq] = line
    sent = {record.key for record in history.records if record.topic == _AUDIT_TOPIC}
    for service, held in history.slices.items():
        lines = {fact.seq: fact.line for fact in held.facts if fact.seq is not None}
        if sorted(lines) != list(range(1, len(held.facts) + 1)):
            yield Violation(Fault.AUDIT, "sequence with gaps", f"{service}: {len(held.facts)} entries")
        for seq, written in lines.items():
            if logged[service].get(seq) != written:
                yield Violation(Fault.AUDIT, "an entry that is not in the log as it was written", f"{service} {seq}")
            if f"{service}/{seq}".encode() not in sent:
                yield Violation(Fault.LOST, "an entry that is not in Kafka", f"{service} {seq}")
        for seq in logged[service].keys() - lines.keys():
            yield Violation(Fault.DOUBLE, "an entry in the log that nobody wrote", f"{service} {seq}")
        parked = sum(1 for fact in held.facts if fact.line and b" action=message.parked " in fact.line)
        rows = sum(1 for row in held.inbox if row.state == "parked")
        if parked != rows:
            yield Violation(Fault.AUDIT, "parked messages and their entries", f"{service}: {rows} and {parked}")


def offsets_are_behind_inboxes(history: History) -> Found:
    """No committed offset is beyond what the inbox holds: a record below it that was not taken is lost for good."""
    taken = {
        service: {(row.topic, row.partition, row.offset) for row in held.inbox} | {row.event_id for row in held.inbox}
        for service, held in history.slices.items()
    }
    by_partition = defaultdict(list)
    for record in history.records:
        by_partition[record.topic, record.partition].append(record)
    for (group, topic, partition), offset in history.committed.items():
        for record in by_partition[topic, partition]:
            if record.offset < offset and record.type in WANTED[group] and record.event_id not in taken[group]:
                yield Violation(Fault.LOST, "an offset committed beyond the inbox", f"{group} {_place(record)}")
        end = max((record.offset + 1 for record in by_partition[topic, partition]), default=0)
        if topic != _DSR_TOPIC and offset > end:
            yield Violation(Fault.LOST, "an offset committed beyond the log", f"{group} {topic}/{partition} {offset}")


def uncertain_of_campaigns(history: History) -> int:
    """Give how many mails of campaigns were said to be uncertain: they have no events of their own, the log has their number."""
    facts = [entry.fact for entry in history.log.entries]
    return sum(
        fact.count or 0
        for fact in facts
        if fact.action is Action.MAIL_UNCERTAIN and fact.outcome is AuditOutcome.POLICY_CHANGE
    )


def mails_arrive_once(history: History) -> Found:
    """I7: one mail per Message-ID, but for those said to be uncertain; every sent one is there, no other is."""
    counts = Counter(_mail_of(message_id) for message_id in history.delivered)
    for mail in history.mails:
        count = counts.pop(mail.mail_id, 0)
        unknown = history.uncertain.get(mail.mail_id, 0)
        if count > 1 + unknown:
            yield Violation(Fault.DOUBLE, f"a mail {count} times", f"{mail.kind} {mail.mail_id}")
        if mail.state == "sent" and count == 0:
            yield Violation(Fault.LOST, "a sent mail that did not arrive", f"{mail.kind} {mail.mail_id}")
        if mail.state in {"refused", "suppressed"} and count > unknown:
            yield Violation(Fault.DOUBLE, f"a mail that was {mail.state} arrived", f"{mail.kind} {mail.mail_id}")
        if mail.state == "uncertain" and not unknown and mail.kind != _CAMPAIGN:
            yield Violation(Fault.AUDIT, "uncertain, and nobody was told", f"{mail.kind} {mail.mail_id}")
    uncertain = sum(1 for mail in history.mails if mail.kind == _CAMPAIGN and mail.state == "uncertain")
    if uncertain > (told := uncertain_of_campaigns(history)):
        yield Violation(Fault.AUDIT, "uncertain, and nobody was told", f"{uncertain} of campaigns, {told} in the log")
    for mail_id, count in counts.items():
        yield Violation(Fault.DOUBLE, f"a mail that nobody wrote, {count} times", str(mail_id))


def _mail_of(message_id: str) -> UUID | str:
    try:
        return UUID(message_id.strip("<>").partition("@")[0])
    except ValueError:
        return message_id


def exports_open(history: History) -> Found:
    """Each export that is handed out opens with the person's key; each that was let go has none."""
    for request_id, (state, has_key) in history.exports.items():
        if state == "completed" and has_key and request_id not in history.opened:
            yield Violation(Fault.LOST, "an export that does not open", str(request_id))
        if state == "deleted" and has_key:
            yield Violation(Fault.LEFT, "a deleted export with a key", str(request_id))


def platform_is_as_it_should_be(history: History) -> Found:
    """I5, I6: erased people's rows are gone, old rows are gone, everybody else's are as they were."""
    for each in history.platform:
        if not each.passed:
            fault = Fault.LEFT if each.name.startswith(("erased", "retention")) else Fault.LOST
            yield Violation(fault, each.name, each.detail)


def ticks_and_changes_are_done(history: History) -> Found:
    """Each tick that was acknowledged is swept, each policy change told of."""
    for tick_id in history.ticks:
        if set(history.sweeps.get(tick_id, ["absent"])) != {"completed"}:
            yield Violation(Fault.LOST, "a retention tick that was not swept", str(tick_id))
    for change_id in history.changes:
        if history.campaigns.get(change_id) != "notified":
            yield Violation(Fault.LOST, "a policy change that nobody was told of", change_id)


def nothing_is_left_over(history: History) -> Found:
    """Nothing is under way, and each lane is held by a living replica."""
    for name, count in history.waiting.items():
        yield Violation(Fault.LEFT, f"under way: {name}", str(count))
    for service, held in history.slices.items():
        if sorted(held.replicas) != list(range(history.replicas)):
            yield Violation(Fault.LEFT, "replicas that live", f"{service}: {sorted(held.replicas)}")
        for lane in held.lanes:
            if not lane.is_held or lane.is_expired or not lane.is_known:
                yield Violation(Fault.LEFT, "a lane that no living replica holds", f"{service} {lane.lane}")


RULES: Final[tuple[Callable[[History], Found], ...]] = (
    requests_are_there_once_and_final,
    other_bodies_are_set_aside,
    outboxes_reach_kafka,
    keys_are_published_in_order,
    inboxes_hold_each_event_once,
    ids_are_known_again,
    keys_are_handled_in_order,
    effects_happen_once,
    changes_stand_in_the_log,
    audit_is_gapless,
    offsets_are_behind_inboxes,
    mails_arrive_once,
    exports_open,
    platform_is_as_it_should_be,
    ticks_and_changes_are_done,
    nothing_is_left_over,
)


def _place(record: Record) -> str:
    return f"{record.topic}/{record.partition}@{record.offset}"
