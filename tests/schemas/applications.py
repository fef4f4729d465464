"""Applications whose packages bring their own migrations: installed, migrated and dumped once, restored for each test.

What an application needs stands in its folder: `application.toml` (how to migrate it), `requirements.txt` (every package, pinned),
`fill.toml` (what the filler cannot guess), `draft.yaml`, `map.yaml`, `judge.toml` (what must become of which rows).
"""

import hashlib
import json
import os
import subprocess
import sys
import tomllib
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from habeas_embedded.places import cache_directory
from habeas_embedded.postgres import postgres_programs

HERE: Final = Path(__file__).parent
NAMES: Final = ("label_studio", "django_oscar", "open_webui", "airflow", "pretix", "indico", "synapse")
POLICY: Final = HERE / "policy.yaml"

_INSTALL_S: Final = 3600
_MIGRATE_S: Final = 3600


@dataclass(frozen=True)
class Application:
    """One application."""

    name: str
    settings: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return HERE / self.name

    @property
    def root(self) -> str:
        """Schema and table of the people."""
        root: str = self.settings["root"]
        return root

    @property
    def draft(self) -> Sequence[str]:
        """Arguments of `habeas datamap draft`."""
        arguments: Sequence[str] = self.settings["draft"]
        return arguments

    @property
    def map(self) -> Path:
        """The annotated map."""
        return self.folder / "map.yaml"

    def rules(self, file: str) -> Mapping[str, Any]:
        """One of its files of rules."""
        return tomllib.loads((self.folder / file).read_text(encoding="utf-8"))

    def environment(self) -> Path:
        """Its virtual environment, made when it is not there or when its packages are others."""
        requirements = self.folder / "requirements.txt"
        digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
        place = cache_directory() / "schemas" / f"{self.name}-{digest}"
        if not (place / "whole").is_file():
            venv.create(place, with_pip=True, clear=True)
            install = [
                str(place / "bin" / "python"),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "-r",
                str(requirements),
            ]
            subprocess.run(install, check=True, timeout=_INSTALL_S)
            (place / "whole").touch()
        return place

    @property
    def dump(self) -> Path:
        """Where the migrated database lies in the cache: schema, and the rows that migrations write."""
        parts = [(self.folder / name).read_bytes() for name in ("requirements.txt", "application.toml")]
        return cache_directory() / "schemas" / f"{self.name}-{hashlib.sha256(b''.join(parts)).hexdigest()[:12]}.sql"

    def migrate(self, dsn: str, scratch: Path) -> None:
        """Run the application's own migrations in an empty database."""
        python = self.environment() / "bin" / "python"
        address = urlsplit(dsn)
        words = {
            "dsn": dsn,
            "database": address.path[1:],
            "user": address.username or "",
            "password": address.password or "",
            "host": address.hostname or "",
            "port": str(address.port),
            "scratch": str(scratch),
            "environment": str(self.environment()),
            "packages": str(next((self.environment() / "lib").glob("python*/site-packages"))),
        }
        for name, text in self.settings.get("files", {}).items():
            (scratch / name).write_text(_filled(text, words), encoding="utf-8")
        given = {name: _filled(text, words) for name, text in self.settings.get("variables", {}).items()}
        env = {
            "PATH": f"{python.parent}:{os.defpath}",
            "HOME": str(scratch),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(scratch),
            **given,
        }
        for command in self.settings["commands"]:
            arguments = [str(python), *(_filled(word, words) for word in command)]
            done = subprocess.run(
                arguments, cwd=scratch, env=env, timeout=_MIGRATE_S, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise RuntimeError(f"{self.name}: {' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")

    def write_dump(self, dsn: str) -> None:
        """Keep the migrated database in the cache."""
        part = self.dump.with_suffix(f".{os.getpid()}")
        program = str(postgres_programs() / "bin" / "pg_dump")
        subprocess.run(
            [program, "--no-owner", "--no-privileges", "--inserts", "--rows-per-insert=100", f"--file={part}", dsn],
            check=True,
            timeout=_MIGRATE_S,
        )
        part.replace(self.dump)

    def restore(self, dsn: str) -> None:
        """Fill an empty database with what was dumped."""
        program = str(postgres_programs() / "bin" / "psql")
        subprocess.run(
            [program, "--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", f"--file={self.dump}", dsn],
            check=True,
            timeout=_MIGRATE_S,
            stdout=subprocess.DEVNULL,
        )

    def drafted(self, dsn: str) -> str:
        """What `habeas datamap draft` writes."""
        habeas = Path(sys.executable).parent / "habeas"
        command = [str(habeas), "datamap", "draft", "--policy", str(POLICY), "--json", *self.draft]
        done = subprocess.run(
            command,
            env={**os.environ, "PLATFORM_DSN": dsn},
            timeout=_MIGRATE_S,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        text: str = json.loads(done.stdout)["yaml"]
        return text


def application(name: str) -> Application:
    """One of NAMES."""
    return Application(name, tomllib.loads((HERE / name / "application.toml").read_text(encoding="utf-8")))


def edits(draft: str, annotated: str) -> int:
    """How many lines a person has changed, added or removed to make the map from the draft (comments count too)."""
    before, after = draft.splitlines(), annotated.splitlines()
    steps = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    return sum(max(end - begin, to - at) for word, begin, end, at, to in steps if word != "equal")


def _filled(text: str, words: Mapping[str, str]) -> str:
    for name, value in words.items():
        text = text.replace(f"%{name}%", value)
    return text
