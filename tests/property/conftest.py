"""What property tests share: the figures at the end of a run."""

from typing import Final

import pytest

FIGURES: Final = "figures of a property"
"""The property of a test's report under which they come to whoever tells them, from any process."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which seeds ran, so that they can be run again."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, line in getattr(report, "user_properties", ()):
                if name == FIGURES and report.when == "call":
                    terminalreporter.write_line(line)
