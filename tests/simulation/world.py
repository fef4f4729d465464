"""The world of one schedule: a broker, a cast of services of some replicas each, a clock, and the steps that move them."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, cast
from uuid import UUID

from aiokafka.errors import KafkaError

from habeas.chassis.consumer import Consumer
from habeas.chassis.database import TRANSIENT, Database
from habeas.chassis.ids import uuid7
from habeas.chassis.lanes import Lanes
from habeas.chassis.producer import PublishFailed, Record
from habeas.chassis.relay import Relay
from habeas.chassis.service import Service
from habeas.chassis.settings import ChassisSettings
from habeas.chassis.worker import Worker
from habeas.contracts.topics import Topic
from tests.simulation.actors import Actor, Crashed, Pool, Stage
from tests.simulation.broker import Broker, FastStreamBroker, Kept, Producer
from tests.simulation.cast import Cast, Part
from tests.simulation.fate import CALM, KINDS, Fate
from tests.simulation.field import Field
from tests.simulation.garbage import GARBAGE
from tests.simulation.schedule import TURNS, Schedule, Step
from tests.simulation.toys import Toys
from tests.support.delivery import NOON, settings

LEASE_S: Final = 15.0
SETTINGS: Final = settings(
    inbox_batch_rows_max=4,
    relay_batch_rows_max=3,
    lease_s=LEASE_S,
    retry_first_s=1,
    retry_max_s=4,
    lock_timeout_ms=10,
    poll_interval_s=0.01,
)

TROUBLE: Final = (*TRANSIENT, PublishFailed, KafkaError)
_TICK: Final = timedelta(seconds=0.05)
JUMPS_S: Final = (-3600, -90, -5, 5, 90, 280, 86_400, 40 * 86_400)


class Broken(AssertionError):
    """The world does not behave: a process ended with an error that nobody foresaw, or does not come to an end."""


@dataclass
class Clock:
    """A replica's own clock: the world's, off by what it was stepped."""

    world: "World"
    skew: timedelta = timedelta(0)

    __hash__ = object.__hash__

    def now(self) -> datetime:
        """The time of day as this machine has it."""
        now = self.world.now + self.skew
        self.world.latest = max(self.world.latest, now)
        return now

    def monotonic(self) -> float:
        """Seconds since the beginning, the same on every machine."""
        return (self.world.now - NOON).total_seconds()


@dataclass
class Variants:
    """The classes of the delivery core that are simulated; broken ones stand in for them where the checker is tested."""

    lanes: type[Lanes] = Lanes
    worker: type[Worker] = Worker
    relay: type[Relay] = Relay
    consumer: type[Consumer] = Consumer


@dataclass(eq=False)
class Replica:
    """One process: its clock, its connections, its loops."""

    name: str
    service: str
    instance: int
    lanes: Lanes
    relay: Relay
    consumer: Consumer
    actors: dict[str, Actor]
    sweeps: tuple[str, ...]
    clock: Clock
    is_dead: bool = False
    is_frozen: bool = False


@dataclass
class World:
    """Everything that one schedule moves."""

    schedule: Schedule
    ground: Field
    variants: Variants = field(default_factory=Variants)
    casting: Callable[[Schedule, random.Random], Cast] = Toys
    now: datetime = NOON
    latest: datetime = NOON  # that any clock ever told: messages may bear it
    trace: list[str] = field(default_factory=list)
    replicas: dict[tuple[str, int], Replica] = field(default_factory=dict)
    ghosts: list[Replica] = field(default_factory=list)  # replaced while they stood still
    handled: dict[str, frozenset[str]] = field(
        default_factory=dict
    )  # types of events, of each service that was started

    def __post_init__(self) -> None:
        rng = random.Random(self.schedule.seed)  # noqa: S311 -- a schedule must repeat
        random.seed(self.schedule.seed)  # jitter of workers and databases
        self.stage = Stage(rng, CALM, self.trace.append)
        self.weather = KINDS[self.schedule.weather]
        self.broker = Broker(lambda: int(self.now.timestamp() * 1000))
        self.cast = self.casting(self.schedule, rng)
        for service, heard in self.cast.hears.items():
            self.broker.group(service, [topic.name for topic in heard])

    @property
    def places(self) -> list[tuple[str, int]]:
        """Every service's replicas, by ordinal."""
        counts = zip(self.cast.hears, self.schedule.replicas, strict=True)
        return [(service, number) for service, count in counts for number in range(count)]

    async def start(self, service: str, instance: int) -> Replica:
        """Start a replica, which takes its lanes."""
        name = f"{service}-{instance}"
        clock = Clock(self)
        chosen = SETTINGS.model_copy(update={"instance": instance, "handle_at_once": self.schedule.at_once})
        pool = cast("Any", Pool(self.ground.pools[service], self.stage))
        database = Database(pool, self.ground.schemas[service], clock, chosen)
        lanes = self.variants.lanes(database, uuid7(clock), instance, LEASE_S)
        producer = cast("Any", Producer(self.broker, self.stage.gate))
        relay = self.variants.relay(service, database, lanes, producer, chosen)
        role = self.cast.play(Part(self, service, instance, database, lanes.holder, clock))
        handlers = dict(role.handlers)
        self.handled[service] = frozenset(handlers)
        heard = {topic.name: topic for topic in self.cast.hears[service]}
        worker = self.variants.worker(database, lanes, handlers, heard, self.cast.protection, chosen)
        consumer = self._consumer(service, heard, frozenset(handlers), database, chosen, worker)
        database.on_commit(relay.note)
        units: dict[str, Callable[[], Awaitable[object]]] = {
            "lanes": lanes.step,
            "relay": relay.step,
            "worker": worker.step,
            "consumer": lambda: _consume(consumer),
            "house": lambda: Service._keep_house(cast("Any", None), database),
        }
        units.update(role.sweeps)
        actors = {kind: Actor(f"{name} {kind}", unit) for kind, unit in units.items()}
        replica = Replica(name, service, instance, lanes, relay, consumer, actors, tuple(role.sweeps), clock)
        self.replicas[service, instance] = replica
        await self.turn(replica, "lanes")
        return replica

    def _consumer(
        self,
        service: str,
        heard: dict[str, Topic],
        wanted: frozenset[str],
        database: Database,
        chosen: ChassisSettings,
        worker: Worker,
    ) -> Consumer:
        FastStreamBroker.opened = (self.broker, self._fetching)
        consumer = self.variants.consumer(
            service, heard, wanted, database, self.cast.protection, chosen, worker, patience_s=0.0
        )
        consumer.reach = FastStreamBroker.reach_of(consumer)
        consumer.doubt_s = 0.0
        return consumer

    async def _fetching(self, point: str) -> Fate:
        """A turn of a consumer begins where it fetches."""
        if point == "fetch":
            await self.stage.hold(point)
        return await self.stage.gate(point)

    async def run(self, step: Step) -> None:
        """Let one step happen."""
        self.now += _TICK
        rng = random.Random(step.seed)  # noqa: S311 -- a schedule must repeat
        self.trace.append(f"-- {step.kind} ({step.seed})")
        self.stage.rng = rng
        if step.kind in (*TURNS, "house"):
            self.stage.weather = self.weather
            await self._take_turn(step.kind, rng)
            self.stage.weather = CALM
        elif step.kind == "flow":
            self.stage.weather = self.weather
            for kind, service in self.cast.flow:
                await self._take_turn(kind, rng, service)
            self.stage.weather = CALM
        else:
            await getattr(self, "_" + step.kind.replace(" ", "_"))(rng)

    async def _take_turn(self, kind: str, rng: random.Random, service: str | None = None) -> None:
        """One loop of one replica goes on; one that is not there is started, a frozen one thaws now and then."""
        if kind == "submit":  # in the middle of everything, now and then
            if rng.randrange(2) == 0:
                await self._submit(rng)
            return
        if kind == "sweep" and service is None:
            service, kind = self._a_sweep(rng)
        places = [place for place in self.places if service in (None, place[0])]
        chosen = rng.randrange(len(places) + len(self.ghosts))
        replica = self.replicas.get(places[chosen]) if chosen < len(places) else self.ghosts[chosen - len(places)]
        if replica is None or (replica.is_dead and replica not in self.ghosts):
            replica = await self.start(*places[chosen])
        if replica.is_dead or kind not in replica.actors:
            return
        if replica.is_frozen:
            if rng.randrange(4):
                return
            replica.is_frozen = False
        if kind == "relay" and rng.randrange(2):
            replica.relay.look()  # its poll interval is over
        await self.turn(replica, kind)

    def _a_sweep(self, rng: random.Random) -> tuple[str, str]:
        """Choose a sweep and the service whose it is, of those that a flow passes."""
        sweeps = [(service, kind) for kind, service in self.cast.flow if kind not in (*TURNS[:3], "submit")]
        return sweeps[0] if len(sweeps) == 1 else rng.choice(sweeps)

    async def turn(self, replica: Replica, kind: str) -> None:
        """Let one loop of a replica go on; raises ``Broken`` for an error that its process would not survive."""
        if replica.is_dead:
            return
        actor = replica.actors[kind]
        error = await self.stage.go_on(actor)
        if is_crash(error):
            await self.die(replica)
        elif isinstance(error, (*TROUBLE, *self.cast.trouble)):
            self.trace.append(f"{actor.name} has trouble: {type(error).__name__}")
            if kind == "relay":
                replica.relay.look()
        elif error is not None:
            raise Broken(f"{actor.name} ended with {type(error).__name__}: {error}") from error

    async def die(self, replica: Replica) -> None:
        """End a process where it stands."""
        replica.is_dead = True
        self.trace.append(f"{replica.name} is dead")
        for actor in replica.actors.values():
            await self.stage.kill(actor)

    def living(self) -> list[Replica]:
        """Give the replicas that run."""
        return [replica for replica in self.replicas.values() if not replica.is_dead]

    async def _submit(self, rng: random.Random) -> None:
        await self.cast.submit(self, rng)

    async def _crash(self, rng: random.Random) -> None:
        living = self.living()
        if living:
            await self.die(rng.choice(living))

    async def _stop(self, rng: random.Random) -> None:
        """A rolling restart: a replica that has nothing open gives its lanes back and comes again."""
        ready = [each for each in self.living() if not any(actor.is_inside for actor in each.actors.values())]
        if not ready or any(actor.is_inside for each in self.replicas.values() for actor in each.actors.values()):
            return
        replica = rng.choice(ready)
        actor = Actor(f"{replica.name} leaves", replica.lanes.leave)
        error = await self.stage.go_on(actor)
        if error is not None and not isinstance(error, TROUBLE):
            raise Broken(f"{replica.name} cannot leave") from error
        await replica.consumer.broker.stop()
        await self.die(replica)

    async def _replace(self, rng: random.Random) -> None:
        """A replica is held for dead, and its successor of the same ordinal started, while it only stands still."""
        living = self.living()
        if not living or self.ghosts:
            return
        ghost = rng.choice(living)
        self.ghosts.append(ghost)
        ghost.is_frozen = True
        await self.start(ghost.service, ghost.instance)

    async def _freeze(self, rng: random.Random) -> None:
        living = self.living()
        if living:
            rng.choice(living).is_frozen = True

    async def _pass_time(self, rng: random.Random) -> None:
        await self.move_clock(rng.choice((0.3, 1.0, 3.0, 6.0)))

    async def _pass_a_lease(self, _: random.Random) -> None:
        await self.move_clock(LEASE_S + 1)

    async def move_clock(self, seconds: float) -> None:
        """Let time pass for every machine, and for the databases' server."""
        self.now += timedelta(seconds=seconds)
        await self.ground.set_clock(self.now)

    async def _jump(self, rng: random.Random) -> None:
        if self.replicas:
            rng.choice(list(self.replicas.values())).clock.skew = timedelta(seconds=rng.choice(JUMPS_S))

    async def _rebalance(self, rng: random.Random) -> None:
        for service in self.cast.hears:
            self.broker.group(service).rebalance(rng.randrange(3))

    async def _rewind(self, rng: random.Random) -> None:
        """The group's offsets are lost, or set back."""
        service = rng.choice(list(self.cast.hears))
        group = self.broker.group(service)
        group.committed = {partition: rng.randint(0, offset) for partition, offset in group.committed.items()}
        group.rebalance()

    async def _late(self, _: random.Random) -> None:
        self.broker.land()

    async def _garbage(self, rng: random.Random) -> None:
        topic = rng.choice(self.cast.topics)
        self.broker.append(rng.choice(GARBAGE)(topic, rng, self.broker))

    async def _copy(self, rng: random.Random) -> None:
        """A record that was sent before is sent again."""
        kept = self.broker.of(rng.choice(self.cast.topics).name)
        if kept:
            again = rng.choice(kept)
            self.broker.append(Record(again.topic, again.key, again.value, again.headers, again.partition))

    async def _retell(self, rng: random.Random) -> None:
        """Somebody tells again, as something new, what was told before."""
        kept = [record for topic in self.cast.topics for record in self.broker.of(topic.name)]
        self.retell(rng.sample(kept, min(3, len(kept))), rng)

    def retell(self, records: Sequence[Kept], rng: random.Random) -> None:
        """Send records again, each with an id of its own."""
        for again in records:
            renamed = {"ce_id": str(UUID(int=rng.getrandbits(128), version=4)).encode(), "ce_source": b"echo"}
            headers = [(name, renamed.get(name, value)) for name, value in again.headers]
            self.broker.append(Record(again.topic, again.key, again.value, headers, again.partition))


def is_crash(error: BaseException | None) -> bool:
    """Whether a process died of it; tasks that it was divided into tell it in a group."""
    if isinstance(error, BaseExceptionGroup):
        return any(is_crash(each) for each in error.exceptions)
    return isinstance(error, Crashed)


async def _consume(consumer: Consumer) -> None:
    await consumer.start()
    await consumer.run(asyncio.Event())
