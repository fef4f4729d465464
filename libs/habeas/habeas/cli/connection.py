"""Connections of the command line: bounded, named, and with errors that a person can act on."""

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar
from urllib.parse import urlsplit

import click

if TYPE_CHECKING:
    import asyncpg

T = TypeVar("T")
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


def private(_: click.Context, option: click.Parameter, dsn: str | None) -> str | None:
    """Return the DSN; in production only when nobody between here and the database can read along, as for services.

    Raises UsageError otherwise.
    """
    from habeas.chassis.settings import Environment, is_private

    environment = os.environ.get("HABEAS_ENVIRONMENT", "").strip() or Environment.PRODUCTION
    if dsn is not None and environment != Environment.DEVELOPMENT and not is_private(dsn):
        raise click.UsageError(
            f"production refuses a database connection that others could read: give {option.envvar} "
            "sslmode=verify-full and ssl_min_protocol_version=TLSv1.3, or host=/directory of a unix socket; "
            "elsewhere write HABEAS_ENVIRONMENT=development"
        )
    return dsn


ADMIN_DSN: Final = click.option(
    "--dsn",
    callback=private,
    envvar="HABEAS_ADMIN_DATABASE_DSN",
    show_envvar=True,
    required=True,
    help="The fleet's database, as habeas_owner or an administrator.",
)

OPERATOR_DSN: Final = click.option(
    "--dsn",
    callback=private,
    envvar="HABEAS_OPERATOR_DATABASE_DSN",
    show_envvar=True,
    required=True,
    help="The fleet's database, as a role that may read it (habeas_operator).",
)

SUPERVISOR_DSN: Final = click.option(
    "--dsn",
    callback=private,
    envvar="HABEAS_SUPERVISOR_DATABASE_DSN",
    show_envvar=True,
    required=True,
    help="The fleet's database, as a role that may decide (habeas_supervisor, or the service's own).",
)

_CONNECT_S: Final = 10.0
_STATEMENT_S: Final = 60.0


def run(job: Coroutine[Any, Any, T]) -> T:
    """Run a command's work to its end."""
    return asyncio.run(job)


def place_of(dsn: str) -> str:
    """Return where a DSN leads to, as in `` at db.example.org:5432``, without its user and password; empty when it does not say."""
    try:
        place = urlsplit(dsn).netloc.rpartition("@")[2]
    except ValueError:
        return ""
    return f" at {place}" if place else ""


@asynccontextmanager
async def connected(dsn: str, schema: str = "pg_catalog", *, writes: bool = False) -> AsyncIterator[Connection]:
    """Connect for one command; unless it ``writes``, the server refuses changes.

    What goes wrong with the server ends the command with exit code 1 and a sentence that holds no value and no password.
    """
    import asyncpg

    try:
        conn = await asyncpg.connect(
            dsn,
            timeout=_CONNECT_S,
            command_timeout=_STATEMENT_S,
            server_settings={
                "application_name": "habeas-cli",
                "search_path": schema,
                "default_transaction_read_only": "off" if writes else "on",
            },
        )
    except (OSError, TimeoutError, asyncpg.CannotConnectNowError) as error:
        where = place_of(dsn)
        raise click.ClickException(f"PostgreSQL{where} does not answer: {type(error).__name__}") from None
    except (ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise click.ClickException(f"the database does not let us in: {type(error).__name__}") from None
    try:
        yield conn
    except asyncpg.InsufficientPrivilegeError:
        raise click.ClickException("the role of this DSN may not do that") from None
    except (
        asyncpg.UndefinedTableError,
        asyncpg.UndefinedColumnError,
        asyncpg.UndefinedFunctionError,
        asyncpg.InvalidSchemaNameError,
    ):
        raise click.ClickException("the fleet's tables are not there: run `habeas migrate` first") from None
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise click.ClickException(f"the database did not answer: {type(error).__name__}") from None
    finally:
        await conn.close(timeout=_CONNECT_S)
