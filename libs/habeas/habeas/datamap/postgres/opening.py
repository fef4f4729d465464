"""Opening the connectors of all stores that a data map names."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from habeas.chassis.dsn import PRIVATE, is_private
from habeas.datamap.map.model import DataMap, StoreMap
from habeas.datamap.policy.model import Policy
from habeas.datamap.postgres.connection import StoreOptions
from habeas.datamap.postgres.store import PostgresStore
from habeas.datamap.source import ConfigurationError, Problem

_ENVIRONMENT: Final = Path("(environment)")


def open_stores(
    datamap: DataMap,
    policy: Policy,
    options: StoreOptions | None = None,
    env: Mapping[str, str] | None = None,
    *,
    production: bool,
) -> list[PostgresStore]:
    """Give a connector for each store; its address is in the variable that the dataset's ``connection`` names.

    Nothing is connected yet: a store that is away must not hinder a start. Raises ConfigurationError for a variable that is
    not set, and in ``production`` for one whose DSN would let others read along.
    """
    found = os.environ if env is None else env
    stores = datamap.stores.values()
    problems = [problem for store in stores for problem in find_address_problems(store, found, production=production)]
    if problems:
        raise ConfigurationError(problems)
    return [PostgresStore(store, policy, found[store.connection], options) for store in stores]


def find_address_problems(store: StoreMap, env: Mapping[str, str], *, production: bool) -> Iterator[Problem]:
    """Say what is wrong with the variable that holds a store's DSN; never what it holds."""
    dsn = env.get(store.connection)
    if not dsn:
        what = f"store {store.name} has no address"
        yield Problem(
            _ENVIRONMENT, 1, store.connection, what, f"the environment variable {store.connection}=postgresql://…"
        )
    elif production and not is_private(dsn):
        what = f"production refuses the connection to store {store.name}, which others could read"
        yield Problem(_ENVIRONMENT, 1, store.connection, what, f"{store.connection} with {PRIVATE}")
