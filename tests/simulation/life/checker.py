"""What the law of the system asks of whole lives, judged from tables, files, mails and logs alone.

The services' own code is asked for one thing only: which step their transition tables allow. Which end a request must have
follows from what was submitted.
"""

import json
import re
import zipfile
from collections import Counter, defaultdict
from collections.abc import Mapping
from io import BytesIO
from typing import Any, Final, cast
from uuid import UUID

import erasure_executor.lifecycle
import export_builder.lifecycle
import notification_mailer.lifecycle.mails
import request_intake.lifecycle
from habeas.chassis.ids import name_based
from habeas.chassis.lifecycle import Table
from habeas.contracts.notification_mailer import MAILS
from habeas.contracts.topics import DELIVERIES, DSR_REQUESTS, REQUESTS
from habeas.contracts.vocabulary import MailKind, Right
from habeas.sealing import KeyKind, KeyStore, Place, open_sealed
from habeas.sealing.artefact import ArtefactCipher
from habeas.sealing.kek import KeyRing
from tests.simulation.checker import check_delivery, entries
from tests.simulation.life import shop
from tests.simulation.life.cast import EXECUTOR, EXPORTER, INTAKE, KEY_RING, MAILER, Lives, Wish
from tests.simulation.world import World

TABLES: Final[Mapping[str, Table[Any]]] = {
    INTAKE: request_intake.lifecycle.TRANSITIONS,
    EXECUTOR: erasure_executor.lifecycle.TRANSITIONS,
    EXPORTER: export_builder.lifecycle.TRANSITIONS,
    MAILER: notification_mailer.lifecycle.mails.TRANSITIONS,
}

_ATTEMPTS: Final[Mapping[str, Any]] = {
    EXECUTOR: erasure_executor.lifecycle.State.ERASING,
    EXPORTER: export_builder.lifecycle.State.BUILDING,
}
_FACT: Final = re.compile(rb" action=(\S+) request=([0-9a-f]{32}) ")
_UNANSWERED: Final = {"mail_refused": "refused", "mail_uncertain": "uncertain"}
_EXPORTED: Final = frozenset({Right.ACCESS, Right.PORTABILITY})
_CARRIED_OUT: Final = _EXPORTED | {Right.ERASURE}


async def check(world: World) -> list[str]:
    """Look after the drain; gives every violation found, nothing when all is well."""
    lives = cast("Lives", world.cast)
    requests = await _by(world, "SELECT * FROM request_intake.requests", "request_id")
    erasures = await _by(world, "SELECT * FROM erasure_executor.erasures", "request_id")
    exports = await _by(world, "SELECT * FROM export_builder.exports", "request_id")
    found = await check_delivery(world)
    found += await _ends(world, lives, requests)
    found += await _steps(world)
    found += _chosen(lives, erasures, exports)
    found += await _shop(world, lives, requests)
    found += await _exports(world, lives, requests, exports)
    found += await _keys(world, requests, erasures)
    found += await _mails(world, lives, requests)
    found += await _facts(world, lives, requests, erasures, exports)
    return found


async def _by(world: World, sql: str, key: str) -> dict[UUID, Any]:
    return {UUID(bytes=row[key].bytes): row for row in await world.ground.admin.fetch(sql)}


