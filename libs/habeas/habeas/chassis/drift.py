"""Drift: what Kafka's topics are, compared with what the catalogue declares them to be, and what may not be seen of them.

A topic that Kafka does not let us describe is neither there nor missing: it is *hidden*, and nothing follows from it but a missing right.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAuthorizationFailedError, UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.metadata import MetadataRequest

from habeas.chassis.refusals import TopicsForbidden, TopicsMissing
from habeas.contracts.topics import Topic

PARTITIONS: Final = "partitions"
REPLICAS: Final = "replicas"

_ASK_MS: Final = 10_000
_WITHOUT_END: Final = -1
_SET_FOR_THE_TOPIC: Final = 1  # DYNAMIC_TOPIC_CONFIG among the sources of a setting


@dataclass(frozen=True, slots=True)
class Difference:
    """One setting of a topic that is not as the catalogue has it; ``setting`` is Kafka's own name, or `partitions` or `replicas`.

    ``is_unfit`` says that services refuse to work with it: messages could be lost, or there is no place for them.
    """

    topic: str
    setting: str
    found: str
    wanted: str
    is_unfit: bool

    @property
    def said(self) -> str:
        """Say it in a sentence."""
        cost = ": messages can be lost, services refuse to start" if self.is_unfit else ""
        return f"{self.topic} has {self.setting} {self.found}, the catalogue {self.wanted}{cost}"


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of some topics; each is there, missing or hidden.

    ``unread`` are those of which the partitions may be seen and the settings not.
    """

    there: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()
    hidden: frozenset[str] = frozenset()
    unread: frozenset[str] = frozenset()
    differences: tuple[Difference, ...] = ()

    @property
    def unfit(self) -> tuple[Difference, ...]:
        """Return the differences with which services refuse to work."""
        return tuple(each for each in self.differences if each.is_unfit)

    def shown(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "missing": sorted(self.missing),
            "hidden": sorted(self.hidden),
            "unread": sorted(self.unread),
            "differences": [asdict(each) for each in self.differences],
        }

    @property
    def lacking(self) -> dict[str, frozenset[str]]:
        """Return the rights that are missing, by Kafka's names of the operations, with their topics."""
        rights = {"Describe": self.hidden, "DescribeConfigs": self.hidden | self.unread}
        return {right: topics for right, topics in rights.items() if topics}


class TopicsUnfit(Exception):
    """Topics are so configured that messages could be lost in them."""

    def __init__(self, differences: Iterable[Difference]) -> None:
        super().__init__("; ".join(each.said for each in differences))


async def look(options: Mapping[str, Any], topics: Iterable[Topic], replicas_min: int) -> Seen:
    """Look at topics over a connection made from an aiokafka client's options, and make none. Raises what Kafka raises."""
    wanted = {topic.name: topic for topic in topics}
    admin = AIOKafkaAdminClient(request_timeout_ms=_ASK_MS, **options)
    try:
        await admin.start()
        shapes, missing, hidden = await _shapes(admin, list(wanted))
        configs, unread = await _configs(admin, [wanted[name] for name in shapes])
    finally:
        await admin.close()
    differences = [
        difference
        for name, (partitions, replicas) in shapes.items()
        for difference in compare(wanted[name], partitions, replicas, configs.get(name), replicas_min)
    ]
    return Seen(frozenset(shapes), missing, hidden, unread, tuple(differences))


async def require_there(options: Mapping[str, Any], names: Collection[str]) -> None:
    """Make sure that topics are there, and make none. Raises ``TopicsForbidden``, ``TopicsMissing``, and what Kafka raises."""
    admin = AIOKafkaAdminClient(request_timeout_ms=_ASK_MS, **options)
    try:
        await admin.start()
        _, missing, hidden = await _shapes(admin, list(names))
    finally:
        await admin.close()
    if hidden:
        raise TopicsForbidden(hidden)
    if missing:
        raise TopicsMissing(missing)


async def _shapes(
    admin: AIOKafkaAdminClient, names: Sequence[str]
) -> tuple[dict[str, tuple[int, int]], frozenset[str], frozenset[str]]:
    """Give partitions and replicas (the fewest of any partition) of topics that are there, then what is missing, then what is hidden.

    Asked for by name: a list of all topics leaves out what may not be described.
    """
    request = MetadataRequest(list(names), allow_auto_topic_creation=False)
    answer = (await admin._send_request(request)).to_object()  # noqa: SLF001 -- `describe_topics` lets the broker make what is missing
    shapes, missing, hidden = {}, set(), set()
    for each in answer["topics"]:
        error = for_code(each["error_code"])
        if error is TopicAuthorizationFailedError:
            hidden.add(each["topic"])
        elif error is UnknownTopicOrPartitionError:
            missing.add(each["topic"])
        elif each["error_code"]:
            raise error(each["topic"])
        else:
            replicas = [len(partition["replicas"]) for partition in each["partitions"]]
            shapes[each["topic"]] = (len(replicas), min(replicas, default=0))
    return shapes, frozenset(missing), frozenset(hidden)


