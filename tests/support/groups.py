"""Which of two processes runs what: a plugin for `make test`.

Journeys go to one process, so that no two fleets are up at once: two only take from each other. The rest is given out file by file.
"""

from typing import Final

import pytest
from typing_extensions import override
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

E2E: Final = "e2e"


def group_of(nodeid: str) -> str:
    """Give the group of a test, all of which one process runs: its file, or the journeys."""
    file = nodeid.partition("::")[0]
    return E2E if file.startswith(f"tests/{E2E}/") else file


class Groups(LoadScopeScheduling):
    """Gives out group after group, in the order in which they were collected.

    A scheduler of our own, because xdist's by marks writes the group behind a test's name, where pytest 9.2 no longer looks: each test went
    to whoever had nothing to do, and both processes had fleets.
    """

    @override
    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Groups:
    """Give out tests by our groups, whatever `--dist` says."""
    return Groups(config, log)