async def _ends(world: World, lives: Lives, requests: Mapping[UUID, Any]) -> list[str]:
    """Every submitted request is there once, and rests where the law lets it rest (I1)."""
    found = ["a request that nobody submitted" for _ in requests.keys() - lives.wishes.keys()]
    outcomes = {
        row["request_id"]: row["state"]
        for row in await world.ground.admin.fetch(
            "SELECT request_id, state FROM notification_mailer.messages WHERE kind = 'outcome'"
        )
    }
    for request_id, wish in lives.wishes.items():
        row = requests.get(request_id)
        if row is None:
            found.append(f"a request for {wish.right} was lost")
            continue
        state = row["state"]
        if not wish.is_verified:
            wanted = state == "awaiting_identity"
        elif wish.right not in _CARRIED_OUT or wish.is_narrow:
            wanted = state == "awaiting_decision" and row["stuck_reason"] == "needs_a_person"
        elif state == "answering":
            wanted = outcomes.get(request_id) == _UNANSWERED.get(row["stuck_reason"], "")
        else:
            wanted = state == "completed" and row["stuck_reason"] is None and row["closed_at"] is not None
        if not wanted:
            found.append(f"a request for {wish.right} ends as {state} ({row['stuck_reason']})")
        if (row["outcome"] is not None) != (state in ("answering", "completed")):
            found.append(f"a request for {wish.right} is {state} with outcome {row['outcome']}")
        if state == "completed" and row["contact"] is not None:
            found.append("a completed request still has an address")
    parked = Counter(
        (row["reason"], row["field"])
        for row in await world.ground.admin.fetch("SELECT * FROM request_intake.inbox WHERE state = 'parked'")
    )
    clashes = _clashes(world, lives)
    if parked.pop(("id_conflict", "request_id"), 0) != clashes:
        found.append(f"not all of {clashes} submissions under a known id were parked, or others too")
    for service, schema in world.ground.schemas.items():
        if service != INTAKE:
            parked.update(
                (service, row["reason"])
                for row in await world.ground.admin.fetch(f"SELECT reason FROM {schema}.inbox WHERE state = 'parked'")
            )
    return found + [f"parked: {what}, {count}" for what, count in parked.items()]


def _clashes(world: World, lives: Lives) -> int:
    """Count the submissions that have other content than the first one under their id; times and signature are no content."""
    firsts = {str(key): _content(wish.value) for key, wish in lives.wishes.items()}
    sent = {
        (header := dict(record.headers))["ce_id"]: (header["ce_subject"].decode(), _content(record.value))
        for record in world.broker.of(DSR_REQUESTS.name)
    }
    return sum(firsts[request_id] != value for request_id, value in sent.values())


def _content(value: bytes | None) -> dict[str, Any]:
    body = json.loads(value or b"{}")
    vouched = {
        name: said
        for name, said in body.pop("attestation", {}).items()
        if name in ("method", "acr", "issuer", "key_id")
    }
    return {name: said for name, said in body.items() if name != "received_at"} | {"vouched": vouched}


async def _steps(world: World) -> list[str]:
    """States moved along the tables, each in a transaction of its own row (I3)."""
    found = []
    last: dict[tuple[str, UUID], str] = {}
    for row in await world.ground.admin.fetch("SELECT * FROM simulated.steps ORDER BY position"):
        service, table = row["service"], TABLES[row["service"]]
        state = type(table.first)
        became = state(row["became"])
        if row["was"] is None:
            if became is not table.first:
                found.append(f"{service}: something begins as {became}")
        elif row["was"] != row["became"] and not _allowed(service, state(row["was"]), became):
            found.append(f"{service}: {row['was']} became {became}")
        if last.get((service, row["id"])) != row["was"]:
            found.append(f"{service}: a step from {row['was']} that is not the last one's end")
        last[service, row["id"]] = row["became"]
    return found


def _allowed(service: str, was: Any, became: Any) -> bool:  # noqa: ANN401 -- states of any service
    """Whether a step may be seen: one of the table, or an attempt that ends in the transaction in which it began."""
    table, attempt = TABLES[service], _ATTEMPTS.get(service)
    return table.allows(was, became) or (
        attempt is not None and table.allows(was, attempt) and table.allows(attempt, became)
    )