async def _configs(
    admin: AIOKafkaAdminClient, topics: Sequence[Topic]
) -> tuple[dict[str, dict[str, str]], frozenset[str]]:
    """Give the settings in force of topics, whoever set them, then the topics whose settings may not be read."""
    found: dict[str, dict[str, str]] = {}
    unread = set()
    wanted = [ConfigResource(ConfigResourceType.TOPIC, each.name, each.configs_on(1)) for each in topics]
    for answer in await admin.describe_configs(wanted) if wanted else ():
        for code, _, _, name, entries in answer.resources:
            error = for_code(code)
            if error is TopicAuthorizationFailedError:
                unread.add(name)
            elif code:
                raise error(name)
            else:
                found[name] = {key: value or "" for key, value, *_ in entries}
    return found, frozenset(unread)


async def reset(options: Mapping[str, Any], topics: Sequence[Topic]) -> None:
    """Set topics that are there to what the catalogue has, and add partitions that are missing. Raises what Kafka raises.

    Settings that the catalogue says nothing about stay as they are.
    """
    if not topics:
        return
    admin = AIOKafkaAdminClient(request_timeout_ms=_ASK_MS, **options)
    try:
        await admin.start()
        shapes, _, _ = await _shapes(admin, [topic.name for topic in topics])
        wanted = []
        for answer in await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, each) for each in shapes]):
            for code, _, _, name, entries in answer.resources:
                if code:
                    raise for_code(code)(name)
                # The broker forgets what it is not told again.
                own = {
                    key: value
                    for key, value, _, source, *_ in entries
                    if source == _SET_FOR_THE_TOPIC and value is not None
                }
                topic = next(each for each in topics if each.name == name)
                configs = {**own, **topic.configs_on(shapes[name][1])}
                wanted.append(ConfigResource(ConfigResourceType.TOPIC, name, configs))
        for answer in await admin.alter_configs(wanted):
            for code, _, _, name in answer.resources:
                if code:
                    raise for_code(code)(name)
        more = {each.name: NewPartitions(each.partitions) for each in topics if shapes[each.name][0] < each.partitions}
        if more:
            await admin.create_partitions(more)
    finally:
        await admin.close()


def compare(
    topic: Topic, partitions: int, replicas: int, configs: Mapping[str, str] | None, replicas_min: int
) -> Iterator[Difference]:
    """Give what is not as the catalogue has it; ``configs`` None for settings that are not known.

    More partitions than declared are fine: the fleet goes on in the first ones. So are larger messages and more replicas in sync, as
    long as there are so many.
    """
    if partitions < topic.partitions:
        yield Difference(topic.name, PARTITIONS, str(partitions), str(topic.partitions), is_unfit=True)
    if replicas < replicas_min:
        yield Difference(topic.name, REPLICAS, str(replicas), f"at least {replicas_min}", is_unfit=True)
    if configs is None:
        return
    is_deleting = "delete" in _policies(configs.get("cleanup.policy", ""))
    for setting, wanted in topic.configs_on(replicas).items():
        found = configs.get(setting, "")
        if not _RULES.get(setting, _same)(found, wanted, replicas):
            is_unfit = _loses(setting, found, wanted, is_deleting=is_deleting)
            yield Difference(topic.name, setting, found or "unknown", wanted, is_unfit)


def _loses(setting: str, found: str, wanted: str, *, is_deleting: bool) -> bool:
    """Whether messages can be lost by a setting that differs."""
    match setting:
        case "cleanup.policy":
            return not _policies(found) <= _policies(wanted)
        case "retention.ms" | "retention.bytes":
            return is_deleting and _limit(found) < _limit(wanted)
        case "min.insync.replicas":
            return _number(found) < _number(wanted)
        case "unclean.leader.election.enable":
            return found != wanted
        case _:
            return False


def _policies(value: str) -> frozenset[str]:
    return frozenset(each.strip() for each in value.split(",") if each.strip())


def _number(value: str) -> float:
    """Read a number; what is none is less than every other."""
    try:
        return int(value)
    except ValueError:
        return float("-inf")


def _limit(value: str) -> float:
    """Read a limit of time or bytes, of which -1 is none."""
    number = _number(value)
    return float("inf") if number == _WITHOUT_END else number


def _same(found: str, wanted: str, _: int) -> bool:
    return found == wanted


def _same_policies(found: str, wanted: str, _: int) -> bool:
    return _policies(found) == _policies(wanted)


def _at_least(found: str, wanted: str, _: int) -> bool:
    return _number(found) >= _number(wanted)


def _at_most(found: str, wanted: str, _: int) -> bool:
    return 0 <= _number(found) <= _number(wanted)


def _enough_of(found: str, wanted: str, replicas: int) -> bool:
    return _number(wanted) <= _number(found) <= replicas


_RULES: Final[Mapping[str, Callable[[str, str, int], bool]]] = {
    "cleanup.policy": _same_policies,
    "max.message.bytes": _at_least,
    "min.insync.replicas": _enough_of,
    "segment.ms": _at_most,
    "file.delete.delay.ms": _at_most,
}
