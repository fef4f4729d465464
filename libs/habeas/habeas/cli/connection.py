"""Connections of the command line: bounded, named, and with errors that a person can act on."""

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import click
from click.core import ParameterSource

from habeas.chassis.dsn import HOW_TO_WRITE, PRIVATE, is_local, is_private, parts_of
from habeas.cli.local_fleet import FleetOption

if TYPE_CHECKING:
    import asyncpg

T = TypeVar("T")
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


def require_private(dsn: str, variable: str) -> None:
    """Raise UsageError for a DSN whose connection others could read, unless this is a developer's machine.

    That is the rule of the services. Where nothing says which environment it is, a database on this machine is a developer's.
    """
    environment = os.environ.get("HABEAS_ENVIRONMENT", "").strip()
    if is_private(dsn) or environment == "development" or (not environment and is_local(dsn)):
        return
    if parts_of(dsn) is None:
        raise click.UsageError(f"{variable} is no DSN of PostgreSQL; {HOW_TO_WRITE}")
    raise click.UsageError(
        f"production refuses a database connection that others could read: give {variable} {PRIVATE}; "
        "elsewhere write HABEAS_ENVIRONMENT=development"
    )


def private(ctx: click.Context, option: click.Parameter, dsn: str | None) -> str | None:
    """Return the DSN of an option, when ``require_private`` takes it."""
    if dsn:
        require_private(dsn, named(ctx, option))
    return dsn


def named(ctx: click.Context, parameter: click.Parameter) -> str:
    """Return what a person wrote a value to: the option, or its variable."""
    if (
        isinstance(parameter.envvar, str)
        and ctx.get_parameter_source(parameter.name or "") is not ParameterSource.COMMANDLINE
    ):
        return parameter.envvar
    return parameter.opts[0]


ADMIN_DSN: Final = click.option(
    "--dsn",
    cls=FleetOption,
    envvar="HABEAS_ADMIN_DATABASE_DSN",
    show_envvar=True,
    required=True,
    callback=private,
    help="The fleet's database, as habeas_owner or an administrator.",
)

OPERATOR_DSN: Final = click.option(
    "--dsn",
    cls=FleetOption,
    envvar="HABEAS_OPERATOR_DATABASE_DSN",
    show_envvar=True,
    required=True,
    callback=private,
    help="The fleet's database, as a role that may read it (habeas_operator).",
)

SUPERVISOR_DSN: Final = click.option(
    "--dsn",
    cls=FleetOption,
    envvar="HABEAS_SUPERVISOR_DATABASE_DSN",
    show_envvar=True,
    required=True,
    callback=private,
    help="The fleet's database, as a role that may decide (habeas_supervisor, or the service's own).",
)

_CONNECT_S: Final = 10.0
_STATEMENT_S: Final = 60.0


def run(job: Coroutine[Any, Any, T]) -> T:
    """Run a command's work to its end."""
    return asyncio.run(job)


def refusal(error: BaseException, dsn: str) -> str:
    """Return why the database of the command that runs could not be had, and what to write."""
    from habeas.chassis.connection import why

    return why(error, dsn, _variable())


def _variable() -> str:
    """Return where the command that runs has its DSN from."""
    ctx = click.get_current_context(silent=True)
    options = [] if ctx is None else [each for each in ctx.command.params if each.name == "dsn"]
    return named(ctx, options[0]) if ctx is not None and options else "the DSN"


@asynccontextmanager
async def connected(dsn: str, schema: str = "pg_catalog", *, writes: bool = False) -> AsyncIterator[Connection]:
    """Connect for one command; unless it ``writes``, the server refuses changes.

    What goes wrong with the server ends the command with exit code 1 and a sentence that holds no value and no password.
    """
    import asyncpg

    from habeas.chassis.connection import SessionShared, require_own_session

    settings = {
        "application_name": "habeas-cli",
        "search_path": schema,
        "default_transaction_read_only": "off" if writes else "on",
    }

    async def connect() -> Connection:
        return await asyncpg.connect(dsn, timeout=_CONNECT_S, command_timeout=_STATEMENT_S, server_settings=settings)

    conn = None
    try:
        conn = await connect()
        await require_own_session(conn, settings, connect)
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError, SessionShared) as error:
        if conn is not None:
            conn.terminate()
        raise click.ClickException(refusal(error, dsn)) from None
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
