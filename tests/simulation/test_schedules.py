"""The delivery core under thousands of schedules of faults, each a function of its seed."""

from collections.abc import Callable

import pytest

from habeas_embedded.provision import Access
from habeas_embedded.servers import Servers
from tests.simulation.campaign import Report, share_out
from tests.simulation.conftest import FIGURES
from tests.simulation.field import Field
from tests.simulation.run import run
from tests.simulation.schedule import Schedule, Step, shrink


@pytest.mark.timeout(2400)
async def test_promises_hold_under_every_schedule(
    pytestconfig: pytest.Config,
    postgres_server: Servers,
    postgres_template: Access,
    record_property: Callable[[str, object], None],
) -> None:
    """Nothing is lost, done twice or out of order, the log has one history, and everything comes to an end."""
    count, first = int(pytestconfig.getoption("schedules")), int(pytestconfig.getoption("seed"))
    report: Report = await share_out(postgres_server.postgres_admin_dsn, postgres_template.database, first, count)
    record_property(FIGURES, str(report))
    assert report.bad is None, f"\n{report.bad}"
    assert report.schedules == count


async def test_a_schedule_repeats_itself(ground: Field) -> None:
    """The same seed gives the same schedule and the same run, step by step."""
    once = await run(Schedule.of(7), ground)
    again = await run(Schedule.of(7), ground)
    assert Schedule.of(7) == once.schedule
    assert once.trace == again.trace


async def test_a_schedule_survives_being_written_down() -> None:
    """What a failure prints as a case is the schedule."""
    schedule = Schedule.of(11)
    assert Schedule.from_json(schedule.to_json()) == schedule


async def test_what_does_not_matter_is_left_out() -> None:
    """Shrinking keeps the steps without which nothing goes wrong, and no other."""
    schedule = Schedule.of(3).with_steps([Step("relay", number) for number in range(40)])

    async def fails(fewer: Schedule) -> bool:
        return {7, 31} <= {step.seed for step in fewer.steps}

    assert [step.seed for step in (await shrink(schedule, fails)).steps] == [7, 31]