def _chosen(lives: Lives, erasures: Mapping[UUID, Any], exports: Mapping[UUID, Any]) -> list[str]:
    """Executors worked on exactly what was verified for them."""
    verified = {key: wish for key, wish in lives.wishes.items() if wish.is_verified}
    to_erase = {key for key, wish in verified.items() if wish.right is Right.ERASURE and not wish.is_narrow}
    to_export = {key for key, wish in verified.items() if wish.right in _EXPORTED}
    found = []
    if erasures.keys() != to_erase:
        found.append(f"{len(erasures)} erasures for {len(to_erase)} requests")
    if exports.keys() != to_export:
        found.append(f"{len(exports)} exports for {len(to_export)} requests")
    return found


async def _shop(world: World, lives: Lives, requests: Mapping[UUID, Any]) -> list[str]:
    """Who was erased is gone, with what the law keeps left nameless; everybody else is untouched (I5, I8)."""
    admin = world.ground.admin
    erased = _erased(lives)
    accounts = {row["id"] for row in await admin.fetch("SELECT id FROM shop.accounts")}
    tasks = Counter(row["account_id"] for row in await admin.fetch("SELECT account_id FROM shop.tasks"))
    steps = await admin.fetchval("SELECT count(*) FROM shop.steps")
    invoices = Counter(
        (row["account_id"], row["billing_name"]) for row in await admin.fetch("SELECT * FROM shop.invoices")
    )
    left = [account for account in shop.ACCOUNTS if account not in erased]
    found = [f"{account} was erased and is there" for account in sorted(erased & accounts)]
    found += [f"{account} was not erased and is gone" for account in left if account not in accounts]
    wanted = {account: shop.TASKS + lives.late_tasks[account] for account in left}
    if tasks != wanted:
        found.append(f"tasks are {dict(tasks)} instead of {wanted}")
    if steps != shop.STEPS_EACH * sum(wanted.values()):
        found.append(f"{steps} steps for {sum(wanted.values())} tasks")
    kept: Counter[tuple[str | None, str]] = Counter({(account, f"Name of {account}"): 1 for account in left})
    kept[None, "erased"] = len(shop.ACCOUNTS) - len(left)
    if invoices != +kept:
        found.append(f"invoices are {dict(invoices)} instead of {dict(+kept)}")
    words = Counter(
        (wish.account, requests[key]["outcome"])
        for key, wish in _carried_out(lives, Right.ERASURE).items()
        if key in requests
    )
    for account, word in words:
        if word not in ("partly_kept", "nothing_held") or (account == shop.UNKNOWN and word != "nothing_held"):
            found.append(f"an erasure of {account} is told as {word}")
    found += [f"nobody was told of the erasure of {each}" for each in erased if not words[each, "partly_kept"]]
    return found


def _erased(lives: Lives) -> set[str]:
    return {wish.account for wish in _carried_out(lives, Right.ERASURE).values()} - {shop.UNKNOWN}


def _carried_out(lives: Lives, *rights: Right) -> dict[UUID, Wish]:
    return {
        key: wish
        for key, wish in lives.wishes.items()
        if wish.is_verified and wish.right in rights and not wish.is_narrow
    }


