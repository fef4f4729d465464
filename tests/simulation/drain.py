"""After the faults: whoever stood still goes on, clocks are put right, the dead are started, operators mend, until nothing is left."""

from datetime import timedelta
from typing import Any, Final, cast

from tests.simulation.fate import CALM
from tests.simulation.schedule import TURNS
from tests.simulation.world import LEASE_S, SETTINGS, Broken, Replica, World

LEFT: Final = """
    SELECT (SELECT count(*) FROM {schema}.inbox WHERE state = 'pending') AS pending,
           (SELECT count(*) FROM {schema}.inbox WHERE state = 'parked' AND reason = ANY($1)) AS parked,
           (SELECT count(*) FROM {schema}.outbox WHERE published_at IS NULL)
         + (SELECT count(*) FROM {schema}.audit_outbox)
         + (SELECT seq - published_seq FROM {schema}.audit_head) AS unpublished,
           (SELECT count(*) FROM {schema}.lanes WHERE holder IS NULL OR NOT holder = ANY($2) OR expires_at < $3) AS adrift,
           {wanted} AS wanted
"""
RETRY_PARKED: Final = """
    SELECT {schema}.supervise_retry(array_agg(inbox_id), array_agg(gen_random_uuid())) FROM {schema}.inbox
     WHERE state = 'parked' AND reason = ANY($1)
"""

_MENDABLE: Final = ["wrong_value", "from_the_future", "exhausted"]
_ROUNDS_MAX: Final = 60
_TURNS_MAX: Final = 100


async def drain(world: World) -> None:
    """Work off what is left; raises ``Broken`` when it does not come to an end (the promise of liveness)."""
    world.trace.append("-- drain")
    world.stage.weather = CALM
    world.now = max(world.now, world.latest)  # else what a wrong clock dated would stay from the future
    for replica in (*world.ghosts, *world.replicas.values()):
        replica.clock.skew = timedelta(0)
    for replica in (*world.ghosts, *world.replicas.values()):
        await _finish(world, replica)
    await _lay_ghosts(world)
    world.broker.land()
    for replica in world.living():
        member = cast("Any", replica.consumer.subscriber.consumer)
        if member is not None and not world.broker.group(replica.service).has(member):
            await world.die(
                replica
            )  # its ghost took its name in the group: it polls in vain, and is restarted for that
    for place in world.places:
        if place not in world.replicas or world.replicas[place].is_dead:
            await world.start(*place)
    left: dict[str, dict[str, int]] = {}
    for number in range(_ROUNDS_MAX):
        services = list(world.cast.hears)
        for service in (*services, services[0]):
            await _work_off(world, service, number)
        left = {service: await _left(world, service) for service in services}
        if not any(sum(each.values()) for each in left.values()):
            return
    raise Broken(f"not drained after {_ROUNDS_MAX} rounds: {left}")


async def _finish(world: World, replica: Replica) -> None:
    """Let every loop that stands still inside of a turn come to its end, and with it whoever holds a lock that it needs."""
    for _ in range(_TURNS_MAX):
        if replica.is_dead or not any(actor.is_inside for actor in replica.actors.values()):
            return
        for other in (replica, *world.replicas.values(), *world.ghosts):
            for kind, actor in other.actors.items():
                if actor.is_inside and not other.is_dead:
                    await world.turn(other, kind)
    raise Broken(f"{replica.name} does not come to an end")


async def _lay_ghosts(world: World) -> None:
    """Whoever was replaced while it stood still wakes up with lanes that are not its own any more, tries everything, and ends."""
    if world.ghosts:
        await world.move_clock(LEASE_S + 1)
    for replica in world.ghosts:
        for kind in dict.fromkeys((*TURNS, *replica.sweeps)):
            if kind in replica.actors:
                await world.turn(replica, kind)
        await replica.consumer.broker.stop()
        await world.die(replica)


async def _work_off(world: World, service: str, number: int) -> None:
    """Every loop of a service that has something to do takes a turn; operators mend what is parked."""
    left = await _left(world, service)
    mine = [replica for replica in world.replicas.values() if replica.service == service]
    if left["parked"]:
        await world.ground.admin.execute(RETRY_PARKED.format(schema=world.ground.schemas[service]), _MENDABLE)
    waits = left["wanted"] and world.cast.calm_s
    if number and (left["adrift"] or left["pending"] or waits):  # leases of the dead run out, retries come due
        await world.move_clock(
            max(LEASE_S + 1 if left["adrift"] else SETTINGS.retry_max_s + 1, waits and world.cast.calm_s)
        )
    for replica in world.replicas.values():
        if (left["adrift"] and replica in mine) or not replica.lanes._fresh():
            await world.turn(replica, "lanes")
    for replica in mine:
        for sweep in replica.sweeps if left["wanted"] else ():
            await world.turn(replica, sweep)
        for _ in range(3):
            if unread(world, service):
                await world.turn(replica, "consumer")
    for replica in mine:
        if left["pending"] or left["parked"] or left["unread"]:
            await world.turn(replica, "worker")
        if left["unpublished"] and number:
            replica.relay.look()  # its poll interval is over
        await world.turn(replica, "relay")


async def _left(world: World, service: str) -> dict[str, int]:
    """Count what a service has left to do."""
    holders = [replica.lanes.holder for replica in world.replicas.values() if replica.service == service]
    sql = LEFT.format(schema=world.ground.schemas[service], wanted=world.cast.wanted[service])
    row = await world.ground.admin.fetchrow(sql, _MENDABLE, holders, world.now)
    return {**dict(row or {}), "unread": unread(world, service)}


def unread(world: World, service: str) -> int:
    """Count records beyond the group's committed offsets."""
    committed = world.broker.group(service).committed
    heard = {topic.name for topic in world.cast.hears[service]}
    logs = [(part, log) for part, log in world.broker.logs.items() if part.topic in heard]
    return sum(len(log) - committed.get(part, 0) for part, log in logs)
