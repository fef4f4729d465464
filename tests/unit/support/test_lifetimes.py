"""Shared fixtures end early: a session of its own, whose fixtures say when they begin and end."""

import os
import subprocess
import sys
from pathlib import Path

from tests.architecture.repository import ROOT
from tests.support.waiting import HANGS_S

SESSION = """
import pytest

def say(word):
    with open("said", "a") as file:
        file.write(word + " ")

@pytest.fixture(scope="session")
def other():
    say("other")
    yield
    say("/other")

@pytest.fixture(scope="session")
def servers(other):
    say("servers")
    yield
    say("/servers")

@pytest.fixture(scope="session")
def fleet(servers):
    say("fleet")
    yield
    say("/fleet")

def test_1(servers):
    say("1")

def test_2(fleet):
    say("2")

def test_3(other):
    say("3")

def test_4(servers):
    say("4")
"""


def test_a_shared_fixture_ends_with_the_last_test_that_asks_for_it(tmp_path: Path) -> None:
    """It is there for all of them, is gone before the next test with what stands on it, and comes back when somebody asks again."""
    (tmp_path / "test_one.py").write_text(SESSION)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "tests.support.lifetimes",
            "-p",
            "no:randomly",
            "-p",
            "no:cacheprovider",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=HANGS_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    assert (tmp_path / "said").read_text() == "other servers 1 fleet 2 /fleet /servers 3 servers 4 /servers /other "
