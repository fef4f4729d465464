"""Two replicas of every service on real servers: killed, paused, restarted one after the other, added and taken away."""

import asyncio
import itertools
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import pytest
import pytest_asyncio

from habeas.chassis.clock import SystemClock
from habeas.contracts.vocabulary import Right
from habeas_demo.histories import Size
from habeas_demo.people import Person
from habeas_embedded.provision import SERVICES
from tests.support.stage import Stage, raised
from tests.support.waiting import never

pytestmark = pytest.mark.asyncio(loop_scope="session")

LEASE_S: Final = 6.0  # the least that Kafka allows its members to be silent
LATE_S: Final = 2.0  # what two shared cores may be late by
LANES: Final = 17
ORDER: Final = ("request.accepted", "request.verified", "request.fulfilled", "request.completed")
CLOCK: Final = SystemClock()

SHARES: Final = """
    SELECT r.instance, count(*) AS lanes FROM {schema}.lanes AS l JOIN {schema}.replicas AS r USING (holder)
     WHERE l.expires_at >= now() GROUP BY r.instance
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that is under way."""

    request_id: UUID
    right: Right
    person: Person


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage() -> AsyncIterator[Stage]:
    """A fleet of two replicas of each service, and a third of one."""
    async with raised(
        f"tests-replicas-{os.getpid()}",
        size=Size(accounts=2_000, logs_each=3, tasks_each=2),
        shared={"HABEAS_LEASE_S": str(LEASE_S), "HABEAS_TRACE_RATIO": "0"},
        replicas={**dict.fromkeys(SERVICES, 2), "request-intake": 3},
    ) as stage:
        await stage.fleet.stop_service("request-intake", 2)
        await shared_out(stage)
        yield stage


async def ask(stage: Stage, count: int) -> list[Asked]:
    """Ask for erasures and access in turns, all at once."""
    rights = itertools.cycle((Right.ERASURE, Right.ACCESS))
    wanted = [(right, person) for right, person in zip(rights, stage.take(count), strict=False)]
    ids = await asyncio.gather(*(stage.ask(right, person) for right, person in wanted))
    return [Asked(request_id, right, person) for request_id, (right, person) in zip(ids, wanted, strict=True)]


@asynccontextmanager
async def load(stage: Stage, every_s: float = 0.5) -> AsyncIterator[list[Asked]]:
    """Ask for something again and again while the block runs; gives what was asked for."""
    asked: list[Asked] = []
    done = asyncio.Event()

    async def go_on() -> None:
        while await never(done.is_set, every_s):
            asked.extend(await ask(stage, 2))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(go_on())
        try:
            yield asked
        finally:
            done.set()


async def shares(stage: Stage, service: str) -> Mapping[int, int]:
    """How many lanes each replica of a service holds now, by ordinal."""
    rows = await stage.habeas.fetch(SHARES.format(schema=service.replace("-", "_")))
    return {row["instance"]: row["lanes"] for row in rows}


async def shared_out(stage: Stage, *services: str, replicas: int = 2) -> dict[str, float]:
    """Wait until lanes are spread evenly; gives the seconds that it took by service."""
    return await _reach(stage, services or SERVICES, lambda found: _is_even(found, replicas))


async def taken_over(stage: Stage, by: int, services: Sequence[str] = SERVICES) -> dict[str, float]:
    """Wait until one replica of each service holds every lane; gives the seconds that it took by service."""
    return await _reach(stage, services, lambda found: found == {by: LANES})


async def _reach(stage: Stage, services: Sequence[str], holds: Any) -> dict[str, float]:  # noqa: ANN401 -- a condition
    begun, took = CLOCK.monotonic(), dict[str, float]()

    async def all_hold() -> bool:
        for service in services:
            if service not in took and holds(await shares(stage, service)):
                took[service] = round(CLOCK.monotonic() - begun, 2)
        return len(took) == len(services)

    await stage.finds(all_hold, f"these shares of {', '.join(services)}")
    return took


def _is_even(found: Mapping[int, int], replicas: int) -> bool:
    sizes = found.values()
    return len(found) == replicas and sum(sizes) == LANES and max(sizes) - min(sizes) <= 1


async def all_ended_well(stage: Stage, asked: Sequence[Asked]) -> None:
    """Every request is completed, told in order, mailed and logged once, and no message is parked."""
    await stage.completed(*(each.request_id for each in asked))
    await stage.idle()
    await stage.until(lambda: all(_is_logged(stage, each) for each in asked), "the last audit entry of each request")
    for each in asked:
        said = stage.heard.types(each.request_id)
        assert [kind for kind in said if kind in ORDER] == list(ORDER), said
        assert max(Counter(kind for kind in said if kind not in {"mail.sent", "subject.flagged"}).values()) == 1, said
        actions = Counter(stage.heard.actions(each.request_id))
        assert max(actions.values()) == 1, actions
    mails = Counter(kind for each in asked for kind in stage.mail_kinds(each.person.email))
    assert mails == {"acknowledgement": len(asked), "outcome": len(asked)}
    assert await stage.parked() == {}


