"""Which process runs what: tests that share servers go to one process."""

import subprocess
import sys
from collections import defaultdict

import pytest

from tests.architecture.repository import ROOT
from tests.support.groups import group_of
from tests.support.waiting import HANGS_S

FILES = ("tests/unit/chassis/test_pace.py", "tests/unit/sealing/test_kek.py")


@pytest.mark.parametrize(
    ("nodeid", "group"),
    [
        ("tests/e2e/test_journeys.py::test_a[x::y]", "e2e"),
        ("tests/e2e/test_servers.py::test_b", "e2e"),
        ("tests/unit/chassis/test_pace.py::test_c", "tests/unit/chassis/test_pace.py"),
    ],
)
def test_journeys_are_one_group_and_every_other_file_is_one(nodeid: str, group: str) -> None:
    """The group is told by the file alone, as the process that gives out tests knows no more."""
    assert group_of(nodeid) == group


def test_a_group_is_run_by_one_process() -> None:
    """With two processes, and two files of many tests each, both have something to do, and no file is run by both."""
    options = ("--numprocesses=2", "--dist=loadscope", "--no-loadscope-reorder", "-v")
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *FILES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANGS_S,
        check=True,
    )
    ran = defaultdict(set)
    for line in ended.stdout.splitlines():
        if " PASSED " in line:
            ran[line.partition(" PASSED ")[2].partition("::")[0]].add(line.split()[0])
    assert ran.keys() == set(FILES)
    assert sorted(len(processes) for processes in ran.values()) == [1, 1]
    assert len(set.union(*ran.values())) == 2
