"""How the command line reaches Kafka: by the same variables as the services."""

import os
from typing import Any

import click

_NO_DATABASE = "postgresql:///none?host=/none"  # the chassis' settings want one; nothing is opened by it here


def client_options(dsn: str | None = None, bootstrap: str | None = None) -> dict[str, Any]:
    """Give what an aiokafka client needs, from HABEAS_KAFKA_…; production refuses plain connections here too."""
    from habeas.chassis.environment import SettingsError
    from habeas.chassis.kafka import client_options as options_of
    from habeas.chassis.settings import load_chassis_settings

    env = {**os.environ, "HABEAS_DATABASE_DSN": dsn or _NO_DATABASE}
    if bootstrap is not None:
        env["HABEAS_KAFKA_BOOTSTRAP"] = bootstrap
    try:
        return options_of(load_chassis_settings("habeas-cli", env))
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
