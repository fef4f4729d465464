"""Runbooks as whoever follows them reads them: their commands, heading by heading."""

import re
import shlex
from typing import Final

from tests.architecture.repository import ROOT

RUNBOOKS: Final = ROOT / "docs" / "runbooks"
_SECTION: Final = re.compile(r"^## +(?:\d+\. +)?(.+)$", re.MULTILINE)
_BLOCK: Final = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(runbook: str, heading: str) -> list[list[str]]:
    """Return the arguments of each `habeas` command below a heading of a runbook, in order; raises KeyError without that heading."""
    text = (RUNBOOKS / runbook).read_text(encoding="utf-8")
    _, *parts = _SECTION.split(text)
    section = dict(zip(parts[::2], parts[1::2], strict=True))[heading]
    lines = [shlex.split(line, comments=True) for block in _BLOCK.findall(section) for line in block.splitlines()]
    return [words[1:] for words in lines if words[:1] == ["habeas"]]
