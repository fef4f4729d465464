"""Write a log's files so that a reader never sees half of one, and no published tile ever changes."""

import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from shutil import rmtree
from typing import Final

from habeas.auditlog.errors import BadTile
from habeas.auditlog.tiles import CHECKPOINT, TilePath
from habeas.auditlog.tree import TILE_WIDTH

FILE_MODE: Final = 0o644  # entries carry no personal data by grammar; whoever may read the directory may read the log


def write_tiles(directory: Path, files: Iterable[tuple[TilePath, bytes]]) -> None:
    """Write tiles and bundles, synced; one that is there with the same bytes is left alone.

    BadTile when a published tile would get other bytes: that would be a second history.
    """
    for path, content in files:
        target = directory / path.text
        try:
            published = target.read_bytes()
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            _write(target, content)
        else:
            if published != content:
                raise BadTile(f"{path.text} is published with other bytes")


def write_checkpoint(directory: Path, note: bytes) -> None:
    """Put the checkpoint in place of the one before, after its tiles have been written."""
    directory.mkdir(parents=True, exist_ok=True)
    _write(directory / CHECKPOINT, note)


def drop_partial_tiles(directory: Path, paths: Iterable[TilePath]) -> None:
    """Remove the partial versions of tiles whose full ones are published (C2SP tlog-tiles allows it only then)."""
    for path in paths:
        target = directory / path.text
        if path.width == TILE_WIDTH and target.exists():
            rmtree(target.with_name(f"{target.name}.p"), ignore_errors=True)


def _write(target: Path, content: bytes) -> None:
    # Nobody else has this name: a process that stood still goes on writing into its own draft, never into a published file.
    draft = target.with_name(f".{target.name}.{secrets.token_hex(8)}.draft")
    try:
        with draft.open("xb") as file:
            os.fchmod(file.fileno(), FILE_MODE)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