async def _exports(world: World, lives: Lives, requests: Mapping[UUID, Any], exports: Mapping[UUID, Any]) -> list[str]:
    """An export that was told exists and opens, unless the person was erased since or its time is over; then it is gone (I5)."""
    keys = KeyStore(KeyRing(KEY_RING), lambda: world.now)
    data_keys = await keys.read(world.ground.admin, {row["subject_id"] for row in exports.values()}, KeyKind.DATA)
    directory = lives.documents.artefacts_dir
    files: dict[str, list[str]] = defaultdict(list)
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        files[path.name.partition(".")[0]].append(path.name)
    found = []
    for key, wish in _carried_out(lives, *_EXPORTED).items():
        row, request = exports.get(key), requests.get(key)
        if row is None or request is None:
            continue
        there = files.pop(str(row["export_id"]), [])
        data_key = data_keys.get(UUID(bytes=row["subject_id"].bytes))
        # Who was erased before anything was built was told of no copy.
        if request["export_id"] != (row["export_id"] if row["artefact_bytes"] else None):
            found.append("a request was answered with another export than its own")
        if row["state"] == "deleted" or row["artefact_key"] is None or data_key is None:
            # An attempt that died leaves a file that nobody has the key of; it goes when the export without an artefact expires.
            is_keyless = row["state"] == "completed" and not row["artefact_bytes"]
            found += [f"an artefact of a {row['state']} export is left" for _ in there if not is_keyless]
            if data_key is not None and (row["expires_on"] is None or row["expires_on"] >= world.latest.date()):
                found.append(f"an export of a person who is there is {row['state']} before its time")
            continue
        place = Place("export", UUID(bytes=row["export_id"].bytes), "artefact_key")
        path = directory / f"{row['export_id']}.{row['attempts']}.zip.tink"
        if path.is_file():
            found += _opened(path.read_bytes(), open_sealed(data_key, place, row["artefact_key"]), row, wish)
        else:
            found.append("an export was told whose artefact is not there")
    if files:
        found.append(f"artefacts of {len(files)} exports that nobody knows")
    return found


def _opened(artefact: bytes, secret: bytes, row: Any, wish: Wish) -> list[str]:  # noqa: ANN401 -- a record
    """Open an artefact as its owner would; it names its owner and nobody else."""
    with ArtefactCipher.decrypting_reader(BytesIO(artefact), secret, row["export_id"].bytes) as reader:
        archive = zipfile.ZipFile(BytesIO(reader.read()))
    found = []
    tables = {table["table"]: table["rows"] for table in json.loads(archive.read("manifest.json"))["tables"]}
    if tables != {each["table"]: each["rows"] for each in json.loads(row["exported"])}:
        found.append("an artefact does not hold what was told of it")
    text = b"".join(archive.read(name) for name in archive.namelist() if name.endswith(".json"))
    others = [each for each in shop.ACCOUNTS if each != wish.account and each.encode() in text]
    if others:
        found.append(f"an artefact of {wish.account} names {others}")
    if tables.get("accounts", 0) and wish.account.encode() not in text:
        found.append("an artefact does not name its owner")
    return found


async def _keys(world: World, requests: Mapping[UUID, Any], erasures: Mapping[UUID, Any]) -> list[str]:
    """A key that was destroyed is never made again; data keys go with the erasure, in its transaction, and no other key goes."""
    found = []
    history: dict[tuple[UUID, str], list[bool]] = defaultdict(list)
    ended_in: dict[UUID, set[str]] = defaultdict(set)
    admin = world.ground.admin
    for row in await admin.fetch("SELECT *, work::text AS done_in FROM simulated.keys ORDER BY position"):
        history[row["subject_id"], row["kind"]].append(row["is_made"])
        if not row["is_made"]:
            ended_in[row["subject_id"]].add(row["done_in"])
    completed_in: dict[UUID, set[str]] = defaultdict(set)
    steps = await admin.fetch(
        "SELECT e.subject_id, s.work::text AS done_in FROM simulated.steps AS s JOIN erasure_executor.erasures AS e ON e.request_id = s.id"
        " WHERE s.service = 'erasure-executor' AND s.became = 'completed' AND s.was = 'erasing'"
    )
    for row in steps:
        completed_in[row["subject_id"]].add(row["done_in"])
    for (subject_id, kind), made in history.items():
        if made.count(True) > 1:
            found.append(f"a {kind} key was made again")
        if False in made and (kind != "data" or not ended_in[subject_id] <= completed_in[subject_id]):
            found.append(f"a {kind} key was destroyed outside of an erasure")
    gone = {subject_id for subject_id, made in ended_in.items() if made}
    found += [
        "an erasure is completed and the data key is there"
        for row in erasures.values()
        if row["state"] == "completed" and row["subject_id"] not in gone
    ]
    open_subjects = {
        row["subject_id"]
        for row in await admin.fetch("SELECT subject_id FROM request_intake.subjects WHERE closed_at IS NULL")
    }
    if open_subjects & gone:
        found.append("a subject without its data key is open")
    return found


