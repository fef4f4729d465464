"""Opening the connectors of all stores that a data map names."""

import os
from collections.abc import Mapping
from pathlib import Path

from habeas.datamap.datamap import DataMap
from habeas.datamap.policy import Policy
from habeas.datamap.postgres.connection import StoreOptions
from habeas.datamap.postgres.store import PostgresStore
from habeas.datamap.source import ConfigurationError, Problem


def open_stores(
    datamap: DataMap, policy: Policy, options: StoreOptions | None = None, env: Mapping[str, str] | None = None
) -> list[PostgresStore]:
    """Give a connector for each store; its address is in the variable that the dataset's ``connection`` names.

    Nothing is connected yet: a store that is away must not hinder a start. Raises ConfigurationError for a variable that is
    not set.
    """
    found = os.environ if env is None else env
    problems = [
        Problem(
            Path("(environment)"),
            1,
            store.connection,
            f"store {store.name} has no address",
            f"the environment variable {store.connection}=postgresql://…",
        )
        for store in datamap.stores.values()
        if not found.get(store.connection)
    ]
    if problems:
        raise ConfigurationError(problems)
    return [PostgresStore(store, policy, found[store.connection], options) for store in datamap.stores.values()]
