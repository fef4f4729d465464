"""Invented people whose names, addresses and numbers can be found by looking at bytes.

Every value that names a person is unique, and none is a part of another person's value (fixed lengths, no shared
surnames), so that a byte scan for one person never meets another.
"""

import datetime as dt
import random
from dataclasses import dataclass, field
from uuid import UUID

DAY = dt.timedelta(days=1)
RETENTION = 90 * DAY
"""What the demo's policy promises for execution logs and task content."""

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_SYLLABLES = [consonant + vowel for consonant in "bcdfghjklmnprstvwxyz" for vowel in "aeiou"]
_IPV4_SPACE = 28 * 156 * 156

# Which positions are special: every so many, beginning with that one.
_OLD_CUSTOMERS = (25, 3)
_LEFT_LONG_AGO = (50, 7)
_LEFT_LATELY = (50, 23)
_IPV6_USERS = (4, 3)
_STILL_RUNNING = (20, 5)

# First name, the same in ASCII for an address, and the language and countries that it is given to.
_FIRST_NAMES = [
    ("Anneke", "anneke", "de", "DE"), ("Jürgen", "juergen", "de", "DE"), ("Sören", "soeren", "de", "AT"),
    ("Lieselotte", "lieselotte", "de", "DE"), ("Matthias", "matthias", "de", "AT"),
    ("Elfriede", "elfriede", "de", "DE"),
    ("Oliver", "oliver", "en", "GB"), ("Harriet", "harriet", "en", "IE"), ("Desmond", "desmond", "en", "GB"),
    ("Madison", "madison", "en", "US"), ("Tyrone", "tyrone", "en", "US"), ("Zoë", "zoe", "en", "US"),
    ("Étienne", "etienne", "fr", "FR"), ("Margaux", "margaux", "fr", "FR"), ("Thibault", "thibault", "fr", "BE"),
    ("Begoña", "begona", "es", "ES"), ("Íñigo", "inigo", "es", "ES"), ("Rosalía", "rosalia", "es", "ES"),
    ("Giacomo", "giacomo", "it", "IT"), ("Ludovica", "ludovica", "it", "IT"), ("Małgorzata", "malgorzata", "pl", "PL"),
    ("Krzysztof", "krzysztof", "pl", "PL"), ("Inès", "ines", "pt", "PT"), ("Joost", "joost", "nl", "NL"),
]  # fmt: skip
_MAIL_HOSTS = ("post.example", "mail.example", "brief.example", "courrier.example")
_STREETS = (
    "Lindenweg",
    "Quai des Ormes",
    "Mill Lane",
    "Via dei Tigli",
    "Calle del Olmo",
    "Kanaalstraat",
    "Cedar Avenue",
)
_AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 15_6) AppleWebKit/605.1.15 Version/26.0 Safari/605.1.15",
    "demo-cli/3.4.1 linux-amd64",
    "demo-vscode/1.22.0",
)


@dataclass(frozen=True, slots=True)
class Person:
    """One account holder. `repr` shows the position alone: a person never lands in a log or a traceback."""

    index: int
    account_id: str = field(repr=False)
    email: str = field(repr=False)
    name: str = field(repr=False)
    ip: str = field(repr=False)
    clerk_user_id: str = field(repr=False)
    language: str = field(repr=False)
    country: str = field(repr=False)
    street: str = field(repr=False)
    user_agent: str = field(repr=False)
    born_on: dt.date = field(repr=False)
    created_at: dt.datetime = field(repr=False)
    closed_at: dt.datetime | None = field(repr=False)

    @property
    def old_customer(self) -> bool:
        """Whether the person bought so long ago that the first invoices are past their own ten years."""
        return _one_of(self.index, *_OLD_CUSTOMERS)

    @property
    def busy(self) -> bool:
        """Whether one task of the person still runs."""
        return self.closed_at is None and _one_of(self.index, *_STILL_RUNNING)


def person_rng(seed: int, index: int) -> random.Random:
    """The randomness of one person: the same for every size of platform and every chunk."""
    return random.Random(f"habeas-demo:{seed}:{index}")  # noqa: S311 - invented data, nothing secret


def make_person(seed: int, index: int, now: dt.datetime, rng: random.Random) -> Person:
    """The person at a position; equal arguments give an equal person."""
    first, ascii_first, language, country = rng.choice(_FIRST_NAMES)
    surname = _surname(seed, index)
    created_at = now - (130 + rng.random() * 800) * DAY
    if _one_of(index, *_OLD_CUSTOMERS):
        created_at = created_at.replace(year=now.year - 12, day=min(created_at.day, 28))
    return Person(
        index=index,
        account_id=f"acc_{_base32(_scatter(index, 60, seed), 12)}",
        email=f"{ascii_first}.{surname}@{rng.choice(_MAIL_HOSTS)}",
        name=f"{first} {surname.capitalize()}",
        ip=_ip(seed, index),
        clerk_user_id=f"user_{_base32(_scatter(index, 80, seed + 1), 16)}",
        language=language,
        country=country,
        street=f"{rng.choice(_STREETS)} {rng.randint(1, 180)}, {rng.randint(10000, 98000)}",
        user_agent=rng.choice(_AGENTS),
        born_on=dt.date(rng.randint(1950, now.year - 18), rng.randint(1, 12), rng.randint(1, 28)),
        created_at=created_at,
        closed_at=_closing(index, now, rng),
    )


def _closing(index: int, now: dt.datetime, rng: random.Random) -> dt.datetime | None:
    """Two of fifty have left: one so long ago that retention takes the account, one not yet."""
    if _one_of(index, *_LEFT_LONG_AGO):
        return now - (100 + rng.random() * 12) * DAY
    if _one_of(index, *_LEFT_LATELY):
        return now - (10 + rng.random() * 50) * DAY
    return None


def _one_of(index: int, every: int, first: int) -> bool:
    return index % every == first


def _scatter(index: int, bits: int, seed: int) -> int:
    """A bijection on numbers of so many bits (an odd multiplier is invertible modulo a power of two)."""
    return ((index + 1) * 0x9E3779B97F4A7C15F39D + seed * 0xD1B54A32D192ED03) % (1 << bits)


def _base32(number: int, length: int) -> str:
    return "".join(_ALPHABET[(number >> (5 * place)) & 31] for place in range(length))


def _surname(seed: int, index: int) -> str:
    """Eight letters, another for every index below a hundred million (7368787 shares no factor with 10^8)."""
    number = ((index + 1) * 7_368_787 + seed * 101) % 100_000_000
    return "".join(_SYLLABLES[number // 100**place % 100] for place in range(4))


def _ip(seed: int, index: int) -> str:
    """An address written with all its digits: IPv4 of shared space (RFC 6598) or IPv6 (RFC 3849)."""
    if _one_of(index, *_IPV6_USERS) or index >= _IPV4_SPACE:
        noise = _scatter(index, 48, seed)
        groups = (noise, noise >> 16, noise >> 32, index, index // 61_440, seed)
        return "2001:db8:" + ":".join(f"{0x1000 + group % 61_440:04x}" for group in groups)
    number = ((index + 1) * 7_919 + seed) % _IPV4_SPACE
    return f"100.{100 + number // (156 * 156)}.{100 + number // 156 % 156}.{100 + number % 156}"


def make_uuid(rng: random.Random) -> UUID:
    """An id of the platform's own rows (version 4 by RFC 9562, from seeded randomness so that runs repeat)."""
    return UUID(int=rng.getrandbits(128), version=4)
