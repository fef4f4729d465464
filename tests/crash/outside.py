"""The judge: what must hold afterwards, seen from outside of the services. Each rule gives what breaks it, so nothing means well."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from aiokafka import AIOKafkaConsumer, TopicPartition

from habeas.contracts import topics
from habeas.contracts.envelope import decode_headers
from habeas_demo.ledger import check_audit_log
from habeas_embedded.provision import SERVICES
from tests.crash.play import Played
from tests.support.journal import UNLOGGED
from tests.support.stage import Stage

SCHEMAS: Final = tuple(service.replace("-", "_") for service in SERVICES)
_RELAYED: Final = tuple(
    topic.name for topic in topics.CATALOGUE if topic.owner in SERVICES and topic is not topics.AUDIT_ENTRIES
)
_OFTEN: Final = {"subject.flagged": 2, "mail.sent": 2, "mail.uncertain": 2}
_FINAL_MAILS: Final = frozenset({"sent", "refused", "uncertain", "suppressed"})

UNDER_WAY: Final = """
    SELECT (SELECT count(*) FROM request_intake.requests WHERE state NOT IN ('completed', 'answering'))
         + (SELECT count(*) FROM request_intake.requests AS r WHERE state = 'answering' AND NOT EXISTS (
                SELECT FROM notification_mailer.messages AS m
                 WHERE m.request_id = r.request_id AND m.kind = 'outcome' AND m.state = 'uncertain'))
         + (SELECT count(*) FROM retention_sweeper.ticks WHERE state <> 'completed')
         + (SELECT count(*) FROM retention_sweeper.sweeps WHERE state <> 'completed')
         + (SELECT count(*) FROM export_builder.exports WHERE state NOT IN ('completed', 'deleted'))
         + (SELECT count(*) FROM notification_mailer.campaigns WHERE state <> 'notified')
         + (SELECT count(*) FROM audit_ledger.producers WHERE state <> 'following')
         + (SELECT h.size - p.size FROM audit_ledger.head AS h, audit_ledger.publication AS p)
"""
_UNTOLD: Final = " + ".join(
    (
        "(SELECT -count(*) FROM audit_ledger.leaves)",
        *(f"(SELECT count(*) FROM {each}.{table})" for each in SCHEMAS for table in ("audit_outbox", "audit_lines")),
    )
)


@dataclass(frozen=True)
class _Kept:
    """One record of Kafka's log."""

    key: str
    event_id: UUID


async def until_quiet(stage: Stage, played: Played) -> None:
    """Wait until all that was asked for has come to its end. Raises AssertionError with what the fleet says when it has not."""

    async def quiet() -> bool:
        known = await stage.habeas.fetchval("SELECT count(*) FROM request_intake.requests")
        return bool(known >= len(played.requests) and await stage.habeas.fetchval(f"{UNDER_WAY} + {_UNTOLD}") == 0)

    await stage.finds(quiet, "an end of everything that was asked for")
    await stage.idle()
    completed = await _ids(stage, "SELECT request_id FROM request_intake.requests WHERE state = 'completed'")
    await stage.completed(*completed)  # it was published: now it has to be heard


async def broken_rules(stage: Stage, played: Played) -> Mapping[str, Sequence[str]]:
    """Give, for each rule, what breaks it."""
    log = await _read_log(stage.servers.kafka_bootstrap)
    return {
        "every request is completed, or open because nobody knows whether its mail arrived": await _requests(
            stage, played
        ),
        "nothing is said or logged twice about a request": _twice(stage, played),
        "Kafka has every event of every outbox, no other, and each key's in order": await _relayed(stage, log),
        "every inbox has every event that is meant for it, handled, each key's in order": await _received(stage),
        "every audit entry is in the log once, each producer's without a gap": await _audited(stage),
        "no mail arrived twice, and what arrived is known": await _mailed(stage),
        "whoever was erased has no data key and a tombstone": await _destroyed(stage),
        "artefacts are there as they were told, and no others": await _artefacts(stage),
    }


async def _requests(stage: Stage, played: Played) -> list[str]:
    rows = await stage.habeas.fetch("SELECT request_id, state FROM request_intake.requests")
    states = {row["request_id"]: row["state"] for row in rows}
    missing = [f"{request_id} is not known" for request_id in played.requests if request_id not in states]
    strange = [f"{request_id} was never asked for" for request_id in states if request_id not in played.requests]
    uncertain = await _ids(
        stage, "SELECT request_id FROM notification_mailer.messages WHERE kind = 'outcome' AND state = 'uncertain'"
    )
    wrong = [
        f"{request_id} is {state}, uncertain mail: {request_id in uncertain}"
        for request_id, state in states.items()
        if state != ("answering" if request_id in uncertain else "completed")
    ]
    untold = [
        f"{request_id} is completed and nobody was told"
        for request_id, state in states.items()
        if state == "completed" and request_id not in stage.heard.completed
    ]
    return [*missing, *strange, *wrong, *untold]


