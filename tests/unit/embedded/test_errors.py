from habeas_embedded.errors import EmbeddedError, FleetFailed, ServerFailed, each_of


def test_errors_are_found_however_deep_their_groups_lie() -> None:
    """Supervision runs in groups within groups; a person gets to read the errors, not that there were groups."""
    one, two = ServerFailed("no room"), FleetFailed("no key")
    inner: ExceptionGroup[EmbeddedError] = ExceptionGroup("inner", [one])
    members: list[EmbeddedError | ExceptionGroup[EmbeddedError]] = [inner, two]
    assert list(each_of(ExceptionGroup("outer", members))) == [one, two]
