"""Records that nobody should have sent; each has a key of its own, so that it holds nobody back for good."""

import random
from collections.abc import Callable
from typing import Final
from uuid import UUID

from habeas.chassis.producer import Record
from habeas.contracts.envelope import Envelope, encode_headers
from habeas.contracts.topics import Topic
from tests.simulation.broker import Broker
from tests.support.delivery import NOON, extended, ticked

Make = Callable[[Topic, random.Random, Broker], Record]


def _id(rng: random.Random) -> UUID:
    return UUID(int=rng.getrandbits(128), version=4)


def _anywhere(topic: Topic, rng: random.Random) -> int:
    return rng.randrange(topic.partitions)


def no_headers(topic: Topic, rng: random.Random, broker: Broker) -> Record:
    """A record without any header."""
    return Record(topic.name, str(_id(rng)).encode(), b"{}", [], _anywhere(topic, rng))


def not_json(topic: Topic, rng: random.Random, broker: Broker) -> Record:
    """A record of a type that is handled, with a value that is none."""
    kind = "request.extended" if topic.name.startswith("request-intake") else "erasure.stuck"
    key = str(_id(rng))
    return Record(
        topic.name,
        key.encode(),
        b"{",
        encode_headers(Envelope(_id(rng), kind, "nobody", NOON, key)),
        _anywhere(topic, rng),
    )


def wrong_key(topic: Topic, rng: random.Random, broker: Broker) -> Record:
    """A good event under another key."""
    event = extended(_id(rng), 1)
    envelope = Envelope(_id(rng), event.type, "nobody", NOON, event.subject())
    return Record(topic.name, str(_id(rng)).encode(), event.encode(), encode_headers(envelope), _anywhere(topic, rng))


def misplaced(topic: Topic, rng: random.Random, broker: Broker) -> Record:
    """An event that belongs on another topic."""
    event = ticked(_id(rng))
    envelope = Envelope(_id(rng), event.type, "nobody", NOON, event.subject())
    return Record(topic.name, event.key().encode(), event.encode(), encode_headers(envelope), _anywhere(topic, rng))


def same_id(topic: Topic, rng: random.Random, broker: Broker) -> Record:
    """Another content under the id of a record that was stored before; whoever comes first is believed, so it must not come first."""
    kept = broker.stored(topic.name)
    if not kept:
        return no_headers(topic, rng, broker)
    first = rng.choice(kept)
    return Record(topic.name, str(_id(rng)).encode(), first.value or b"", list(first.headers), _anywhere(topic, rng))


GARBAGE: Final[tuple[Make, ...]] = (no_headers, not_json, wrong_key, misplaced, same_id)
