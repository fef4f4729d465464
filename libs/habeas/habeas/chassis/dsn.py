"""What a DSN of PostgreSQL says about the way to the database. Nothing here returns a password, or what could be a part of one."""

import re
from ipaddress import ip_address
from typing import Final, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["HOW_TO_WRITE", "PRIVATE", "DsnParts", "is_local", "is_private", "parts_of", "place_of"]

HOW_TO_WRITE: Final = (
    "write postgresql://ROLE:PASSWORD@HOST:PORT/DATABASE, and in a password %40 for @, %3A for :, %2F for /, %3F for ?, %23 for #, "
    "%25 for %"
)
PRIVATE: Final = "sslmode=verify-full and ssl_min_protocol_version=TLSv1.3, or host=/directory of a unix socket"
"""What a DSN needs in production, in words."""

_PORT: Final = "5432"
_HOST: Final = re.compile(r"/[A-Za-z0-9._/\-]{0,200}|\[[0-9A-Fa-f:.%]{2,60}\]|[A-Za-z0-9._\-]{1,253}")


class DsnParts(NamedTuple):
    """Where a DSN leads to, each place with its port where it says one; every host in it; its parameters."""

    places: tuple[tuple[str, str], ...]
    hosts: tuple[str, ...]
    query: dict[str, list[str]]

    def last(self, name: str) -> str | None:
        """Return the value that a parameter has; of several asyncpg takes the last one."""
        values = self.query.get(name)
        return values[-1] if values else None


def parts_of(dsn: str) -> DsnParts | None:
    """Take a DSN apart as asyncpg does; None when it is none, or when a password that was not escaped may have ended up in a host."""
    try:
        url = urlsplit(dsn)
        query = parse_qs(url.query)
    except ValueError:
        return None
    if url.scheme not in {"postgresql", "postgres"} or dsn.count("@") > min(1, url.netloc.count("@")):
        return None
    written = [_place(unquote(spec)) for spec in url.netloc.rpartition("@")[2].split(",") if spec]
    asked = [_place(spec) for spec in (query.get("host") or [""])[-1].split(",") if spec]
    every = [*written, *(_place(spec) for value in query.get("host", ()) for spec in value.split(",") if spec)]
    ports = [port for port in (query.get("port") or [""])[-1].split(",") if port]
    if any(_HOST.fullmatch(host) is None for host, _ in every) or not all(
        map(str.isdigit, (*ports, *(port or "0" for _, port in every)))
    ):
        return None
    # Hosts before the path keep their ports whatever the parameters say, and make the driver look at no others.
    places = written or asked
    if ports and not written:
        places = [(host, ports[at] if at < len(ports) else ports[0]) for at, (host, _) in enumerate(asked)]
    return DsnParts(tuple(places), tuple(host for host, _ in every), query)


def is_private(dsn: str) -> bool:
    """Return whether nobody between here and the database can read along, as far as the DSN says it."""
    parts = parts_of(dsn)
    if parts is None:
        return False
    if parts.hosts and all(host.startswith("/") for host in parts.hosts):
        return True
    return parts.query.get("sslmode") == ["verify-full"] and parts.query.get("ssl_min_protocol_version") == ["TLSv1.3"]


def is_local(dsn: str) -> bool:
    """Return whether the DSN leads to this machine alone: unix sockets and loopback."""
    parts = parts_of(dsn)
    return parts is not None and bool(parts.hosts) and all(map(_is_local, parts.hosts))


def place_of(dsn: str) -> str:
    """Return where a DSN leads to, as in ``db.example.org:5432``; empty when it does not say, or could say it with a password."""
    parts = parts_of(dsn)
    if parts is None:
        return ""
    places = [host if host.startswith("/") else f"{host}:{port or _PORT}" for host, port in parts.places]
    return ", ".join(places)


def _place(spec: str) -> tuple[str, str]:
    if spec.startswith("/"):
        return spec, ""
    if spec.startswith("["):
        host, _, port = spec.partition("]")
        return f"{host}]", port.removeprefix(":")
    host, _, port = spec.partition(":")
    return host, port


def _is_local(host: str) -> bool:
    if host.startswith("/") or host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
