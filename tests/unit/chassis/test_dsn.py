"""What is told of a DSN, against the driver's own reading of it."""

import os
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from asyncpg import connect_utils
from hypothesis import given
from hypothesis import strategies as st

from habeas.chassis.connection import why
from habeas.chassis.dsn import is_local, is_private, parts_of, place_of

TLS = "sslmode=verify-full&ssl_min_protocol_version=TLSv1.3"
HOSTS = (
    "db.example.org",
    "db:5433",
    "10.0.0.7",
    "[2001:db8::1]:5432",
    "localhost",
    "%2Frun%2Fpostgresql",
    "/run/pg",
    "a,b",
    "",
)
PIECES = st.sampled_from(
    (
        *HOSTS, "@", ",", ":", "/", "?", "&", "#", "user:hunter2@", "user@", "shop", "postgresql://", "postgres://",
        "host=/run/postgresql", "host=db", "host=/run/pg,db", "hostaddr=10.0.0.7", "port=6432", "sslmode=verify-full", "sslmode=require",
        "sslmode=disable", "ssl_min_protocol_version=TLSv1.3", "ssl_min_protocol_version=TLSv1.2", "ssl_max_protocol_version=TLSv1.2",
        "service=x", "%40", "%2F",
    )
)  # fmt: skip
PARAMETERS = st.sampled_from(
    (
        "host=/run/postgresql", "host=db", "host=/run/pg,db", "port=6432", "sslmode=verify-full", "sslmode=require", "sslmode=disable",
        "ssl_min_protocol_version=TLSv1.3", "ssl_min_protocol_version=TLSv1.2", "application_name=x", TLS, "service=x",
    )
)  # fmt: skip
WELL_FORMED = st.builds(
    lambda user, hosts, parameters: f"postgresql://{user}{','.join(hosts)}/shop?{'&'.join(parameters)}",
    st.sampled_from(("", "role@", "role:hunter2@", "role@db,")),
    st.lists(st.sampled_from(HOSTS), max_size=3),
    st.lists(PARAMETERS, max_size=4),
)
DSNS = WELL_FORMED | st.lists(PIECES, min_size=1, max_size=12).map(lambda pieces: "postgresql://" + "".join(pieces))
PASSWORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=6, max_size=24).map(
    lambda text: f"qz{text}zq"
)


def read_by_driver(dsn: str, certificate: Path) -> tuple[list[Any], Any] | None:
    """The addresses and the TLS context that asyncpg makes of a DSN; None where it takes none."""
    absent: dict[str, Any] = dict.fromkeys(
        ("host", "port", "user", "passfile", "database", "ssl", "service", "servicefile", "direct_tls", "server_settings",
         "target_session_attrs", "krbsrvname", "gsslib")
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, suppress(Exception):
        patch.setenv("PGSSLROOTCERT", str(certificate))
        patch.setenv("PGHOST", "elsewhere.example.org")
        read: Any = connect_utils  # its reader of DSNs has no public name
        addresses, parameters = read._parse_connect_dsn_and_args(dsn=dsn, password="x", **absent)
        return addresses, parameters.ssl
    return None


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Authorities to check by, which the driver wants to read."""
    found = ssl.get_default_verify_paths().cafile
    assert found is not None
    return Path(found)


@given(dsn=DSNS)
def test_what_is_called_private_is_private_to_the_driver(dsn: str, certificate: Path) -> None:
    """Whatever a DSN looks like: where it counts as private, the driver goes to unix sockets alone, or checks a name over TLS 1.3."""
    read = read_by_driver(dsn, certificate) if is_private(dsn) else None
    if read is None:
        return
    addresses, context = read
    if all(isinstance(address, str) for address in addresses):
        return
    assert isinstance(context, ssl.SSLContext), (dsn, addresses)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3


@given(dsn=DSNS)
def test_places_are_those_that_the_driver_goes_to(dsn: str, certificate: Path) -> None:
    """The place that is told is where the driver would connect to, first host first."""
    read, place = read_by_driver(dsn, certificate), place_of(dsn)
    if read is None or not place:
        return
    (first, *_), _ = read
    told = place.split(", ")[0]
    if isinstance(first, str):
        assert first.startswith(os.path.join(told, ".s.PGSQL.")), dsn  # noqa: PTH118 -- as the driver joins it
    else:
        assert told == f"{_bracketed(first[0])}:{first[1]}", dsn


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@given(
    password=PASSWORDS,
    form=st.sampled_from(
        ("postgresql://role:{}@db.example.org/shop", "postgresql://role:{}@/shop", "postgresql:///shop?password={}")
    ),
    error=st.sampled_from((OSError(), ValueError(), TimeoutError(), ConnectionRefusedError(111, "no"))),
)
def test_no_password_is_told(password: str, form: str, error: Exception) -> None:
    """A password is told neither as it should be written nor as people write it, with @, /, ? and # in it; nor is a part of it."""
    for written in (password, quote(password, safe="")):
        told = why(error, form.format(written), "PLATFORM_DSN")
        assert told.startswith("PLATFORM_DSN")
        assert not any(
            password[at : at + 5] in told for at in range(len(password) - 4) if password[at : at + 5] not in _UNRELATED
        )


_UNRELATED = why(ValueError(), "x", "PLATFORM_DSN") + why(OSError(), "postgresql://db.example.org/", "PLATFORM_DSN")


@pytest.mark.parametrize(
    ("dsn", "place"),
    [
        ("postgresql://role:pw@db.example.org/shop", "db.example.org:5432"),
        ("postgresql://role:pw@db.example.org:6432/shop", "db.example.org:6432"),
        ("postgresql://role:pw@a:1,b:2/shop", "a:1, b:2"),
        ("postgresql://role@[::1]:5433/shop", "[::1]:5433"),
        ("postgresql:///shop?host=/run/postgresql", "/run/postgresql"),
        ("postgresql:///shop?host=db&port=6432", "db:6432"),
        ("postgresql:///shop", ""),
        ("postgresql://role:pa@ss/word@db/shop", ""),
        ("postgresql://role:pa#ss@db/shop", ""),
        ("postgresql://role:secret/shop", ""),
        ("host=db password=secret", ""),
        ("mysql://role:secret@db/shop", ""),
        ("postgresql://[", ""),
    ],
)
def test_places(dsn: str, place: str) -> None:
    """Host and port are told where they cannot be a part of a password."""
    assert place_of(dsn) == place


def test_a_second_at_sign_hides_no_host() -> None:
    """The driver takes the first @, so a socket behind the second one is no socket."""
    assert not is_private("postgresql://role@db,x@%2Frun%2Fpostgresql/shop")


@pytest.mark.parametrize(
    ("dsn", "local"),
    [
        ("postgresql://a@127.0.0.1:5432/x", True), ("postgresql://a@localhost/x", True), ("postgresql://a@[::1]/x", True),
        ("postgresql:///x?host=/run/pg", True), ("postgresql://a@10.0.0.1/x", False), ("postgresql://a@localhost,db/x", False),
        ("postgresql:///x", False), ("nonsense", False),
    ],
)  # fmt: skip
def test_this_machine(dsn: str, local: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    """Loopback and unix sockets are this machine, and nothing else is."""
    assert is_local(dsn) is local


def test_parameters_that_come_twice() -> None:
    """The last value counts, as for the driver."""
    parts = parts_of(f"postgresql://db/x?sslmode=disable&{TLS}")
    assert parts is not None
    assert parts.last("sslmode") == "verify-full"
    assert not is_private(f"postgresql://db/x?sslmode=disable&{TLS}")
