import pytest

from habeas.contracts.pledges import PLEDGE_HEADER, Pledge, find_pledge, make_pledge, parse_pledge

SEED = b"\x11" * 32
# By OpenSSL: HMAC-SHA256 of "1/7" and of "1/8" under 32 bytes of 0x11, and the SHA-256 of the second one's bytes.
SEVENTH = "317a9396f2eec9bf354f1e4926983b43306398ba9e4f222d8b9d4397e224c14c"
EIGHTH = "6011b1441fb1ec24d959dc97e844ab6d534b9aa619edd1117a9f81f0db4f4078"
PLEDGED = "765870f744ad2bac54698afea044fcc8e747d739fe407ec8b3921f0f8c1e8ff2"


def test_a_pledge_is_what_openssl_computes() -> None:
    """Secret and pledge follow from seed and place as another implementation has them, and the next entry keeps the pledge."""
    pledge = make_pledge(SEED, 1, 7)
    assert pledge == Pledge(SEVENTH, PLEDGED)
    assert pledge.encode() == f"{SEVENTH}.{PLEDGED}".encode()
    assert make_pledge(SEED, 1, 8).keeps(PLEDGED)


@pytest.mark.parametrize("place", [(1, 7), (1, 9), (2, 8)])
def test_no_other_place_keeps_it(place: tuple[int, int]) -> None:
    """The secret of another place, or of another seed, does not hash to what was pledged."""
    assert not make_pledge(SEED, *place).keeps(PLEDGED)
    assert not make_pledge(b"\x12" * 32, 1, 8).keeps(PLEDGED)


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"x" * 129,
        f"{SEVENTH}{PLEDGED}".encode(),
        f"{SEVENTH}.{PLEDGED}\n".encode(),
        f"{SEVENTH.upper()}.{PLEDGED}".encode(),
        f"{SEVENTH}.{PLEDGED[:-1]}".encode(),
        "ä".encode() * 60,
    ],
)
def test_anything_else_is_no_pledge(value: bytes | None) -> None:
    """Only the one form counts; whatever else is in the header is as good as no header."""
    assert parse_pledge(value) is None
    assert find_pledge([("other", b"x"), (PLEDGE_HEADER, value)]) is None
    assert find_pledge([(PLEDGE_HEADER, value), (PLEDGE_HEADER, f"{SEVENTH}.{PLEDGED}".encode())]) is None
    assert find_pledge([("other", b"x"), (PLEDGE_HEADER, f"{SEVENTH}.{PLEDGED}".encode())]) == (SEVENTH, PLEDGED)
