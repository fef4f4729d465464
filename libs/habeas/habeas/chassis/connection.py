"""Connections to PostgreSQL: types known without asking, causes of failures in words, and sessions that are really one's own.

The driver asks the server about its own types once in a process, not once in a connection. What goes wrong with a connection is told by
the variable that holds the DSN, the place, the cause and what to write: without a password, and without the server's own text.
"""

import errno
import os
import re
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from socket import gaierror
from types import SimpleNamespace
from typing import Any, Final, Protocol

import asyncpg

from habeas.chassis.dsn import HOW_TO_WRITE, parts_of, place_of

# PostgreSQL assigns the numbers of its own types below this one by hand and never changes them (its documentation, 52.3).
_ASSIGNED_BY_HAND: Final = 10_000

_ARRAYS: Final = frozenset({1000, 1001, 1005, 1007, 1009, 1016, 1022, 1182, 1185, 1187, 1231, 2951, 3807})
"""Arrays that parameters have: bool, bytea, int2, int4, text, int8, float8, date, timestamptz, interval, numeric, uuid, jsonb."""

_KNOWN: Final[dict[frozenset[int], object]] = {}
_NOT_ASKED: Final = SimpleNamespace(name="not asked")

_FIND_SESSION: Final = """
    SELECT pg_backend_pid() AS backend,
           ARRAY(SELECT lower(s.name) || '=' || s.setting FROM pg_settings AS s WHERE lower(s.name) = ANY ($1::text[])) AS held
"""
_FIND_BACKEND: Final = "SELECT pg_backend_pid()"
_LOOKS: Final = 3
_UNSUPPORTED: Final = (
    "unsupported startup parameter"  # PgBouncer's words; PostgreSQL says "unrecognized configuration parameter"
)
_REPORTED_OTHERWISE: Final = frozenset(
    {"application_name", "datestyle"}
)  # cut to 63 bytes; completed by the order of day and month
_LOST_STATEMENTS: Final = (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError)


class Connection(asyncpg.Connection):
    """A connection of asyncpg. Its question about unknown types costs ten milliseconds and more, several times for each connection."""

    async def _introspect_types(self, typeoids: Iterable[int], timeout: float | None) -> tuple[object, object]:
        """Give what is known of PostgreSQL's own types; types that were made in a database are asked for each time."""
        asked = frozenset(typeoids)
        wanted = _ARRAYS if asked.issubset(_ARRAYS) else asked  # all of them at the first need of one, then never again
        known = _KNOWN.get(wanted)
        if known is not None:
            return known, _NOT_ASKED
        types, statement = await super()._introspect_types(wanted, timeout)  # type: ignore[misc]  # asyncpg-stubs leave out what is private; there is no public hook
        if all(oid < _ASSIGNED_BY_HAND for oid in wanted):
            _KNOWN[wanted] = types
        return types, statement


class SessionShared(Exception):
    """Something between here and PostgreSQL keeps a session from being one's own; waiting does not mend it."""

    def __init__(self, seen: str) -> None:
        super().__init__(
            f"{seen}: a connection pooler such as PgBouncer stands before the database. Habeas needs sessions of its own (settings, "
            "prepared statements, LISTEN, advisory locks) and keeps few connections by itself: write host and port of PostgreSQL itself, "
            "or of a pooler that has pool_mode=session and passes on the settings of a session"
        )


class Session(Protocol):
    """A connection of asyncpg, from a pool or not."""

    async def fetchrow(self, query: str, *args: Any) -> asyncpg.Record | None:
        """Run a query and return its first row."""
        ...

    async def fetchval(self, query: str, *args: Any) -> object:
        """Run a query and return the first column of its first row."""
        ...

    def get_server_pid(self) -> int:
        """Return the backend that the server named when the connection was made."""
        ...


async def require_own_session(
    session: Session,
    wanted: Mapping[str, str],
    another: Callable[[], Awaitable["asyncpg.Connection[asyncpg.Record]"]],
) -> None:
    """Make sure that a connection is one session of PostgreSQL, with the ``wanted`` settings, for as long as it lasts.

    PostgreSQL names the backend when a connection is made (its documentation, 54.2.1): where the same backend answers, nothing pools.
    Where another answers, a second connection made by ``another`` shows whether backends are lent for each transaction.
    Raises SessionShared.
    """
    asked = {name.lower(): value for name, value in wanted.items() if name.lower() not in _REPORTED_OTHERWISE}
    try:
        row = await session.fetchrow(_FIND_SESSION, list(asked))
        if row is None:  # never: a SELECT without FROM has one row
            return
        withheld = sorted(name for name, value in asked.items() if f"{name}={value}" not in row["held"])
        if withheld:
            raise SessionShared(f"the settings {', '.join(withheld)} of a session are not in force")
        if row["backend"] != session.get_server_pid():
            await _require_unshared(session, another)
    except _LOST_STATEMENTS:
        raise SessionShared("statements that a session prepared are not there") from None


async def _require_unshared(
    session: Session, another: Callable[[], Awaitable["asyncpg.Connection[asyncpg.Record]"]]
) -> None:
    """Hold a second session in a transaction: it gets a backend that the first one had, or moves it to another, where backends are lent."""
    other = await another()
    try:
        for _ in range(_LOOKS):
            mine = await session.fetchval(_FIND_BACKEND)
            async with other.transaction():
                # Asked first: where there is one backend in all, this session would wait for it.
                is_lent = await other.fetchval(_FIND_BACKEND) == mine or await session.fetchval(_FIND_BACKEND) != mine
            if is_lent:
                raise SessionShared("the backend of a session changes between its transactions")
    finally:
        other.terminate()


