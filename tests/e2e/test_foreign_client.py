"""Platforms need nothing of ours: messages written by hand and sent by other clients are carried out like the kit's."""

import asyncio
import base64
import json
import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import pytest

from habeas.chassis.ids import uuid7
from habeas.contracts.vocabulary import Right
from habeas_demo.people import Person
from habeas_embedded.jars import ensure_jars
from habeas_embedded.java import find_java
from habeas_embedded.kafka import kafka_cache
from habeas_embedded.places import cache_directory
from tests.support.stage import Stage
from tests.support.waiting import HANGS_S

pytestmark = pytest.mark.asyncio(loop_scope="session")

TOPIC = "platform.dsr-requests.v1"
ENTRIES = [
    11,
    10,
]  # in the audit log, of an erasure and an access: four of intake, four of mails, three or two of the work

# As a person would write it: own order, own spacing, a part that is null, and the signature last.
ERASURE = """{ "right": "erasure", "request_id": "%(request_id)s", "account_id": "%(account_id)s", "regime": null,
 "received_at": "%(now)s", "channel": "own-client", "country": "DE", "details": {"ground": "objected", "right": "erasure"},
 "attestation": {"key_id": "%(key_id)s", "issuer": "accounts", "method": "passkey", "acr": "mfa",
 "authenticated_at": "%(now)s"%(signature)s}}"""
ACCESS = """{"account_id": "%(account_id)s","channel": "own-client", "country": "DE", "right": "access",
 "received_at": "%(now)s", "request_id": "%(request_id)s", "attestation": {"acr": "mfa",
 "authenticated_at": "%(now)s", "issuer": "accounts", "key_id": "%(key_id)s", "method": "password"%(signature)s}}"""

# kafka-python as a program of its own: it shares no code with the fleet's client. Headers are read as a JSON object.
KAFKA_PYTHON = """
import json, sys
from kafka import KafkaProducer

producer = KafkaProducer(bootstrap_servers=sys.argv[1], acks="all")
for line in sys.stdin:
    headers, key, value = line.rstrip("\\n").split("\\t")
    headers = [(name, text.encode()) for name, text in json.loads(headers).items()]
    producer.send(sys.argv[2], value.encode(), key.encode(), headers).get(30)
producer.close(30)
"""


@dataclass(frozen=True)
class Letter:
    """One message as bytes, with its headers."""

    request_id: UUID
    key: str
    value: str
    headers: Mapping[str, str]


def write(stage: Stage, text: str, person: Person) -> Letter:
    """Fill in a text, sign it and put it under hand-written headers.

    Signed is the form of RFC 8785. For objects of ASCII texts and nulls that is: members sorted by name, no spaces.
    """
    now = stage.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
    request_id = uuid7(stage.clock)
    parts = {"request_id": request_id, "account_id": person.account_id, "now": now, "key_id": stage.issuer.key_id}
    unsigned = json.loads(text % {**parts, "signature": ""})
    signed = stage.issuer.private_key.sign(json.dumps(unsigned, sort_keys=True, separators=(",", ":")).encode())
    signature = f', "signature": "{base64.urlsafe_b64encode(signed).decode().rstrip("=")}"'
    headers = {
        "ce_specversion": "1.0",
        "ce_id": str(uuid7(stage.clock)),
        "ce_type": "dsr_request.submitted",
        "ce_source": "own-client",
        "ce_time": now,
        "content-type": "application/json",
    }
    return Letter(request_id, person.account_id, (text % {**parts, "signature": signature}).replace("\n", ""), headers)


Send = Callable[[Stage, list[Letter]], Awaitable[None]]


async def by_console(stage: Stage, letters: list[Letter]) -> None:
    """Send with Kafka's own console producer, written in Java, one line for each message."""
    cache = kafka_cache(cache_directory())
    java, jars = find_java(cache), ensure_jars(cache / "jars")
    await run(
        [
            *(str(java.path), "-XX:TieredStopAtLevel=1", "-cp", os.pathsep.join(map(str, jars))),
            *("org.apache.kafka.tools.ConsoleProducer", "--bootstrap-server", stage.servers.kafka_bootstrap),
            *("--topic", TOPIC, "--sync"),
            *("--reader-property", "parse.headers=true", "--reader-property", "parse.key=true"),
        ],
        [
            (",".join(f"{name}:{value}" for name, value in each.headers.items()), each.key, each.value)
            for each in letters
        ],
    )


async def by_kafka_python(stage: Stage, letters: list[Letter]) -> None:
    """Send with kafka-python."""
    await run(
        [sys.executable, "-c", KAFKA_PYTHON, stage.servers.kafka_bootstrap, TOPIC],
        [(json.dumps(each.headers), each.key, each.value) for each in letters],
    )


async def run(command: Sequence[str], lines: Sequence[tuple[str, str, str]]) -> None:
    """Run a program that reads messages as lines: headers, key and value, with tabs between them."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(HANGS_S):
        said, _ = await process.communicate("".join("\t".join(line) + "\n" for line in lines).encode())
    assert process.returncode == 0, said.decode()


async def seen(stage: Stage, request_ids: list[UUID], people: list[Person]) -> list[object]:
    """What outsiders can see of answered requests: what was said, logged and mailed."""
    await stage.completed(*request_ids)
    await stage.until(lambda: [len(stage.heard.actions(each)) for each in request_ids] == ENTRIES, "their entries")
    outcomes = [stage.heard.completed[request_id].outcome for request_id in request_ids]
    said = [Counter(stage.heard.types(request_id)) for request_id in request_ids]
    logged = [stage.heard.actions(request_id) for request_id in request_ids]
    mailed = [stage.mail_kinds(person.email) for person in people]
    return [outcomes, said, logged, mailed]


@pytest.mark.parametrize("send", [by_console, by_kafka_python])
async def test_other_clients_are_served_alike(stage: Stage, send: Send) -> None:
    """An erasure and an access from another client are completed, mailed and logged exactly as from the kit."""
    people = stage.take(4)
    letters = [write(stage, text, person) for text, person in zip((ERASURE, ACCESS), people[:2], strict=True)]
    await send(stage, letters)
    foreign = await seen(stage, [letter.request_id for letter in letters], people[:2])
    own = [
        await stage.ask(right, person) for right, person in zip((Right.ERASURE, Right.ACCESS), people[2:], strict=True)
    ]
    assert foreign == await seen(stage, own, people[2:])
