"""What the demo asks for: erasures, accesses and portability of different people, one retention tick, one policy change.

Sent as a platform service would, through the publisher kit and an ordinary Kafka producer.
"""

import asyncio
import base64
import datetime as dt
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import HttpUrl

from habeas.contracts.platform import PolicyChanged
from habeas.contracts.vocabulary import ErasureGround, Right
from habeas.kit import Issuer, Publisher
from habeas_demo.people import DAY, Person

ISSUER_NAME = "accounts"
_NOTICE_DAYS = 45


@dataclass(frozen=True, slots=True)
class Cast:
    """Who asks for what; nobody asks for two things."""

    erasures: tuple[Person, ...] = field(repr=False)
    accesses: tuple[Person, ...] = field(repr=False)
    portabilities: tuple[Person, ...] = field(repr=False)

    @property
    def by_right(self) -> Mapping[Right, tuple[Person, ...]]:
        """People by what they ask for."""
        return {
            Right.ERASURE: self.erasures,
            Right.ACCESS: self.accesses,
            Right.PORTABILITY: self.portabilities,
        }


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that was sent."""

    request_id: UUID
    right: Right
    person: Person = field(repr=False)


@dataclass(frozen=True, slots=True)
class Sent:
    """Everything that was sent."""

    began_at: dt.datetime
    requests: tuple[Asked, ...]
    as_of: dt.datetime
    tick_id: UUID
    change: PolicyChanged


def choose_cast(
    people: Sequence[Person], seed: int, *, erasures: int = 50, accesses: int = 25, portabilities: int = 25
) -> Cast:
    """Draw different people with open accounts; equal seeds draw equal people. Raises ValueError when there are too few."""
    open_accounts = [person for person in people if person.closed_at is None]
    wanted = erasures + accesses + portabilities
    if len(open_accounts) < wanted:
        raise ValueError(f"{wanted} requests need {wanted} open accounts, the platform has {len(open_accounts)}")
    drawn = random.Random(f"habeas-demo-cast:{seed}").sample(open_accounts, wanted)  # noqa: S311 - nothing secret
    return Cast(
        tuple(drawn[:erasures]), tuple(drawn[erasures : erasures + accesses]), tuple(drawn[erasures + accesses :])
    )


def new_issuer(key_id: str) -> Issuer:
    """Make the key with which the demo's account service vouches for its people; it lives as long as the demo."""
    return Issuer(ISSUER_NAME, key_id, Ed25519PrivateKey.generate())


def policy_with_issuer(policy: str, issuer: Issuer) -> str:
    """Give the text of `policy.yaml` with the issuer's public key registered at its end."""
    public = base64.b64encode(issuer.private_key.public_key().public_bytes_raw()).decode()
    return f'{policy}\nattestation_issuers:\n  {issuer.name}: {{keys: {{{issuer.key_id}: "{public}"}}}}\n'


def start_of_day(now: dt.datetime) -> dt.datetime:
    """Give the moment for which the demo's tick asks: midnight UTC, like a nightly scheduler."""
    return now.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)


async def publish(
    bootstrap: str, issuer: Issuer, cast: Cast, *, seed: int, now: dt.datetime, as_of: dt.datetime
) -> Sent:
    """Send all requests in a shuffled order, a tick for `as_of` and the policy change; returns when Kafka has them all."""
    order = [(right, person) for right, people in cast.by_right.items() for person in people]
    random.Random(f"habeas-demo-order:{seed}").shuffle(order)  # noqa: S311 - nothing secret
    change = PolicyChanged(
        change_id=f"{now:%Y-%m-%d}-demo",
        material=True,
        published_at=now,
        effective_on=(now + _NOTICE_DAYS * DAY).date(),
        version=f"{now + _NOTICE_DAYS * DAY:%Y-%m-%d}",
        summary={
            "en": "Task content may be processed by one more provider of language models, in the European Union.",
            "de": "Inhalte von Aufgaben kann ein weiterer Anbieter von Sprachmodellen in der Europäischen Union verarbeiten.",
        },
        url=HttpUrl("https://example.org/privacy"),
    )
    async with Publisher(bootstrap, source=ISSUER_NAME, issuer=issuer) as publisher:
        sends = [_send(publisher, right, person) for right, person in order]
        requests = await asyncio.gather(*sends)
        tick_id = await publisher.tick(as_of)
        await publisher.policy_change(change)
    return Sent(now, tuple(requests), as_of, tick_id, change)


async def _send(publisher: Publisher, right: Right, person: Person) -> Asked:
    details = {"ground": ErasureGround.CONSENT_WITHDRAWN.value} if right is Right.ERASURE else None
    request_id = await publisher.request(
        right,
        account_id=person.account_id,
        country=person.country,
        language=person.language,
        details=details,
    )
    return Asked(request_id, right, person)
