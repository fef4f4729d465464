"""Options of the fault campaign."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Choose the form of the campaign, and repeat one."""
    group = parser.getgroup("fault campaign")
    group.addoption(
        "--long", action="store_true", help="at least 1,000 kills over 100,000 events instead of 60 over 5,000"
    )
    group.addoption("--small", action="store_true", help="a few kills over a few hundred requests, to try things out")
    group.addoption(
        "--kill-seed", type=int, default=None, metavar="N", help="schedule and scenario of an earlier campaign"
    )
