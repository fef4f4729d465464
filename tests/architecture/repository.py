"""The repository as the lints see it: its files, with text and syntax tree read once."""

import ast
import subprocess
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from io import StringIO
from pathlib import Path, PurePosixPath

from tests.support.waiting import HANGS_S

ROOT = Path(__file__).resolve().parents[2]
SERVICES = (
    "audit-ledger",
    "erasure-executor",
    "export-builder",
    "notification-mailer",
    "request-intake",
    "retention-sweeper",
)
_NOT_OURS = frozenset(
    {".git", ".venv", ".habeas", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"}
)


@dataclass(frozen=True)
class Source:
    """One file: path from the root of the repository, and text ("" for what is not text)."""

    path: PurePosixPath
    text: str

    @cached_property
    def lines(self) -> list[str]:
        """Lines without their ends."""
        return self.text.splitlines()

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree; a file that does not parse is an error of the run, not of a lint."""
        return ast.parse(self.text, str(self.path))

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """Every node of the tree."""
        return list(ast.walk(self.tree))

    @property
    def python(self) -> bool:
        """Whether the file is Python."""
        return self.path.suffix in {".py", ".pyi"}

    @property
    def service(self) -> str | None:
        """Kebab-case name of the service that the file belongs to."""
        parts = self.path.parts
        return parts[1] if len(parts) > 2 and parts[0] == "services" else None

    @property
    def inside(self) -> tuple[str, ...]:
        """Parts of the path below the service's package; () for what is not code of a service."""
        parts = self.path.parts
        own = self.service is not None and len(parts) > 3 and parts[2] == parts[1].replace("-", "_")
        return parts[3:] if own else ()

    def under(self, *folders: str) -> bool:
        """Whether the file stands below one of the folders, each written as `libs/habeas`."""
        return any(PurePosixPath(folder) in self.path.parents for folder in folders)

    def comments(self) -> Iterator[tuple[int, str]]:
        """Line number and text of every comment."""
        for token in tokenize.generate_tokens(StringIO(self.text).readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string

    def at(self, line: int, message: str) -> str:
        """A finding, in the form that editors turn into a link."""
        return f"{self.path}:{line}: {message}"


def _named_by_git() -> list[str] | None:
    """Paths of files that are in the repository or could be added to it; None where git does not answer."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=HANGS_S)
    except (OSError, subprocess.SubprocessError):
        return None
    return [name for name in answer.stdout.decode().split("\0") if name]


def _found_on_disk() -> list[str]:
    """Paths of all files, for a copy of the tree without its history."""
    paths = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    return [path.as_posix() for path in paths if not _NOT_OURS.intersection(path.parts)]


@cache
def sources() -> tuple[Source, ...]:
    """Every file of the repository, in order of paths."""
    found = []
    for name in sorted(set(_named_by_git() or _found_on_disk())):
        path = ROOT / name
        if not path.is_file():
            continue  # removed, and not committed yet
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            text = ""
        found.append(Source(PurePosixPath(name), text))
    return tuple(found)
