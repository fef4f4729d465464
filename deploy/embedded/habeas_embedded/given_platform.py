"""A platform of one's own, looked at before any server is started: what is wrong with it is told at once."""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from habeas.datamap.check import compare
from habeas.datamap.errors import StoreError
from habeas.datamap.map.loading import load_datamap
from habeas.datamap.map.model import DataMap
from habeas.datamap.policy.model import load_policy
from habeas.datamap.postgres import find_address_problems, read_live_schema
from habeas.datamap.source import ConfigurationError
from habeas_embedded.errors import EmbeddedError

__all__ = ["GivenPlatform", "find_platform"]

_DSN: Final = "PLATFORM_DSN"


@dataclass(frozen=True, slots=True)
class GivenPlatform:
    """What a person gives for a platform of their own."""

    policy_file: Path
    datamap_dir: Path
    dsn: str


async def find_platform(
    policy: Path | None, datamap: Path | None, env: Mapping[str, str] | None = None
) -> GivenPlatform | None:
    """Return the platform that arguments and variables name, with files that load and a database that lets us in; None without any.

    Raises:
        EmbeddedError: only a part of it is given, a file is wrong (all that is wrong in it is told), or the database cannot be had or
            differs from the map.
    """
    env = os.environ if env is None else env
    policy = policy or _path(env, "HABEAS_POLICY_FILE")
    datamap = datamap or _path(env, "HABEAS_DATAMAP_DIR")
    dsn = env.get(_DSN)
    if policy is None and datamap is None and not dsn:
        return None
    if policy is None or datamap is None or not dsn:
        given = {"--policy": policy, "--datamap": datamap, f"the variable {_DSN}": dsn}
        missing = " and ".join(name for name, value in given.items() if not value)
        raise EmbeddedError(
            f"a platform of your own needs all three: --policy, --datamap and the variable {_DSN}; missing: {missing}"
        )
    try:
        loaded = await asyncio.to_thread(lambda: load_datamap(datamap, load_policy(policy)))
    except ConfigurationError as error:
        raise EmbeddedError(f"policy or data map cannot be used:\n{error}") from None
    except OSError as error:
        raise EmbeddedError(f"{error.filename} cannot be read: {error.strerror}") from None
    await _compare(loaded, env)
    return GivenPlatform(policy, datamap, dsn)


async def _compare(datamap: DataMap, env: Mapping[str, str]) -> None:
    """Compare the live schema of each store with the map, as services do before each erasure."""
    problems = [
        problem for store in datamap.stores.values() for problem in find_address_problems(store, env, production=False)
    ]
    for store in () if problems else datamap.stores.values():
        try:
            live = await read_live_schema(store.name, env[store.connection], store.schema, store.connection)
        except StoreError as error:
            raise EmbeddedError(str(error)) from None
        problems += compare(store, live)
    if problems:
        raise EmbeddedError("the data map and its databases do not fit:\n" + "\n".join(map(str, problems)))


def _path(env: Mapping[str, str], variable: str) -> Path | None:
    value = env.get(variable)
    return Path(value) if value else None
