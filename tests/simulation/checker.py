"""What must hold after every schedule, judged from the databases and the broker's logs alone."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final
from uuid import UUID

from habeas.contracts.topics import AUDIT_ENTRIES
from tests.simulation.toys import FIRST, Toys
from tests.simulation.world import World

_LINK: Final = re.compile(
    rb"habeas-audit/1 producer=(\S+) epoch=1 seq=(\d+) prev=([0-9a-f]{64}) time=\S+ action=(\S+) "
)
_OUTBOX: Final = "SELECT event_id, key, topic, value FROM {schema}.outbox ORDER BY outbox_id"
_EFFECTS: Final = "SELECT key, number FROM {schema}.effects ORDER BY position"
_LANES: Final = "SELECT lane, holder, expires_at FROM {schema}.lanes ORDER BY lane"


async def check_running(world: World) -> list[str]:
    """Look while faults still happen: what is committed at the broker was stored."""
    found = []
    for service, schema in world.ground.schemas.items():
        stored = {row["event_id"] for row in await world.ground.admin.fetch(f"SELECT event_id FROM {schema}.seen")}
        for partition, offset in world.broker.group(service).committed.items():
            for record in world.broker.logs.get(partition, [])[:offset]:
                header = dict(record.headers).get("ce_id")
                if (
                    header is not None
                    and _is_heard(world, service, record.headers)
                    and UUID(header.decode()) not in stored
                ):
                    found.append(f"{service}: {partition} is committed up to {offset}, {record.offset} is not stored")
    return found


def _is_heard(world: World, service: str, headers: Iterable[tuple[str, bytes]]) -> bool:
    return dict(headers).get("ce_type", b"").decode() in world.handled[service]


async def check(world: World) -> list[str]:
    """Look after the drain of the toys; gives every violation found, nothing when all is well."""
    found = await check_delivery(world)
    for service in world.cast.hears:
        found += await _effects(world, service)
        found += _changes(world, service)
    return found


async def check_delivery(world: World) -> list[str]:
    """What holds whoever plays: everything published, in order, one history of the log, all lanes with the living."""
    found = []
    for service in world.cast.hears:
        found += await _published(world, service)
        found += _log(world, service)
        found += await _lanes(world, service)
    return found


def _toys(world: World) -> Toys:
    assert isinstance(world.cast, Toys)
    return world.cast


async def _effects(world: World, service: str) -> list[str]:
    """Each event took effect exactly once, per key in order, under a lane that was held (I2)."""
    schema = world.ground.schemas[service]
    seen: dict[UUID, list[int]] = defaultdict(list)
    for row in await world.ground.admin.fetch(_EFFECTS.format(schema=schema)):
        seen[row["key"]].append(row["number"])
    found = []
    for key, count in _toys(world).submitted.items():
        numbers = seen.pop(key, [])
        if numbers != list(range(1, count + 1)):
            found.append(f"{service}: {count} events of a key took effect as {numbers}")
    if seen:
        found.append(f"{service}: {len(seen)} keys took effect that nobody submitted")
    stale = await world.ground.admin.fetchval(f"SELECT count(*) FROM {schema}.stale")
    if stale:
        found.append(f"{service}: {stale} effects were committed without the lane")
    return found


async def _published(world: World, service: str) -> list[str]:
    """Every outbox row is in the broker, nothing else is, and first copies are in order per key."""
    rows = await world.ground.admin.fetch(_OUTBOX.format(schema=world.ground.schemas[service]))
    wanted = {str(row["event_id"]).encode(): row for row in rows}
    source = service.encode()
    found = []
    firsts: dict[bytes, list[bytes]] = defaultdict(list)
    seen: set[bytes] = set()
    for topic in {row["topic"] for row in rows} or set():
        for record in world.broker.of(topic):
            headers = dict(record.headers)
            event_id = headers.get("ce_id", b"")
            if headers.get("ce_source") != source or event_id in seen:
                continue
            row = wanted.get(event_id)
            if row is None:
                found.append(f"{service}: a record that was never in the outbox")
            elif row["value"] == record.value and row["key"].encode() == record.key:
                seen.add(event_id)
                firsts[record.key].append(event_id)
    missing = wanted.keys() - seen
    if missing:
        found.append(f"{service}: {len(missing)} outbox rows never reached the broker")
    order: dict[bytes, list[bytes]] = defaultdict(list)
    for row in rows:
        order[row["key"].encode()].append(str(row["event_id"]).encode())
    found += [f"{service}: a key's first copies are out of order" for key in firsts if firsts[key] != order[key]]
    return found


def _changes(world: World, service: str) -> list[str]:
    """The log has one entry for each change (I3)."""
    actions = Counter(match[4] for line in entries(world, service).values() if (match := _LINK.match(line)))
    changes = {b"erasure.stuck": sum(_toys(world).submitted.values())}
    if service == FIRST:
        changes[b"request.accepted"] = sum(_toys(world).submitted.values())
    return [
        f"{service}: {actions[action]} entries of {action.decode()} for {count} changes"
        for action, count in changes.items()
        if actions[action] != count
    ]


def entries(world: World, service: str) -> dict[int, bytes]:
    """Give a service's entries in the log by their number."""
    lines: dict[int, bytes] = {}
    for record in world.broker.of(AUDIT_ENTRIES.name):
        match = _LINK.match(record.value or b"")
        if match is not None and match[1] == service.encode():
            lines.setdefault(int(match[2]), record.value or b"")
    return lines


def _log(world: World, service: str) -> list[str]:
    """The log has one history without gaps (I9)."""
    found = []
    lines: dict[int, bytes] = {}
    for record in world.broker.of(AUDIT_ENTRIES.name):
        match = _LINK.match(record.value)
        if match is None or match[1] != service.encode():
            continue
        number = int(match[2])
        if lines.setdefault(number, record.value) != record.value:
            found.append(f"{service}: two entries of the log have the number {number}")
        if number > 1 and number - 1 not in lines:
            found.append(f"{service}: entry {number} came before its predecessor")
    link = b"0" * 64
    for number in range(1, len(lines) + 1):
        match = _LINK.match(lines.get(number, b""))
        if match is None or match[3] != link:
            found.append(f"{service}: entry {number} does not follow the one before")
            break
        link = hashlib.sha256(lines[number]).hexdigest().encode()
    return found


async def _lanes(world: World, service: str) -> list[str]:
    """Once everything is calm, living replicas hold all lanes under leases that run."""
    holders = {each.lanes.holder: each for each in world.replicas.values() if each.service == service}
    found = []
    for row in await world.ground.admin.fetch(_LANES.format(schema=world.ground.schemas[service])):
        if row["holder"] not in holders:
            found.append(f"{service}: lane {row['lane']} is held by nobody who lives")
        elif row["expires_at"] < world.now:
            found.append(f"{service}: the lease of lane {row['lane']} is over")
    return found
