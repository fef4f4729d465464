"""Servers and fleets that tests share end with the last test that asks for them: a plugin.

A fixture of a session lives until the session ends. Of servers and fleets that is too long: idle they take from the tests that follow, and
each further fleet takes more.
"""

from typing import Final

import pytest

SHARED: Final = ("servers", "stage", "guarded_kafka_node")


def shared_by(item: pytest.Item) -> list[str]:
    """Give the names of the shared fixtures that a test asks for, or that come with what it asks for."""
    return [name for name in SHARED if (found := _fixture(item, name)) is not None and found.scope == "session"]


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End what the next test does not ask for; should a later one do, it is started again."""
    if nextitem is None or not isinstance(item, pytest.Function):
        return  # the end of the session is near, and with it that of everything
    for name in set(shared_by(item)) - set(shared_by(nextitem)):
        fixture = _fixture(item, name)
        assert fixture is not None
        fixture.finish(item._request)  # type: ignore[arg-type]  # it asks for the node alone, which every request has


def _fixture(item: pytest.Item, name: str) -> "pytest.FixtureDef[object] | None":
    """Give what a test gets when it asks for this name; None when it does not."""
    if not isinstance(item, pytest.Function) or name not in item.fixturenames:
        return None
    return item._fixtureinfo.name2fixturedefs[name][-1]
