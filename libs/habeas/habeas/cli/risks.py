"""What `habeas status --check` calls a risk: everything that does not mend itself, or that costs a person their deadline if it lasts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from habeas.chassis.drift import Difference
from habeas.contracts.topics import MESSAGE_BYTES_MAX

_LAG_MAX: Final = 10_000  # messages; what a service takes in a few seconds when it is well


class Kafka(StrEnum):
    """Whether Kafka was asked for the lag, and whether it answered."""

    ANSWERS = "answers"
    NOT_ASKED = "not_asked"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Lacking:
    """A right at Kafka that this user does not have: Kafka's name of the operation, on what, and the names of those."""

    right: str
    kind: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Risk:
    """One thing to look at; ``service`` is whose it is, ``count`` how many there are."""

    risk: str
    service: str
    count: int
    said: str

    def shown(self) -> dict[str, Any]:
        """Give it for JSON."""
        return asdict(self)


def find(seen: Mapping[str, Any], now: datetime, old_s: float) -> list[Risk]:
    """Give everything that is at risk in what was seen, the persons' deadlines first. ``old_s`` is what counts as waiting long."""
    found = [*_deadlines(seen["deadlines"], seen["days"])]
    if seen["kafka"] is Kafka.UNREACHABLE:
        found.append(Risk("kafka_unreachable", "kafka", 1, "Kafka does not answer"))
    found += _rights(seen["rights"])
    found += _topics(seen["topics"])
    for service in seen["services"]:
        found += _service(service, now, old_s)
        found += _troubles(service)
    found += _stuck(seen["requests"], seen["work"])
    return found


def _deadlines(rows: Iterable[Mapping[str, Any]], days: int) -> Iterator[Risk]:
    for each in rows:
        what = f"{each['dsr_right']} ({each['reason']})"
        for name, said in (
            ("past_limit", f"{what}: past the legal limit"),
            ("overdue", f"{what}: past the day that we promised"),
            ("due_soon", f"{what}: due within {days} days"),
        ):
            if each[name]:
                yield Risk(f"requests_{name}", "request-intake", each[name], said)


def _rights(rows: Iterable[Mapping[str, Any]]) -> Iterator[Risk]:
    """What may not be seen is not known to be well."""
    for each in rows:
        names = each["names"]
        which = names[0] if len(names) == 1 else f"{len(names)} {each['kind']}s, such as {names[0]}"
        said = f"this user lacks the right {each['right']} on {which}: how they stand is not known"
        yield Risk("right_missing", "kafka", len(names), said)


def _topics(topics: Mapping[str, Any] | None) -> Iterator[Risk]:
    """Topics that are missing or not as the catalogue has them, the worst first; None when Kafka was not asked."""
    if topics is None:
        return
    missing = topics["missing"]
    if missing:
        which = f"{missing[0]} is" if len(missing) == 1 else f"{len(missing)} topics, such as {missing[0]}, are"
        yield Risk(
            "topics_missing", "kafka", len(missing), f"{which} not there: `habeas migrate` makes them, or says why not"
        )
    for each in sorted(topics["differences"], key=lambda difference: not difference["is_unfit"]):
        yield Risk("topic_unfit" if each["is_unfit"] else "topic_drifted", "kafka", 1, Difference(**each).said)


def _troubles(service: Mapping[str, Any]) -> Iterator[Risk]:
    """What Kafka refuses a service; the service itself has noted it."""
    for each in service["troubles"]:
        topic, reason = each["topic"], each["reason"]
        if each["work"] == "trim":
            why = {
                "not_allowed": "the service needs the rights Write and Delete on it",
                "failing": "trimming fails, see trimmer.trouble in its log",
            }.get(reason, f"Kafka does not let it be trimmed ({reason})")
            yield Risk("topic_untrimmed", service["service"], 1, f"account ids stay in {topic}: {why}")
        else:
            why = {
                "not_allowed": "the service needs the right Write on it",
                "too_large": f"it does not take {each['bytes']} bytes; the catalogue's max.message.bytes is {MESSAGE_BYTES_MAX}",
            }.get(reason, f"Kafka gives {reason}")
            yield Risk("topic_refuses", service["service"], 1, f"messages for {topic} cannot be sent: {why}")


def _service(service: Mapping[str, Any], now: datetime, old_s: float) -> Iterator[Risk]:
    name = service["service"]
    if not service["replicas"]:
        yield Risk("no_replica", name, 1, "no replica is alive")
    elif service["free_lanes"]:
        yield Risk("lanes_free", name, service["free_lanes"], "lanes that no replica holds")
    if service["paused_at"] is not None:
        yield Risk("service_paused", name, 1, "is paused")
    if service["paused_lanes"]:
        lanes = ", ".join(map(str, service["paused_lanes"]))
        yield Risk("lanes_paused", name, len(service["paused_lanes"]), f"paused lanes: {lanes}")
    if service["parked"]:
        yield Risk("messages_parked", name, service["parked"], "parked messages")
    for name_of, at, count, said in (
        ("unhandled_long", "oldest_waiting_at", "waiting", "messages wait to be handled, for long"),
        ("unpublished_long", "oldest_unpublished_at", "unsent", "messages and entries wait to be published, for long"),
    ):
        since = service[at]
        if since is not None and (now - since).total_seconds() > old_s:
            total = service["unpublished"] + service["unlogged"] if count == "unsent" else service[count]
            yield Risk(name_of, name, total, said)
    if service["lag"] is not None and service["lag"] > _LAG_MAX:
        yield Risk("lag_large", name, service["lag"], "messages lie in Kafka and were not fetched")


def _stuck(requests: Sequence[Mapping[str, Any]], work: Sequence[Mapping[str, Any]]) -> Iterator[Risk]:
    stuck = sum(each["stuck"] for each in requests)
    if stuck:
        yield Risk("requests_stuck", "request-intake", stuck, "requests wait for somebody to look")
    for each in work:
        if each["reason"]:
            said = f"{each['work']} is {each['state']} ({each['reason']})"
            yield Risk("work_stuck", each["service"], each["rows"], said)