async def _mails(world: World, lives: Lives, requests: Mapping[UUID, Any]) -> list[str]:
    """Each mail was taken once, or as often as its loss was told and it may be sent again; to its own account (I7)."""
    found = []
    uncertain = Counter(
        json.loads(value)["mail_id"]
        for value in {
            dict(record.headers)["ce_id"]: record.value or b""
            for record in world.broker.of(DELIVERIES.name)
            if dict(record.headers).get("ce_type") == b"mail.uncertain"
        }.values()
    )
    taken = Counter(mail_id for mail_id, _ in lives.mail.taken)
    address = dict(lives.mail.taken)
    told = {_type(record) + (record.key or b"") for record in world.broker.of(REQUESTS.name)}
    rows = await world.ground.admin.fetch("SELECT request_id, kind, state FROM notification_mailer.messages")
    states = {(row["request_id"], row["kind"]): row["state"] for row in rows}
    for request_id, wish in lives.wishes.items():
        for kind in (MailKind.ACKNOWLEDGEMENT, MailKind.OUTCOME):
            mail_id, state = str(name_based(MAILS, request_id, kind.value)), states.get((request_id, kind.value))
            count = taken.pop(mail_id, 0)
            again = uncertain[mail_id] if kind is MailKind.ACKNOWLEDGEMENT else 0
            if count > 1 + again:
                found.append(f"the {kind} of a request was sent {count} times, {again} of which may be repetitions")
            if state == "sent" and not count:
                found.append(f"the {kind} of a request is sent and nobody took it")
            if state not in ("sent", "uncertain") and count > again:
                found.append(f"the {kind} of a request was taken and is {state}")
            if count and address[mail_id] != f"{wish.account}@example.org":
                found.append(f"the {kind} of a request went to somebody else")
            if count and kind is MailKind.OUTCOME and b"request.fulfilled" + str(request_id).encode() not in told:
                found.append("somebody was told an outcome that is none")
    if taken:
        found.append(f"{sum(taken.values())} mails that belong to no request")
    return found


def _type(record: Any) -> bytes:  # noqa: ANN401 -- a record of Kafka
    found: bytes = dict(record.headers).get("ce_type", b"")
    return found


async def _facts(
    world: World, lives: Lives, requests: Mapping[UUID, Any], erasures: Mapping[UUID, Any], exports: Mapping[UUID, Any]
) -> list[str]:
    """Every life has its entries in the log, each exactly once (I3)."""
    said: Counter[tuple[str, UUID]] = Counter()
    for service in world.cast.hears:
        for line in entries(world, service).values():
            match = _FACT.search(line)
            if match is not None:
                said[match[1].decode(), UUID(match[2].decode())] += 1
    wanted: Counter[tuple[str, UUID]] = Counter()
    for key, row in requests.items():
        wanted["request.accepted", key] += 1
        wanted["request.identity_requested" if not row["is_verified"] else "request.verified", key] += 1
        wanted["request.fulfilled", key] += row["state"] in ("answering", "completed")
        wanted["request.completed", key] += row["state"] == "completed"
    for key in erasures:
        for action in ("erasure.started", "erasure.completed", "subject.key_destroyed"):
            wanted[action, key] += 1
    for key, row in exports.items():
        wanted["export.started", key] += 1
        wanted["export.completed", key] += 1
        wanted["export.deleted", key] += row["state"] == "deleted"
    actions = {action for action, _ in wanted}
    return [
        f"{said[place]} entries of {place[0]} for {wanted[place]} steps"
        for place in sorted(wanted.keys() | {each for each in said if each[0] in actions}, key=str)
        if said[place] != wanted[place]
    ]
