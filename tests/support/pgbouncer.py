"""A real PgBouncer before a database of the tests. Where none is installed, the tests that want one are skipped."""

import asyncio
import os
import pwd
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import pytest

from habeas_embedded.ports import LOOPBACK, answers, free_port
from tests.support.waiting import until

__all__ = ["IGNORED", "pgbouncer"]

IGNORED: Final = (
    *(
        "search_path",
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "jit",
        "plan_cache_mode",
    ),
    *("enable_seqscan", "enable_bitmapscan", "enable_hashjoin", "enable_mergejoin", "random_page_cost", "row_security"),
    *("intervalstyle", "bytea_output", "default_transaction_read_only", "extra_float_digits"),
)
"""Settings that an administrator lets PgBouncer ignore, so that clients get in at all."""

_PROGRAM: Final = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
_UNPRIVILEGED: Final = (
    "embedded_postgres"  # PgBouncer does not run as root; this user is there where PostgreSQL was started as root
)

_CONFIGURATION: Final = """
[databases]
{database} = host={host} port={port} dbname={database}
[pgbouncer]
listen_addr = {listen}
listen_port = {own}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = {mode}
ignore_startup_parameters = {ignored}
logfile = {log}
"""


@asynccontextmanager
async def pgbouncer(
    directory: Path, dsns: Sequence[str], mode: str, ignored: Sequence[str] = ()
) -> AsyncIterator[dict[str, str]]:
    """Run PgBouncer before the one database of ``dsns``, for their roles; gives each DSN's way through it."""
    if _PROGRAM is None:
        pytest.skip("no PgBouncer is installed here")
    server, own = urlsplit(dsns[0]), free_port()
    users = {unquote(parts.username or ""): unquote(parts.password or "") for parts in map(urlsplit, dsns)}
    home = directory / f"pgbouncer-{own}"
    home.mkdir()
    (home / "users.txt").write_text("".join(f'"{name}" "{password}"\n' for name, password in users.items()))
    settings = {
        "database": server.path.removeprefix("/"), "host": server.hostname, "port": server.port, "listen": LOOPBACK, "own": own,
        "users": home / "users.txt", "mode": mode, "ignored": ", ".join(ignored), "log": home / "log",
    }  # fmt: skip
    (home / "pgbouncer.ini").write_text(_CONFIGURATION.format(**settings))
    command = [_PROGRAM, str(home / "pgbouncer.ini")]
    if os.geteuid() == 0:
        command[1:1] = ["-u", _UNPRIVILEGED]
        _hand_over(home)
    with (home / "said").open("wb") as said:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=said, stderr=said
        )
    try:
        await until(lambda: answers(LOOPBACK, own) or process.returncode is not None, "PgBouncer listens")
        assert process.returncode is None, (home / "said").read_text()
        netlocs = {dsn: urlsplit(dsn) for dsn in dsns}
        yield {
            dsn: parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@{LOOPBACK}:{own}").geturl()
            for dsn, parts in netlocs.items()
        }
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _hand_over(home: Path) -> None:
    """Let the unprivileged user read what is in the directory and write into it, and pass through those above that are ours."""
    user = pwd.getpwnam(_UNPRIVILEGED)
    for path in (home, *home.iterdir()):
        os.chown(path, user.pw_uid, user.pw_gid)
    for above in home.parents:
        if above.stat().st_uid == os.geteuid() and len(above.parts) > 2:  # neither / nor what is right below it
            above.chmod(above.stat().st_mode | 0o011)
