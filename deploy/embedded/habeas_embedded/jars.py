"""Kafka's jars: named by coordinates and SHA-256 in `kafka-jars.txt`, kept in the cache, fetched when absent.

Where they come from is the machine's setting, not ours: a local Maven repository that holds them already, the repository
in HABEAS_MAVEN_REPOSITORY, the person's Maven, or what the package maven-artifact asks by itself (which honours the
usual proxy and certificate variables). Nothing is used before its checksum was compared.
"""

import fcntl
import hashlib
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import Final, NamedTuple

from maven_artifact import Artifact, Downloader, RequestException

from habeas_embedded.errors import JarsUnavailable

__all__ = ["KAFKA_VERSION", "Jar", "ensure_jars", "jars_key", "kafka_jars", "missing_jars"]

KAFKA_VERSION: Final = "4.3.0"
_AT_ONCE: Final = 8
_TRIES: Final = 3
_CONNECT_AND_READ_LIMIT_S: Final = (10, 60)
_MAVEN_LIMIT_S: Final = 600.0
_CHUNK_BYTES: Final = 1 << 18


class Jar(NamedTuple):
    """One line of the list."""

    sha256: str
    group: str
    name: str
    version: str

    @property
    def file_name(self) -> str:
        """The jar's file name in the cache and in Maven repositories."""
        return f"{self.name}-{self.version}.jar"


def kafka_jars() -> tuple[Jar, ...]:
    """Give the committed list, in the order of the class path."""
    text = files("habeas_embedded").joinpath("kafka-jars.txt").read_text(encoding="utf-8")
    lines = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
    return tuple(Jar(sha256, *coordinates.split(":")) for sha256, coordinates in lines)


def jars_key(paths: Sequence[Path]) -> str:
    """Short name of these very files, for what is cached about them: Java looks at path, size and time too."""
    looks = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.sha256(repr(looks).encode()).hexdigest()[:12]


def missing_jars(directory: Path) -> tuple[Jar, ...]:
    """Give the jars that `directory` lacks; a file gets its name there only after its checksum was right."""
    return tuple(jar for jar in kafka_jars() if not (directory / jar.file_name).is_file())


def ensure_jars(directory: Path, say: Callable[[str], None] = lambda _: None) -> tuple[Path, ...]:
    """Give the paths of all jars, fetching into `directory` what is missing; raises JarsUnavailable.

    Several processes may do so at once: one fetches, the others wait. An interrupted fetch goes on with the next jar.
    """
    if missing_jars(directory):
        directory.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(directory):
            _fetch_missing(directory, say)
    return tuple(directory / jar.file_name for jar in kafka_jars())


def _fetch_missing(directory: Path, say: Callable[[str], None]) -> None:
    for jar in missing_jars(directory):
        _take(
            _local_repository() / jar.group.replace(".", "/") / jar.name / jar.version / jar.file_name, jar, directory
        )
    if (count := len(missing_jars(directory))) == 0:
        return
    say(f"fetching {count} jars of Apache Kafka {KAFKA_VERSION} (once; they are kept in {directory})")
    ways = [_by_maven, _by_package] if _person_uses_maven() else [_by_package, _by_maven]
    reasons = [
        reason for way in ways if missing_jars(directory) and (reason := way(missing_jars(directory), directory))
    ]
    if missing := missing_jars(directory):
        raise JarsUnavailable(
            f"{len(missing)} jars of Apache Kafka are missing, first {missing[0].group}:{missing[0].name}:"
            f"{missing[0].version}; {'; '.join(reasons) or 'their checksums were wrong'}. "
            f"Set HABEAS_MAVEN_REPOSITORY to a Maven repository that can be reached from here, or put the jars into {directory}"
        )


def _local_repository() -> Path:
    return Path.home() / ".m2" / "repository"


def _person_uses_maven() -> bool:
    """Say whether Maven was told where to go, which then counts more than what maven-artifact would ask by itself."""
    told = (Path.home() / ".m2" / "settings.xml").is_file()
    return told and "HABEAS_MAVEN_REPOSITORY" not in os.environ and shutil.which("mvn") is not None


def _by_package(jars: Sequence[Jar], directory: Path) -> str:
    """Fetch with maven-artifact, several at once; gives what went wrong, empty when nothing."""
    given = os.environ.get("HABEAS_MAVEN_REPOSITORY")
    downloader = Downloader(base=given) if given else Downloader()

    def fetch(jar: Jar) -> str:
        reason = ""
        for _ in range(_TRIES):
            try:
                _download(downloader, jar, directory)
            except (RequestException, OSError) as error:
                reason = f"maven-artifact failed with {type(error).__name__}"
            else:
                return ""
        return reason

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return next((reason for reason in pool.map(fetch, jars) if reason), "")


def _download(downloader: Downloader, jar: Jar, directory: Path) -> None:
    uri = downloader.resolver.uri_for_artifact(Artifact(jar.group, jar.name, jar.version))
    with tempfile.TemporaryDirectory(dir=directory) as own:
        part = Path(own) / jar.file_name
        with (
            downloader.requestor.request(uri, None, stream=True, timeout=_CONNECT_AND_READ_LIMIT_S) as answer,
            part.open("wb") as file,
        ):
            for chunk in answer.iter_content(_CHUNK_BYTES):
                file.write(chunk)
        _take(part, jar, directory)


def _by_maven(jars: Sequence[Jar], directory: Path) -> str:
    """Fetch with Maven as the person set it up; gives what went wrong, empty when nothing."""
    maven = shutil.which("mvn")
    if maven is None:
        return "no mvn found"
    wanted = "".join(
        f"<dependency><groupId>{jar.group}</groupId><artifactId>{jar.name}</artifactId><version>{jar.version}</version></dependency>"
        for jar in jars
    )
    pom = (
        "<project><modelVersion>4.0.0</modelVersion><groupId>habeas</groupId><artifactId>kafka-jars</artifactId>"
        f"<version>1</version><dependencies>{wanted}</dependencies></project>"
    )
    with tempfile.TemporaryDirectory(dir=directory) as own:
        (Path(own) / "pom.xml").write_text(pom, encoding="utf-8")
        copy = ["dependency:copy-dependencies", "-DexcludeTransitive=true", "-DoutputDirectory=jars"]
        try:
            subprocess.run([maven, "-q", "-B", *copy], cwd=own, check=True, capture_output=True, timeout=_MAVEN_LIMIT_S)
        except (OSError, subprocess.SubprocessError) as error:
            return f"mvn failed with {type(error).__name__}"
        for jar in jars:
            _take(Path(own) / "jars" / jar.file_name, jar, directory)
    return ""


def _take(found: Path, jar: Jar, directory: Path) -> None:
    """Take a file into the cache when its checksum is right; what is absent or wrong is left where it is."""
    try:
        content = found.read_bytes()
    except OSError:
        return
    if hashlib.sha256(content).hexdigest() != jar.sha256:
        return
    part = directory / f".{jar.file_name}.{secrets.token_hex(4)}"
    part.write_bytes(content)
    part.replace(directory / jar.file_name)


@contextmanager
def _one_at_a_time(directory: Path) -> Iterator[None]:
    with (directory / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_UN)
