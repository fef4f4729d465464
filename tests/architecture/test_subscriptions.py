"""How each service really subscribes: built as its process builds it, then looked at, without servers."""

import ast
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from faststream import AckPolicy
from faststream.kafka.subscriber.usecase import BatchSubscriber, LogicSubscriber

from habeas.chassis import kafka
from habeas.chassis.clock import SystemClock
from habeas.chassis.consumer import Consumer
from habeas.chassis.service import Service
from habeas.contracts.catalogue import BY_TYPE
from habeas.contracts.topics import CATALOGUE
from tests.architecture.repository import ROOT, SERVICES, sources
from tests.support.built import INSTANCE, build
from tests.support.delivery import settings

FOLLOWS_ONLY = {"audit-ledger"}
ROUTES = frozenset({"AsgiFastStream", "AsyncAPIRoute", "FastStream", "KafkaRouter", "TryItOutForm", "make_ping_asgi"})


@dataclass(frozen=True)
class NoDatabase:
    """Stands where the database will be; assembling a service asks nothing of it."""

    clock = SystemClock()

    def on_commit(self, callback: Callable[..., None]) -> None:
        """Take the relay's wish to be told."""


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    """A service as its `__main__` builds it, with the demo's policy and data map and servers that do not exist."""
    return build(request.param, tmp_path, monkeypatch)


def consumer_of(service: Service) -> Consumer | None:
    """What the process would start."""
    return service._assemble(cast("Any", NoDatabase())).consumer


def subscribers_of(service: Service) -> list[LogicSubscriber[Any]]:
    """Every subscriber of the service's broker."""
    consumer = consumer_of(service)
    return [] if consumer is None else [cast("LogicSubscriber[Any]", each) for each in consumer.broker.subscribers]


def handlers_of(name: str) -> set[str]:
    """The functions `on_<event>` that a service has, by their event's name."""
    folder = ROOT / "services" / name / name.replace("-", "_")
    files = [*folder.glob("handlers.py"), *folder.glob("handlers/*.py")]
    trees = (ast.parse(file.read_text()) for file in files)
    found = {node.name for tree in trees for node in tree.body if isinstance(node, ast.AsyncFunctionDef)}
    return {each.removeprefix("on_") for each in found if each.startswith("on_")}


def test_only_followers_have_no_subscriber(service: Service) -> None:
    """Every service but the ledger, which keeps its own position, takes messages by exactly one subscriber."""
    assert len(subscribers_of(service)) == (0 if service.name in FOLLOWS_ONLY else 1)
    assert bool(service._followers) is (service.name in FOLLOWS_ONLY)


def test_every_handler_is_registered(service: Service) -> None:
    """A function `on_request_accepted` handles `request.accepted`; none is forgotten in the composition root, none invented."""
    registered = {BY_TYPE[kind].__name__ for kind in service.handlers}
    snakes = {"".join(f"_{c.lower()}" if c.isupper() else c for c in each).removeprefix("_") for each in registered}
    assert snakes == handlers_of(service.name)


def test_subscriptions_are_what_is_handled(service: Service) -> None:
    """The service reads the topics of the events that it handles, in the catalogue's words, and no others."""
    wanted = {BY_TYPE[kind].topic.name for kind in service.handlers}
    assert wanted <= {topic.name for topic in CATALOGUE}
    for subscriber in subscribers_of(service):
        assert set(subscriber.topic_names) == wanted


def test_nothing_is_acknowledged_before_it_is_stored(service: Service) -> None:
    """Offsets move by our own commit alone, from the beginning of the log, in a group of the service's own name."""
    for subscriber in subscribers_of(service):
        assert subscriber.ack_policy is AckPolicy.MANUAL
        assert subscriber._connection_args["enable_auto_commit"] is False
        assert subscriber._connection_args["auto_offset_reset"] == "earliest"
        assert subscriber.group_id == service.name
        assert not subscriber.calls, "records are taken raw, never by FastStream's own loop"


def test_a_replica_keeps_its_membership_over_a_restart(service: Service) -> None:
    """The ordinal names the member, so that a restarted process has its partitions at once."""
    for subscriber in subscribers_of(service):
        assert subscriber._connection_args["group_instance_id"] == f"{service.name}-{INSTANCE}"
        assert subscriber.client_id == f"{service.name}-{INSTANCE}"


def test_every_batch_and_wait_is_bounded(service: Service) -> None:
    """Batches have a size; a beat is at most a third of the session; polling has a limit; stopping too."""
    for subscriber in subscribers_of(service):
        assert isinstance(subscriber, BatchSubscriber)
        assert subscriber.max_records is not None
        assert 1 <= subscriber.max_records <= 10_000
        options = subscriber._connection_args
        assert options["heartbeat_interval_ms"] * 3 <= options["session_timeout_ms"] <= options["rebalance_timeout_ms"]
        assert options["max_poll_interval_ms"] >= 60_000
        assert subscriber._outer_config.graceful_timeout is not None


def test_topics_are_never_made_by_chance(service: Service) -> None:
    """A topic that is missing is an error and not a new topic with one partition."""
    for subscriber in subscribers_of(service):
        assert subscriber._outer_config.allow_auto_create_topics is False


async def test_followers_keep_their_own_position(service: Service) -> None:
    """A follower reads one partition outside of any group and never lets Kafka keep or choose a position."""
    if not service._followers:
        return
    followers = [build(cast("Any", NoDatabase())) for build in service._followers]
    assert [follower.topic.partitions for follower in followers] == [1] * len(followers)
    consumer = kafka.assigned_consumer(settings(), "x")
    try:
        assert consumer._group_id is None
        assert consumer._enable_auto_commit is False
        assert consumer._auto_offset_reset == "none"
    finally:
        await consumer.stop()


def test_nobody_serves_what_publishes_for_strangers() -> None:
    """FastStream's web application, with its page that publishes to any topic, appears nowhere in what is run."""
    for source in sources():
        if source.python and source.path.parts[0] in {"libs", "services", "deploy"}:
            named = {node.id for node in source.nodes if isinstance(node, ast.Name)}
            imported = {
                alias.name
                for node in source.nodes
                if isinstance(node, ast.Import | ast.ImportFrom)
                for alias in node.names
            }
            modules = {node.module or "" for node in source.nodes if isinstance(node, ast.ImportFrom)} | imported
            assert (named | imported).isdisjoint(ROUTES), source.path
            assert not any(module.startswith("faststream.asgi") for module in modules), source.path
