"""Nobody can be found in what the fleet writes: topics on disk, every schema, logs, traces, artefacts; and the search can find."""

import os
import sys
from pathlib import Path

import pytest

from habeas.contracts.vocabulary import Right
from habeas_demo.canary import Hit, Scan
from habeas_demo.evidence import judge_control, search_fleet, search_platform
from habeas_demo.people import Person
from habeas_embedded.provision import SERVICES
from tests.support import unsealed
from tests.support.garbage import Forge
from tests.support.stage import Stage, raised
from tests.support.waiting import HANGS_S

pytestmark = pytest.mark.asyncio(loop_scope="session")

KINDS_SEALED = {"account id", "e-mail", "name"}  # what the fleet itself handles; the rest stays in stores and exports

RIGHTS = (Right.ERASURE, Right.ERASURE, Right.ACCESS, Right.PORTABILITY)


async def spread(stage: Stage, people: list[Person]) -> None:
    """Let these people travel as far as they can: traced requests of every kind, to their end, and one that is parked."""
    asked = [
        await stage.ask(right, person, traceparent=f"00-{number + 1:032x}-{number + 1:016x}-01")
        for number, (right, person) in enumerate(zip(RIGHTS, people, strict=True))
    ]
    forge = Forge(stage.issuer, stage.clock)
    bad = forge.record(forge.submission(people[0].account_id, country="Germany"))
    assert bad.value is not None
    await stage.publisher.send_raw(bad.topic, bad.key, bad.value, bad.headers)
    await stage.completed(*asked)
    await stage.until(lambda: all(stage.mail_kinds(person.email) for person in people), "mails")


async def search(stage: Stage, people: list[Person], limit_s: float) -> Scan:
    """Search all that the fleet wrote, again and again until nobody is found or the time is over."""
    return await search_fleet(stage.run, stage.access.admin_dsn, people, limit_s)


def places(stage: Stage, hits: list[Hit]) -> set[str]:
    """Where hits are: the directory under the run, and for Kafka the topic."""
    found = set()
    for hit in hits:
        parts = hit.file.relative_to(stage.run).parts
        found.add(parts[2].rpartition("-")[0] if parts[0] == "kafka" else parts[0])
    return found


async def test_nobody_is_found(stage: Stage) -> None:
    """After requests were answered, no value of these people is in any file of the fleet, and of the erased none in the platform."""
    people = stage.take(len(RIGHTS))
    erased = people[:2]
    before = await search_platform(stage.run, stage.platform.owner_dsn, people)
    assert judge_control(before, people).passed
    await spread(stage, people)
    scan = await search(stage, people, HANGS_S)
    assert [(hit.kind, hit.form, hit.file) for hit in scan.hits] == []
    assert scan.unreadable == []
    assert was_there(stage) == []
    left = await search_platform(stage.run, stage.platform.owner_dsn, erased)
    assert (left.hits, left.unreadable, left.files) == ([], [], 1)


def was_there(stage: Stage) -> list[str]:
    """Say what of all that had to be searched was missing or empty."""
    dump = (stage.run / "dumps" / "habeas.sql").read_text(encoding="utf-8")
    schemas = [*(service.replace("-", "_") for service in SERVICES), "sealing"]
    missing = [f"dump: {schema}" for schema in schemas if f"COPY {schema}." not in dump]
    wanted = [
        *(f"logs/{service}-0.log" for service in SERVICES),
        *(f"traces/{service}.jsonl" for service in ("request-intake", "erasure-executor", "export-builder")),
        *("artefacts/*.tink", "audit-log/**/*", "kafka/data/request-intake.requests.v1-*/*.log"),
    ]
    return missing + [
        name for name in wanted if not any(path.is_file() and path.stat().st_size for path in stage.run.glob(name))
    ]


async def test_without_sealing_everybody_is_found() -> None:
    """The same search finds each of these people in topics and tables when services seal nothing: its silence means something."""
    program = (sys.executable, str(Path(unsealed.__file__)))
    programs = {service: (*program, service.replace("-", "_")) for service in SERVICES}
    async with raised(f"tests-unsealed-{os.getpid()}", programs=programs) as stage:
        people = stage.take(len(RIGHTS))
        await spread(stage, people)
        scan = await search(stage, people, 0)
        in_topics = [hit for hit in scan.hits if hit.file.is_relative_to(stage.run / "kafka")]
        in_tables = [hit for hit in scan.hits if hit.file.is_relative_to(stage.run / "dumps")]
        everybody = {(person.index, kind) for person in people for kind in KINDS_SEALED}
        assert {(hit.person, hit.kind) for hit in in_topics} == everybody
        assert {(hit.person, hit.kind) for hit in in_tables} >= {(person.index, "account id") for person in people}
        assert "request-intake.requests.v1" in places(stage, in_topics)
        assert "hex" in {hit.form for hit in in_tables if hit.person == people[0].index}  # the parked message, a bytea
