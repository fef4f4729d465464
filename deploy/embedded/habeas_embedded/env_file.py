"""How commands reach a fleet that runs here: a file of variables in the run's directory, for a shell and for `habeas` itself.

It holds passwords, so only its owner reads it. It stays when the fleet has ended; who reads it asks whether the run lives.
"""

import os
import shlex
import stat
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Final

from habeas_embedded.fleet import Fleet
from habeas_embedded.places import home, runs_directory
from habeas_embedded.provision import Access
from habeas_embedded.runs import living_runs
from habeas_embedded.servers import Servers

__all__ = ["FLEET", "find_fleets", "leave_fleet", "source_line", "variables", "write_env_file"]

FLEET: Final = "HABEAS_LOCAL_FLEET"
"""Names the fleet of this machine that a shell speaks to; a word that no run can have, `-`, means none."""

_FILE: Final = "env"
_EXPORT: Final = "export "


def variables(servers: Servers, access: Access, fleet: Fleet) -> dict[str, str]:
    """Return what commands need to speak to a fleet: where its servers are, as whom, and its key ring."""
    return {
        FLEET: servers.name,
        "HABEAS_ENVIRONMENT": "development",
        "HABEAS_KAFKA_BOOTSTRAP": servers.kafka_bootstrap,
        "HABEAS_OPERATOR_DATABASE_DSN": access.operator_dsn,
        "HABEAS_SUPERVISOR_DATABASE_DSN": access.supervisor_dsn,
        "HABEAS_ADMIN_DATABASE_DSN": access.owner_dsn,
        "EXPORT_BUILDER_DATABASE_DSN": access.dsn("export-builder"),
        "EXPORT_BUILDER_ARTEFACTS_DIR": str(fleet.artefacts_dir),
        "AUDIT_LEDGER_LOG_DIR": str(fleet.log_dir),
        "HABEAS_KEK_FILE": str(fleet.kek_file),
        "HABEAS_TRACES_DIR": str(fleet.traces_dir),
    }


def write_env_file(directory: Path, values: Mapping[str, str]) -> Path:
    """Write variables as a shell sources them, and return the file; readable by its owner alone from the first moment on."""
    path, new = directory / _FILE, directory / f"{_FILE}.new"
    new.unlink(missing_ok=True)
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR)
    with os.fdopen(file, "w", encoding="utf-8") as output:
        output.writelines(f"{_EXPORT}{name}={shlex.quote(value)}\n" for name, value in values.items())
    new.replace(path)
    return path


def source_line(path: Path) -> str:
    """Return the command that gives a shell the variables of a file."""
    return f"source {shlex.quote(str(path))}"


def find_fleets() -> dict[Path, Mapping[str, str]]:
    """Return the variables of each fleet that runs here and is ready, by its file; makes no directory."""
    if not (home() / "run").is_dir():
        return {}
    files = (runs_directory() / name / _FILE for name in living_runs())
    return {file: values for file in files if (values := _read(file))}


def leave_fleet(env: MutableMapping[str, str]) -> str | None:
    """Take out of ``env`` what a sourced file put there, and return that fleet's name; None when nothing was sourced.

    For what starts servers of its own: a shell that spoke to one fleet must not make the next one use that one's servers.
    """
    name = env.get(FLEET, "")
    values = _read(home() / "run" / name / _FILE) if name.replace("-", "").isalnum() else {}
    for variable, value in values.items():
        if env.get(variable) == value:
            del env[variable]
    return name if values else None


def _read(path: Path) -> dict[str, str]:
    """Read a file as it was written; empty when there is none, or when it is somebody else's."""
    try:
        text = path.read_text(encoding="utf-8") if path.stat().st_uid == os.geteuid() else ""
    except OSError:
        return {}
    words = [shlex.split(line.removeprefix(_EXPORT)) for line in text.splitlines() if line.startswith(_EXPORT)]
    return dict(word.split("=", 1) for (word,) in words)