def _is_logged(stage: Stage, asked: Asked) -> bool:
    return any(" request.completed " in action for action in stage.heard.actions(asked.request_id))


def logged(stage: Stage, service: str, instance: int, since: int = 0) -> list[dict[str, Any]]:
    """Give what a replica has logged, from a place in its log on."""
    raw = stage.fleet.member(service, instance).child.log.read_bytes()[since:]
    return [json.loads(line) for line in raw.splitlines() if line.startswith(b"{")]


async def test_lanes_are_shared_and_requests_complete(stage: Stage) -> None:
    """Each of two replicas of every service holds half of the lanes, and works: both have handled messages, or swept."""
    asked = await ask(stage, 40)
    await all_ended_well(stage, asked)
    for service in ("request-intake", "erasure-executor", "export-builder", "notification-mailer"):
        assert _is_even(await shares(stage, service), 2)
        for instance in range(2):
            assert any(line["event"] == "message.handled" for line in logged(stage, service, instance)), service


async def test_a_killed_replicas_lanes_are_taken_within_the_lease(stage: Stage) -> None:
    """One replica of every service is killed under load: the other has its lanes when the lease is over, and everything completes."""
    async with load(stage) as asked:
        await asyncio.gather(*(stage.fleet.kill(service, 1) for service in SERVICES))
        for service in SERVICES:
            stage.fleet.member(service, 1).wanted = False
        took = await taken_over(stage, by=0)
    print(f"takeover after SIGKILL, lease {LEASE_S} s: {took}")
    await stage.completed(*(each.request_id for each in asked))
    await asyncio.gather(*(stage.fleet.start_service(service, 1) for service in SERVICES))
    await shared_out(stage)
    await all_ended_well(stage, asked)
    assert max(took.values()) <= LEASE_S + LATE_S


async def test_a_paused_replica_is_fenced(stage: Stage) -> None:
    """Paused for longer than its lease under load, a replica of each service commits nothing when it comes back, until it has lanes."""
    places = {}
    async with load(stage) as asked:
        for service in SERVICES:
            os.kill(stage.fleet.member(service, 0).child.pid, signal.SIGSTOP)
        try:
            took = await taken_over(stage, by=1)
            more = await ask(stage, 20)
            await stage.completed(*(each.request_id for each in (*asked, *more)))
        finally:
            for service in SERVICES:
                places[service] = stage.fleet.member(service, 0).child.log.stat().st_size
                os.kill(stage.fleet.member(service, 0).child.pid, signal.SIGCONT)
        await shared_out(stage)
    print(f"takeover after SIGSTOP, lease {LEASE_S} s: {took}")
    await all_ended_well(stage, [*asked, *more])
    assert max(took.values()) <= LEASE_S + LATE_S
    for service in SERVICES:
        told = [line["event"] for line in logged(stage, service, 0, places[service])]
        until_lanes = told[: told.index("lanes.taken")]
        assert "lanes.fenced" in told, service
        assert "message.handled" not in until_lanes, service
        lost = next(line for line in logged(stage, service, 0, places[service]) if line["event"] == "lanes.lost")
        print(f"{service}: lost {len(lost['lanes'])} lanes with tokens {lost['tokens']}")


async def test_a_rolling_restart_fails_no_request(stage: Stage) -> None:
    """Every replica of every service is stopped in order and started again under load: everything completes once, all end well."""
    async with load(stage) as asked:
        for service, instance in itertools.product(SERVICES, range(2)):
            await stage.fleet.stop_service(service, instance)
            assert stage.fleet.member(service, instance).child.exit_code == 0
            await stage.fleet.start_service(service, instance)
    await all_ended_well(stage, asked)


async def test_replicas_are_added_and_taken_away(stage: Stage) -> None:
    """From two to one to three and back to two while running: lanes are spread anew within a lease, and nothing stands still."""
    service = "request-intake"
    async with load(stage) as asked:
        await stage.fleet.stop_service(service, 1)
        fewer = await taken_over(stage, 0, [service])
        begun = CLOCK.monotonic()
        await asyncio.gather(*(stage.fleet.start_service(service, instance) for instance in (1, 2)))
        await shared_out(stage, service, replicas=3)
        more = {service: round(CLOCK.monotonic() - begun, 2)}  # from the start of two processes on
        await stage.fleet.stop_service(service, 2)
        back = await shared_out(stage, service)
    print(f"rebalanced, lease {LEASE_S} s: to one {fewer}, to three {more}, to two {back}")
    await all_ended_well(stage, asked)
    assert max(*fewer.values(), *back.values()) <= LEASE_S + LATE_S
