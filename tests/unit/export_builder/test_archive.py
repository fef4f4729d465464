import gc
import sys
from pathlib import Path
from uuid import UUID

import pytest

from export_builder.gateways.archive import Archive
from habeas.datamap.planner import ExportPlan
from habeas.sealing.artefact import ArtefactCipher

TASKS = ExportPlan("tasks", "usage", "", "", ("id", "title"), ())


@pytest.mark.parametrize("lines", [(), ('{"id":1,"title":"a"}',), ('{"id":1,"title":"' + "a" * 3_000_000 + '"}',)])
def test_an_archive_that_was_given_up_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: tuple[str, ...]
) -> None:
    """Whatever was written before, an aborted archive leaves no file, no scratch file, and no error for the garbage collector."""
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    archive = Archive(tmp_path / "export", ArtefactCipher.new_key(), UUID(int=1))
    archive.expect("platform", TASKS)
    if lines:
        archive.add("platform", TASKS, lines)
    archive.abort()
    archive.abort()
    del archive
    gc.collect()
    assert unraisable == []
    assert list(tmp_path.iterdir()) == []
