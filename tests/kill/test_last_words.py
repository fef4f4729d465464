"""Why a process ended by itself."""

from pathlib import Path

from tests.kill.nemesis import last_words


def test_why_a_process_ended_is_told(tmp_path: Path) -> None:
    """The report has the last warning of a process that ended by itself, whatever came after it."""
    log = tmp_path / "a.log"
    assert last_words(log) == "nothing"
    log.write_text(
        '{"level":"warning","event":"service.failed","error":"X"}\n{"level":"info","event":"b"}\nTraceback\n'
    )
    assert last_words(log) == "event=service.failed error=X"
