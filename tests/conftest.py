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
pytest_plugins = ["tests.support.outliving"]

_SERVERS = "servers"
_SHARED = ("servers", "stage")
"""Fixtures of a session that cost a core while nobody needs them: they end with the last test that asks for them."""
TIERS = frozenset({"unit", "contracts", "architecture", "integration", "simulation", "e2e", "kill", "loss", "crash"})

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
    # The longest group begins first, and in it those together that share servers; others keep the order that chance gave them.
    items.sort(
        key=lambda item: (all(mark.args != (_SERVERS,) for mark in item.iter_markers("xdist_group")), _shared(item))
    )


def _group(item: pytest.Item, tier: str) -> str:
    """Give what one process has to run: a file, or all that needs all three servers, so that no two fleets are up at once."""
    needs_servers = not {"servers", "own_servers"}.isdisjoint(getattr(item, "fixturenames", ()))
    return _SERVERS if needs_servers or tier == "e2e" else str(item.path)


def _shared(item: pytest.Item) -> list[str]:
    """Give the names of the shared fixtures that a test asks for, or that come with what it asks for."""
    return [name for name in _SHARED if (found := _fixture(item, name)) is not None and found.scope == "session"]


def _fixture(item: pytest.Item, name: str) -> "pytest.FixtureDef[object] | None":
    """Give what a test gets when it asks for this name; None when it does not."""
    if not isinstance(item, pytest.Function) or name not in item.fixturenames:
        return None
    return item._fixtureinfo.name2fixturedefs[name][-1]


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End what the next test does not ask for; should a later one do, it is started again."""
    if nextitem is None or not isinstance(item, pytest.Function):
        return  # the end of the session is near, and with it that of everything
    for name in set(_shared(item)) - set(_shared(nextitem)):
        fixture = _fixture(item, name)
        assert fixture is not None
        fixture.finish(item._request)  # type: ignore[arg-type]  # it asks for the node alone, which every request has


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the seed again at the end of a failed run, where people look."""
    seed = getattr(config.option, "randomly_seed", None)
    if seed is not None and terminalreporter.stats.get("failed"):
        terminalreporter.write_line(f"the same order again: make test ARGS=--randomly-seed={seed}")
