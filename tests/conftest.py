"""What every tier shares: servers, once for the whole session, the seed of a run, and a marker per tier, from the directory."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.servers import (
    clones,
    database,
    empty_database,
    own_servers,
    postgres_server,
    postgres_template,
    servers,
)

__all__ = ["clones", "database", "empty_database", "own_servers", "postgres_server", "postgres_template", "servers"]

TESTS = Path(__file__).parent
_SERVERS = "servers"
TIERS = frozenset({"unit", "contracts", "architecture", "integration", "simulation", "e2e", "kill", "loss", "crash"})

# No deadline per example: two shared cores make times meaningless. A failure prints the blob that repeats it.
settings.register_profile("habeas", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("habeas")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of `make test-sim`."""
    simulation = parser.getgroup("simulation")
    simulation.addoption("--schedules", type=int, default=40, help="how many schedules the simulation runs")
    simulation.addoption("--lives", type=int, default=6, help="how many schedules of whole lives the simulation runs")
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
        item.add_marker(pytest.mark.xdist_group(_group(item, tier)))
    # The longest group begins first; others keep the order that chance gave them.
    items.sort(key=lambda item: all(mark.args != (_SERVERS,) for mark in item.iter_markers("xdist_group")))


def _group(item: pytest.Item, tier: str) -> str:
    """Give what one process has to run: a file, or all that needs all three servers, so that these are started once."""
    needs_servers = not {"servers", "own_servers"}.isdisjoint(getattr(item, "fixturenames", ()))
    return _SERVERS if needs_servers or tier == "e2e" else str(item.path)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the seed again at the end of a failed run, where people look."""
    seed = getattr(config.option, "randomly_seed", None)
    if seed is not None and terminalreporter.stats.get("failed"):
        terminalreporter.write_line(f"the same order again: make test ARGS=--randomly-seed={seed}")
