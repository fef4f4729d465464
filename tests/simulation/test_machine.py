"""The same world driven by Hypothesis: it chooses the steps, keeps what it learnt between runs, and makes a failure small by itself."""

import asyncio
import secrets
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from typing_extensions import override

from habeas.chassis import crash
from habeas_embedded.provision import Access, apply_roles, clone_database, drop_database, open_access
from tests.simulation import checker
from tests.simulation.broken import BROKEN
from tests.simulation.drain import drain
from tests.simulation.field import Field
from tests.simulation.run import simulated
from tests.simulation.schedule import TURNS, Schedule, Step
from tests.simulation.world import Variants, World

SEEDS = st.integers(0, (1 << 32) - 1)
HAPPENINGS = ("crash", "stop", "replace", "freeze", "pass time", "pass a lease", "jump", "rebalance", "rewind", "late")


class Delivery(RuleBasedStateMachine):
    """Two services, some replicas, and everything that can happen to them."""

    runner: ClassVar[asyncio.Runner]
    ground: ClassVar[Field]
    variants: ClassVar[Variants]

    def __init__(self) -> None:
        super().__init__()
        self.world: World | None = None

    @initialize(
        replicas=st.tuples(st.integers(1, 2), st.integers(1, 2)), weather=st.integers(0, 4), keys=st.integers(1, 3)
    )
    def begin(self, replicas: tuple[int, int], weather: int, keys: int) -> None:
        """An empty world."""
        self.runner.run(self.ground.clean())
        self.world = World(Schedule(0, replicas, keys, weather, 0, ()), self.ground, self.variants)
        crash.arm(self.world.stage.at)

    @rule(seed=SEEDS)
    def submit(self, seed: int) -> None:
        """Somebody wants something."""
        self._step("submit", seed)

    @rule(seed=SEEDS)
    def flow(self, seed: int) -> None:
        """Every loop takes a turn."""
        self._step("flow", seed)

    @rule(kind=st.sampled_from(TURNS), seed=SEEDS)
    def turn(self, kind: str, seed: int) -> None:
        """One loop takes a turn."""
        self._step(kind, seed)

    @rule(kind=st.sampled_from(HAPPENINGS), seed=SEEDS)
    def happen(self, kind: str, seed: int) -> None:
        """Something happens to processes, clocks or Kafka."""
        self._step(kind, seed)

    @invariant()
    def nothing_is_committed_before_it_is_stored(self) -> None:
        """Offsets of the group are never ahead of the inbox."""
        if self.world is not None:
            assert not self.runner.run(checker.check_running(self.world))

    @override
    def teardown(self) -> None:
        if self.world is None:
            return
        self.runner.run(self._end(self.world))

    async def _end(self, world: World) -> None:
        try:
            await drain(world)
            assert not await checker.check(world)
        finally:
            crash.arm(None)
            for replica in (*world.replicas.values(), *world.ghosts):
                for actor in replica.actors.values():
                    await world.stage.kill(actor)

    def _step(self, kind: str, seed: int) -> None:
        assert self.world is not None
        self.runner.run(self.world.run(Step(kind, seed)))


@pytest.fixture
def machine(postgres_template: Access) -> Iterator[Any]:
    """The machine on a database of its own."""
    server = postgres_template.server_dsn
    access = open_access(server, f"habeas_test_{secrets.token_hex(6)}")
    with asyncio.Runner() as runner:
        runner.run(clone_database(server, postgres_template.database, access.database))
        runner.run(apply_roles(access, set_passwords=False))
        Delivery.runner, Delivery.ground = runner, runner.run(Field.lay(access))
        with simulated():
            yield Delivery
        runner.run(Delivery.ground.close())
        runner.run(drop_database(server, access.database))


def test_delivery_keeps_its_promises_whatever_hypothesis_does(machine: Any) -> None:  # noqa: ANN401 -- a class
    """Whatever steps are taken in whatever order, everything ends well once the faults stop."""
    machine.variants = Variants()
    run_state_machine_as_test(machine, settings=settings(max_examples=15, stateful_step_count=10))


def test_the_machine_finds_a_broken_core(machine: Any) -> None:  # noqa: ANN401 -- a class
    """An inbox without the unique id does not pass."""
    machine.variants = BROKEN["an inbox without the unique id"]
    chosen = settings(max_examples=100, stateful_step_count=10, phases=[Phase.generate], database=None)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=chosen)
