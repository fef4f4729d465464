"""When sweeps are woken."""

from datetime import UTC, datetime
from typing import Any, cast

from habeas.chassis.clock import FakeClock
from habeas.chassis.database import Database
from habeas.chassis.service import Service
from habeas.chassis.settings import ChassisSettings, Environment
from habeas.chassis.sweep import Swept

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


async def often(_: Database) -> Swept:
    """Do nothing."""
    return Swept(0)


async def rarely(_: Database) -> Swept:
    """Do nothing."""
    return Swept(0)


async def test_what_is_done_seldom_is_not_woken_by_messages() -> None:
    """A handled message wakes sweeps that may have been waiting for it, and not those that only look now and then."""
    settings = ChassisSettings.model_validate(
        {
            "environment": Environment.DEVELOPMENT,
            "kafka_bootstrap": "127.0.0.1:1",
            "database_dsn": "postgresql://127.0.0.1:1/none",
        }
    )
    service = Service("request-intake", settings, protection=cast("Any", None), clock=FakeClock(NOON))
    service.every(1.0, often)
    service.seldom(60.0, rarely)
    service._sweeps = [build(cast("Any", None)) for build in service._sweepers]
    service._handled()
    assert {sweep.name: sweep.wake.is_set() for sweep in service._sweeps} == {"often": True, "rarely": False}
