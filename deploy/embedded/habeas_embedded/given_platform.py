"""A platform of one's own, looked at before any server is started: what is wrong with it is told at once."""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import asyncpg

from habeas.datamap.loading import load_datamap
from habeas.datamap.policy import load_policy
from habeas.datamap.source import ConfigurationError
from habeas_embedded.errors import EmbeddedError

__all__ = ["GivenPlatform", "find_platform"]

_DSN: Final = "PLATFORM_DSN"
_CONNECT_LIMIT_S: Final = 10.0


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
        EmbeddedError: only a part of it is given, a file is wrong (all that is wrong in it is told), or the database cannot be had.
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
        await asyncio.to_thread(lambda: load_datamap(datamap, load_policy(policy)))
    except ConfigurationError as error:
        raise EmbeddedError(f"policy or data map cannot be used:\n{error}") from None
    except OSError as error:
        raise EmbeddedError(f"{error.filename} cannot be read: {error.strerror}") from None
    await _connect_once(dsn)
    return GivenPlatform(policy, datamap, dsn)


async def _connect_once(dsn: str) -> None:
    """Log in and out; what goes wrong is told without the DSN, which holds a password."""
    try:
        connection = await asyncpg.connect(dsn, timeout=_CONNECT_LIMIT_S)
    except (ValueError, asyncpg.InterfaceError):  # also what asyncpg says of a DSN that it cannot read
        raise EmbeddedError(
            f"{_DSN} is no DSN of PostgreSQL: write postgresql://ROLE:PASSWORD@HOST:PORT/DATABASE"
        ) from None
    except asyncpg.PostgresError as error:
        raise EmbeddedError(f"{_DSN}: {_place(dsn)} does not let us in ({type(error).__name__})") from None
    except (OSError, TimeoutError) as error:
        raise EmbeddedError(f"{_DSN}: {_place(dsn)} does not answer ({type(error).__name__})") from None
    await connection.close()


def _place(dsn: str) -> str:
    return urlsplit(dsn).netloc.rpartition("@")[2] or "the server"


def _path(env: Mapping[str, str], variable: str) -> Path | None:
    value = env.get(variable)
    return Path(value) if value else None
