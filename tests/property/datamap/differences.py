"""What is there, compared with what should be."""

from collections.abc import Iterator

from tests.property.datamap.model import Content, Row
from tests.property.datamap.oracle import Expected, Made, Value


def differences(expected: dict[str, list[Expected]], actual: Content) -> Iterator[str]:
    """Return in words what is there and should not be, and the other way round; nothing where both agree."""
    for table, rows in expected.items():
        left = list(actual[table])
        for row in sorted(rows, key=_is_pattern):
            found = next((each for each in left if _alike(row, each)), None)
            if found is None:
                yield f"{table}: missing {_told_row(row)}"
            else:
                left.remove(found)
        yield from (f"{table}: not expected {row}" for row in left)


def _is_pattern(row: Expected) -> bool:
    return any(isinstance(value, Made) for value in row.values())


def _alike(expected: Expected, row: Row) -> bool:
    return all(_fits(value, row[name]) for name, value in expected.items())


def _fits(expected: Value, value: str | None) -> bool:
    if isinstance(expected, Made):
        return expected.fits(value)
    return expected == value


def _told_row(row: Expected) -> dict[str, str | None]:
    return {name: value.pattern if isinstance(value, Made) else value for name, value in row.items()}