def _twice(stage: Stage, played: Played) -> list[str]:
    found: list[str] = []
    for request_id in played.requests:
        said = Counter(stage.heard.types(request_id))
        found += [f"{request_id}: {kind} × {count}" for kind, count in said.items() if count > _OFTEN.get(kind, 1)]
        logged = Counter(stage.heard.actions(request_id))
        found += [f"{request_id}: logged {action} × {count}" for action, count in logged.items() if count > 1]
    return found


async def _relayed(stage: Stage, log: Mapping[str, Sequence[_Kept]]) -> list[str]:
    found: list[str] = []
    for schema in SCHEMAS:
        rows = await stage.habeas.fetch(f"SELECT topic, key, event_id FROM {schema}.outbox ORDER BY outbox_id")
        sent: dict[tuple[str, str], list[UUID]] = defaultdict(list)
        for row in rows:
            sent[row["topic"], row["key"]].append(row["event_id"])
        own = {topic for topic in _RELAYED if topic.startswith(schema.replace("_", "-"))}
        arrived: dict[tuple[str, str], dict[UUID, None]] = defaultdict(dict)
        for topic in own | {topic for topic, _ in sent}:
            for record in log.get(topic, ()):
                arrived[topic, record.key].setdefault(record.event_id)
        for place in sent.keys() | arrived.keys():
            if list(arrived.get(place, {})) != sent.get(place, []):
                lost = set(sent.get(place, ())) - arrived.get(place, {}).keys()
                more = arrived.get(place, {}).keys() - set(sent.get(place, ()))
                found.append(f"{schema} {place[0]}: {len(lost)} lost, {len(more)} of nobody, else out of order")
    return found


async def _received(stage: Stage) -> list[str]:
    found: list[str] = []
    sent = " UNION ALL ".join(
        f"SELECT event_id, topic, type, key, outbox_id FROM {schema}.outbox" for schema in SCHEMAS
    )
    for schema in SCHEMAS:
        lost = await stage.habeas.fetchval(
            f"WITH sent AS ({sent}), wanted AS (SELECT DISTINCT topic, type FROM {schema}.taken)"
            f" SELECT count(*) FROM sent JOIN wanted USING (topic, type)"
            f" WHERE event_id NOT IN (SELECT event_id FROM {schema}.taken)"
        )
        twice = await stage.habeas.fetchval(f"SELECT count(*) - count(DISTINCT event_id) FROM {schema}.taken")
        forgotten = await stage.habeas.fetchval(
            f"SELECT count(*) FROM {schema}.taken AS t FULL JOIN {schema}.seen AS s USING (event_id, digest)"
            f" WHERE t.event_id IS NULL OR s.received_at IS NULL"
        )
        unhandled = await stage.habeas.fetchval(f"SELECT count(*) FROM {schema}.inbox")
        overtaken = await stage.habeas.fetchval(
            f"WITH sent AS ({sent}), taken AS (SELECT i.topic, i.key, i.handled_at, s.outbox_id,"
            f" max(i.handled_at) OVER (PARTITION BY i.topic, i.key ORDER BY s.outbox_id) AS latest"
            f" FROM {schema}.taken AS i JOIN sent AS s USING (event_id)) SELECT count(*) FROM taken WHERE handled_at < latest"
        )
        counts = {
            "lost": lost,
            "taken twice": twice,
            "taken and not remembered, or the other way round": forgotten,
            "not handled": unhandled,
            "handled before an earlier one": overtaken,
        }
        found += [f"{schema}: {count} {what}" for what, count in counts.items() if count]
    return found