def is_pooler(error: BaseException) -> bool:
    """Return whether a connection failed because a pooler does not know the settings of a session."""
    return isinstance(error, asyncpg.ProtocolViolationError) and str(error).startswith(_UNSUPPORTED)


def why(error: BaseException, dsn: str, variable: str) -> str:
    """Return why no connection came about, for the person who set ``variable`` to ``dsn``: place, cause, what to write.

    Holds no password, and nothing that the server, the driver or the DSN's author wrote but host and port.
    """
    where = f"{variable}: PostgreSQL{f' at {place}' if (place := place_of(dsn)) else ''}"
    match error:
        case _ if is_pooler(error):
            return f"{where} cannot be used: {SessionShared('the settings of a session are refused')}"
        case SessionShared():
            return f"{where} cannot be used: {error}"
        case asyncpg.PostgresError():
            code = error.sqlstate or ""
            other = f"answers with SQLSTATE {code}; see appendix A of its documentation"
            return f"{where} {_CAUSES.get(code) or _CAUSES.get(code[:2]) or other}"
        case OSError():
            unread = _unreadable_file(dsn)
            return f"{variable} {unread}" if unread is not None else f"{where} {_of_network(error)}"
        case asyncpg.InterfaceError() | ValueError():
            return f"{variable} {_of_dsn(dsn)}"
        case _:
            return f"{where} cannot be used ({type(error).__name__})"


def _of_network(error: OSError) -> str:
    match error:
        case gaierror():
            return "cannot be reached: the name of the host does not resolve; mend the host"
        case ssl.SSLCertVerificationError():
            told = _CERTIFICATES.get(error.verify_code, f"is not accepted (OpenSSL: {error.verify_code})")
            return f"shows a certificate that {told}"
        case ssl.SSLError():
            return "does not agree with us on TLS, or a file of sslrootcert, sslcert or sslkey holds no PEM; mend it"
        case TimeoutError():
            return "does not answer in time; mend host and port, or let packets through to it"
        case _:
            return _of_number(error)


def _of_number(error: OSError) -> str:
    """Tell by the system's number; where several addresses were tried, Python puts the numbers into the text."""
    numbers = {error.errno} if error.errno else {int(number) for number in _ERRNO.findall(str(error))}
    if numbers and numbers <= {errno.ECONNREFUSED, errno.ENOENT}:
        return "refuses the connection: nothing listens there; mend host and port, or start it"
    if numbers & {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN}:
        return "cannot be reached from this machine; mend the host, or the route to it"
    if not numbers and type(error) is ConnectionError:  # what asyncpg raises for a server that says no to TLS
        return "does not speak TLS, which sslmode demands; switch ssl on in the server"
    return _CAUSES["08"]


_CAUSES: Final = {
    "28P01": "does not accept the password of this role; mend role or password",
    "28": "does not let this role in from here; mend the role, sslmode, or pg_hba.conf of the server",
    "3D000": "has no database of this name; mend what stands behind the last slash",
    "42501": "does not let this role connect to the database; GRANT CONNECT ON DATABASE … TO the role",
    "53300": "has no connection left; end some, or raise max_connections",
    "57": "is starting or stopping; wait for it",
    "08": "ended the connection while it was made; is it PostgreSQL, and what does its log say?",
    "22023": "does not know a parameter of the DSN; mend what stands behind the question mark",
    "42704": "does not know a parameter of the DSN; mend what stands behind the question mark",
}
"""Causes by SQLSTATE, or its class (PostgreSQL, appendix A)."""

_CERTIFICATES: Final = {
    9: "is not valid yet",
    10: "is past its time",
    18: "is signed by itself; write its file as sslrootcert",
    19: "comes from an authority that is not trusted; write the authority's file as sslrootcert",
    20: "comes from an authority that is not known; write the authority's file as sslrootcert",
    62: "is for another name; write the host as the certificate has it",
    64: "is for another address; write the host as the certificate has it",
}
"""By OpenSSL's number (x509_vfy.h), as its words may repeat the host."""

_FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_ERRNO: Final = re.compile(r"\[Errno (\d+)\]")


def _of_dsn(dsn: str) -> str:
    parts = parts_of(dsn)
    if parts is None:
        return f"is no DSN of PostgreSQL; {HOW_TO_WRITE}"
    mode = parts.last("sslmode")
    if mode is not None and mode not in _SSL_MODES:
        return f"has an sslmode that does not exist; write one of {', '.join(_SSL_MODES)}"
    root = parts.last("sslrootcert") or os.environ.get("PGSSLROOTCERT")
    if mode in {"verify-ca", "verify-full"} and not root:
        return f"has sslmode={mode} and no certificate to check by; add sslrootcert=/path/of/ca.pem, the authority that signed the server's"
    return f"holds something that the driver does not take; {HOW_TO_WRITE}"


def _unreadable_file(dsn: str) -> str | None:
    """Say which parameter names a file that cannot be read; None when each can."""
    parts = parts_of(dsn)
    for name in _FILES:
        path = None if parts is None else parts.last(name)
        if path is not None and not os.access(path, os.R_OK):
            return f"names as {name} a file that is not there, or may not be read; write the path of a PEM file"
    return None


__all__ = ["Connection", "SessionShared", "is_pooler", "require_own_session", "why"]
