"""A service's own database, opened as the service opens it, without the rest of it."""

from habeas.chassis.clock import Clock
from habeas.chassis.database import Database
from habeas.chassis.settings import ChassisSettings, Environment
from habeas_embedded.provision import Access


async def opened(access: Access, service: str, clock: Clock) -> Database:
    """Open the pool in a service's own role; whoever opens it closes it."""
    settings = ChassisSettings.model_validate(
        {
            "environment": Environment.DEVELOPMENT,
            "kafka_bootstrap": "127.0.0.1:1",
            "database_dsn": access.dsn(service),
        }
    )
    return await Database.open(settings, service.replace("-", "_"), clock)
