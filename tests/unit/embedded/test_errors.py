from typing import Any

from habeas_embedded.errors import FleetFailed, ServerFailed, each_of


def test_errors_are_found_however_deep_their_groups_lie() -> None:
    """Supervision runs in groups within groups; a person gets to read the errors, not that there were groups."""
    one, two = ServerFailed("no room"), FleetFailed("no key")
    inner: Any = ExceptionGroup("inner", [one])
    assert list(each_of(ExceptionGroup("outer", [inner, two]))) == [one, two]
