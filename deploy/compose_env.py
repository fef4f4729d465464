"""Write what docker-compose.yml asks for and must not stand in it: `.env` with random passwords, and a key ring.

Run by `make compose-env`. Keeps files that are there: a new password would lock the services out of their database, a
new key ring would make every sealed value unreadable.
"""

import os
import re
import secrets
from pathlib import Path

from rich.console import Console

from habeas.sealing.kek import FileKek

ROOT = Path(__file__).resolve().parent.parent
CONTAINER_USER = 10001  # of deploy/Dockerfile; takes the place of root, whom containers do not run as


def main() -> None:
    """Make both files, readable by their owner alone."""
    say = Console(stderr=True).out
    ring = ROOT / ".habeas" / "compose.kek"
    FileKek.create(ring)
    user, group = os.getuid(), os.getgid()
    if user == 0:
        user = group = CONTAINER_USER
        os.chown(ring, user, group)
    passwords = re.findall(r"\$\{(\w+_PASSWORD):\?", (ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    lines = [f"{name}={secrets.token_urlsafe(24)}" for name in dict.fromkeys(passwords)]
    lines += [f"HABEAS_KEK={ring}", f"HABEAS_USER={user}:{group}"]
    try:
        with open(ROOT / ".env", "x", encoding="utf-8", opener=_private) as file:
            file.write("\n".join([*lines, ""]))
    except FileExistsError:
        say(".env is there already: nothing changed")
    else:
        say(".env and a key ring are written: docker compose up --build")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, mode=0o600)


if __name__ == "__main__":
    main()
