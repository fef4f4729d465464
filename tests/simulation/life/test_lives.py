"""Whole lives of requests under schedules of faults: the services as they are, each schedule a function of its seed."""

from collections.abc import Callable

import pytest

from habeas_embedded.provision import Access
from habeas_embedded.servers import Servers
from tests.simulation.campaign import Report, share_out
from tests.simulation.conftest import FIGURES
from tests.simulation.field import Field
from tests.simulation.life.play import LIVES, schedule
from tests.simulation.run import run


@pytest.mark.timeout(2400)
async def test_every_request_comes_to_its_lawful_end(
    pytestconfig: pytest.Config,
    postgres_server: Servers,
    postgres_template: Access,
    record_property: Callable[[str, object], None],
) -> None:
    """One terminal state with its outcome, rows gone or untouched, exports that open, mails once, an entry for each step."""
    count, first = int(pytestconfig.getoption("lives")), int(pytestconfig.getoption("seed"))
    admin_dsn = postgres_server.postgres_admin_dsn
    report: Report = await share_out(admin_dsn, postgres_template.database, first, count, LIVES.name)
    record_property(FIGURES, str(report))
    assert report.bad is None, f"\n{report.bad}"
    assert report.schedules == count


async def test_a_life_repeats_itself(ground: Field) -> None:
    """The same seed gives the same schedule and the same run, step by step."""
    once = await run(schedule(4), ground, play=LIVES)
    again = await run(schedule(4), ground, play=LIVES)
    assert once.is_good, str(once)
    assert once.trace == again.trace