async def _audited(stage: Stage) -> list[str]:
    check = await check_audit_log(stage.fleet.log_dir, stage.access.admin_dsn)
    found = [] if check.passed else [check.detail]
    written = 0
    for schema in SCHEMAS:
        row = await stage.habeas.fetchrow(
            "SELECT count(*) AS rows, coalesce(min(seq), 1) AS first, coalesce(max(seq), 0) AS last,"
            f" (SELECT seq FROM {schema}.audit_head) AS head, ({UNLOGGED.format(schema=schema)}) AS waiting FROM {schema}.audit_lines"
        )
        assert row is not None
        written += row["rows"]
        if not row["rows"] == row["last"] == row["head"] or row["first"] != 1 or row["waiting"]:
            found.append(f"{schema}: {dict(row)}")
    leaves = await stage.habeas.fetchval("SELECT count(*) FROM audit_ledger.leaves")
    return found if leaves == written else [*found, f"{leaves} leaves of {written} entries"]


async def _mailed(stage: Stage) -> list[str]:
    mails = stage.servers.mailbox.mails(headers_only=True)
    arrived = Counter(mail.message_id for mail in mails)
    found = [f"{message_id} arrived {count} times" for message_id, count in arrived.items() if count > 1]
    rows = await stage.habeas.fetch("SELECT mail_id, state FROM notification_mailer.messages")
    states = {str(row["mail_id"]): row["state"] for row in rows}
    got = {message_id.strip("<>").partition("@")[0] for message_id in arrived}
    found += [f"{mail_id} arrived and is {states.get(mail_id)}" for mail_id in got if states.get(mail_id) not in _KNOWN]
    found += [
        f"{each} is sent and did not arrive" for each, state in states.items() if state == "sent" and each not in got
    ]
    found += [f"{each} is {state}" for each, state in states.items() if state not in _FINAL_MAILS]
    return found


_KNOWN: Final = frozenset({"sent", "uncertain"})


async def _destroyed(stage: Stage) -> list[str]:
    keys = await stage.habeas.fetchval(
        "SELECT count(*) FROM sealing.subject_keys AS k JOIN erasure_executor.erasures AS e USING (subject_id)"
        " WHERE e.state = 'completed' AND k.kind = 'data'"
    )
    open_erasures = await stage.habeas.fetchval(
        "SELECT count(*) FROM erasure_executor.erasures WHERE state <> 'completed'"
    )
    without = await stage.habeas.fetchval(
        "SELECT count(*) FROM erasure_executor.erasures AS e WHERE account_fingerprint IS NOT NULL AND NOT EXISTS ("
        " SELECT FROM erasure_executor.tombstones AS t WHERE t.account_fingerprint = e.account_fingerprint)"
    )
    counts = {"data keys left": keys, "erasures open": open_erasures, "erasures without a tombstone": without}
    return [f"{count} {what}" for what, count in counts.items() if count]


async def _artefacts(stage: Stage) -> list[str]:
    rows = await stage.habeas.fetch("SELECT export_id, state, artefact_sha256 FROM export_builder.exports")
    there: dict[str, list[Path]] = defaultdict(
        list
    )  # one for each attempt: those of attempts that died stay until all go
    for path in stage.fleet.artefacts_dir.glob("*.zip.tink"):
        there[path.name.partition(".")[0]].append(path)
    wanted = {str(row["export_id"]): row["artefact_sha256"] for row in rows if row["state"] == "completed"}
    wanted = {export_id: digest for export_id, digest in wanted.items() if digest is not None}
    found = [f"{export_id} is there and should not be" for export_id in there.keys() - wanted.keys()]
    for export_id, digest in wanted.items():
        if digest not in {_sha256(path) for path in there.get(export_id, ())}:
            found.append(f"{export_id} is not there as it was told")
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def _ids(stage: Stage, sql: str) -> set[UUID]:
    return {row[0] for row in await stage.habeas.fetch(sql)}


async def _read_log(bootstrap: str) -> Mapping[str, Sequence[_Kept]]:
    """Read every topic that services write for each other, from its start to its present end."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=None, enable_auto_commit=False)
    await consumer.start()
    try:
        places = [TopicPartition(name, each) for name in _RELAYED for each in await _partitions(consumer, name)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        ends = await consumer.end_offsets(places)
        log: dict[str, list[_Kept]] = defaultdict(list)
        while any([await consumer.position(place) < end for place, end in ends.items()]):
            for place, records in (await consumer.getmany(timeout_ms=500)).items():
                log[place.topic] += [
                    _Kept((record.key or b"").decode(), decode_headers(record.headers).event_id) for record in records
                ]
        return log
    finally:
        await consumer.stop()


async def _partitions(consumer: AIOKafkaConsumer, topic: str) -> Iterable[int]:
    await consumer._client.force_metadata_update()
    return consumer.partitions_for_topic(topic) or ()


__all__ = ["broken_rules", "until_quiet"]
