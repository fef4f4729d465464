import logging
from pathlib import Path

import pytest

from habeas_embedded.foreign_log import foreign_log


def test_what_libraries_say_goes_to_the_file_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A library's error is in the file of the run, in a directory made for it, and not between our lines on the terminal."""
    library = logging.getLogger("aiokafka.client")
    file = tmp_path / "run" / "logs" / "up.log"
    with foreign_log(file):
        assert not file.parent.exists()
        library.error("Unable connect to node with id %s", 0)
    library.error("afterwards")
    assert "ERROR aiokafka.client: Unable connect to node with id 0" in file.read_text()
    assert "afterwards" not in file.read_text()
    assert "Unable connect" not in capsys.readouterr().err
