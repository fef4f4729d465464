import datetime as dt
import ipaddress

import pytest

from habeas_demo.canary import Canary, Needle, forms, needles_of
from habeas_demo.people import Person, make_person, person_rng

NOW = dt.datetime(2026, 11, 24, 9, 12, tzinfo=dt.UTC)


def people(seed: int, count: int) -> list[Person]:
    """The first people of a seed."""
    return [make_person(seed, index, NOW, person_rng(seed, index)) for index in range(count)]


@pytest.mark.parametrize("seed", [1, 7, 2026])
def test_no_value_is_part_of_another_persons(seed: int) -> None:
    """A byte scan for one person never meets another, whatever the kind of value."""
    crowd = people(seed, 1_500)
    needles = needles_of(crowd)
    canary = Canary(needles)
    found: list[tuple[int, int]] = []
    for needle in needles:

        def note(_offset: int, hit: Needle, _form: str, own: int = needle.person) -> None:
            found.append((own, hit.person))

        canary._scan_bytes(needle.value.encode(), 0, 0, note)
    assert {own for own, _ in found} == set(range(1_500))
    assert all(own == other for own, other in found)


def test_addresses_are_written_as_postgresql_does() -> None:
    """An address in the tables reads exactly like the needle: no zeros are squeezed out of IPv6."""
    crowd = people(7, 400)
    assert all(str(ipaddress.ip_address(person.ip)) == person.ip for person in crowd)
    assert {len(person.ip) for person in crowd} == {15, 38}


def test_people_do_not_show_themselves() -> None:
    """A person in a traceback or a log line is a number."""
    person = people(7, 1)[0]
    assert repr(person) == "Person(index=0)"
    assert all(len(pattern) >= 7 for pattern in forms(person.name))


def test_size_does_not_change_anybody() -> None:
    """The same person comes out of a small and a large platform."""
    assert people(7, 3) == people(7, 60)[:3]
