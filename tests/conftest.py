"""What every tier shares: servers, once for the whole session, the seed of a run, and a marker per tier, from the directory."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.groups import E2E, group_of, pytest_xdist_make_scheduler
from tests.support.guarded_kafka import guarded_kafka, guarded_kafka_node
from tests.support.lifetimes import pytest_runtest_teardown, shared_by
from tests.support.servers import (
    clones,
    database,
    empty_database,
    own_servers,
    postgres_server,
    postgres_template,
    servers,
)

__all__ = [
    "clones",
    "database",
    "empty_database",
    "guarded_kafka",
    "guarded_kafka_node",
    "own_servers",
    "postgres_server",
    "postgres_template",
    "pytest_runtest_teardown",
    "pytest_xdist_make_scheduler",
    "servers",
]

pytest_plugins = ["tests.support.outliving"]

os.environ["HABEAS_LOCAL_FLEET"] = "-"  # no fleet that a person runs here is spoken to by a command of a test

TESTS = Path(__file__).parent
TIERS = frozenset(
    {
        "unit",
        "contracts",
        "architecture",
        "integration",
        "property",
        "simulation",
        "e2e",
        "kill",
        "loss",
        "crash",
        "fuzz",
        "schemas",
    }
)

# No deadline per example: two shared cores make times meaningless. A failure prints the blob that repeats it.
settings.register_profile("habeas", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("habeas")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of `make test-sim`."""
    simulation = parser.getgroup("simulation")
    simulation.addoption("--schedules", type=int, default=40, help="how many schedules the simulation runs")
    simulation.addoption("--lives", type=int, default=6, help="how many schedules of whole lives the simulation runs")
    loss = parser.getgroup("loss")
    loss.addoption(
        "--away-s", type=float, default=10.0, help="for how many seconds a server is away in the tests of loss"
    )
    fuzz = parser.getgroup("fuzz")
    fuzz.addoption("--records", type=int, default=100_000, help="how many records the reader gets")
    fuzz.addoption("--sent", type=int, default=5_000, help="how many records a running fleet gets")
    schemas = parser.getgroup("schemas")
    schemas.addoption("--write-drafts", action="store_true", help="write the drafts of the applications' maps anew")
    maps = parser.getgroup("property")
    maps.addoption(
        "--schemas", type=int, default=500, help="how many random schemas the laws of the data map are tried on"
    )
    simulation.addoption("--seed", type=int, default=1, help="the seed of the first one; the others follow by one")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its tier; a test outside the tiers is an error, since no verb would run it alone."""
    for item in items:
        if TESTS not in item.path.parents:
            continue
        tier = item.path.relative_to(TESTS).parts[0]
        if tier not in TIERS:
            message = f"{item.nodeid}: tests live in one of {', '.join(sorted(TIERS))}"
            raise pytest.UsageError(message)
        item.add_marker(tier)
    # The longest group begins first, and in it those together that share servers; others keep the order that chance gave them.
    items.sort(key=lambda item: (group_of(item.nodeid) != E2E, shared_by(item)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the seed again at the end of a failed run, where people look."""
    seed = getattr(config.option, "randomly_seed", None)
    if seed is not None and terminalreporter.stats.get("failed"):
        terminalreporter.write_line(f"the same order again: make test ARGS=--randomly-seed={seed}")
