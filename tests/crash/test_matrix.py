"""The crash matrix: every service dies by SIGKILL at every crash point, is started again, and nothing is lost, doubled or out of order."""

import signal

import pytest

from habeas.chassis.crash import Point
from tests.architecture.crash_points import BY_TRANSACTION
from tests.crash.cases import CASES, Case, read_code
from tests.crash.conftest import Outcome

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(3_000)]


async def test_every_point_and_every_transaction_has_its_case() -> None:
    """The cases are those that the code has: each point outside of transactions once, each transaction at its three points."""
    reading = read_code()
    assert reading.complaints == []
    once = {(point, "") for point in Point if point.name not in BY_TRANSACTION}
    thrice = {(Point[name], place) for name in BY_TRANSACTION for place in reading.transactions}
    assert {(case.point, case.place) for case in CASES} == once | thrice
    assert len(CASES) == len(once) + len(thrice)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_the_service_died_there(outcome: Outcome, case: Case) -> None:
    """The process passed the point with work in its hands, and ended there by SIGKILL: a point that is never passed proves nothing."""
    assert outcome.played.ended.get(case, "not played") == -signal.SIGKILL


async def test_nothing_is_lost_doubled_or_out_of_order(outcome: Outcome) -> None:
    """After the last death everything comes to its end, and databases, Kafka, the log, the mails and the files agree."""
    assert {rule: found[:5] for rule, found in outcome.broken.items() if found} == {}


async def test_the_platform_is_as_it_should_be(outcome: Outcome) -> None:
    """Whoever was erased is gone, the books are kept, nobody else was touched, and nothing went before or stayed after its time."""
    assert [check for check in outcome.platform if not check.passed] == []


async def test_only_mails_at_their_dot_are_uncertain(outcome: Outcome) -> None:
    """A death in the window of the dot leaves mails of which nobody knows; they are counted, and no more than were on their way."""
    deaths = sum(case.service == "notification-mailer" for case in outcome.played.ended)
    assert 1 <= outcome.uncertain <= 4 * deaths
