"""What counts as a risk: each thing alone is found, named and counted, and a healthy fleet has none."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from habeas.cli.risks import Kafka, find

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
OLD_S = 300.0
TOO_LARGE = (
    "messages for t.v1 cannot be sent: it does not take 2048 bytes; the catalogue's max.message.bytes is 1048576"
)


def service(**changed: Any) -> dict[str, Any]:
    """A healthy service, but for what is changed."""
    return {
        "service": "export-builder",
        "replicas": [{"instance": 0, "lanes": 17}],
        "free_lanes": 0,
        "paused_at": None,
        "paused_lanes": [],
        "parked": 0,
        "waiting": 3,
        "oldest_waiting_at": NOW - timedelta(seconds=OLD_S - 1),
        "unpublished": 2,
        "unlogged": 1,
        "oldest_unpublished_at": NOW - timedelta(seconds=OLD_S - 1),
        "lag": 10_000,
        "troubles": [],
        **changed,
    }


def seen(**changed: Any) -> dict[str, Any]:
    """A healthy fleet, but for what is changed."""
    return {
        "deadlines": [],
        "days": 5,
        "kafka": Kafka.ANSWERS,
        "topics": None,
        "rights": [],
        "requests": [{"stuck": 0}],
        "work": [{"service": "export-builder", "work": "export", "state": "building", "reason": "", "rows": 4}],
        "services": [service()],
        **changed,
    }


def risks(**changed: Any) -> list[tuple[str, str, int]]:
    """What is found in a fleet that is healthy but for what is changed."""
    return [(each.risk, each.service, each.count) for each in find(seen(**changed), NOW, OLD_S)]


def test_healthy_fleet_has_none() -> None:
    """Work in progress, a short queue and a lag that was not asked for are no risks."""
    assert risks() == []
    assert risks(kafka=Kafka.NOT_ASKED, services=[service(lag=None)]) == []


@pytest.mark.parametrize(
    ("changed", "risk", "count"),
    [
        ({"replicas": []}, "no_replica", 1),
        ({"free_lanes": 4}, "lanes_free", 4),
        ({"paused_at": NOW}, "service_paused", 1),
        ({"paused_lanes": [3, 7]}, "lanes_paused", 2),
        ({"parked": 6}, "messages_parked", 6),
        ({"oldest_waiting_at": NOW - timedelta(seconds=OLD_S + 1)}, "unhandled_long", 3),
        ({"oldest_unpublished_at": NOW - timedelta(seconds=OLD_S + 1)}, "unpublished_long", 3),
        ({"lag": 10_001}, "lag_large", 10_001),
    ],
)
def test_each_trouble_of_a_service_is_one_risk(changed: dict[str, Any], risk: str, count: int) -> None:
    """Every single trouble of a service is found by itself, with how much of it there is."""
    assert risks(services=[service(**changed)]) == [(risk, "export-builder", count)]


def test_service_without_replicas_is_told_once() -> None:
    """Without replicas all lanes are free: that is one risk and not two."""
    assert risks(services=[service(replicas=[], free_lanes=17)]) == [("no_replica", "export-builder", 1)]


def test_deadlines_come_first_and_apart() -> None:
    """Late beyond the law, late beyond our promise and due soon are three risks, before all others."""
    late = {"dsr_right": "access", "reason": "store_unavailable", "past_limit": 1, "overdue": 2, "due_soon": 3}
    assert risks(deadlines=[late], services=[service(parked=1)]) == [
        ("requests_past_limit", "request-intake", 1),
        ("requests_overdue", "request-intake", 2),
        ("requests_due_soon", "request-intake", 3),
        ("messages_parked", "export-builder", 1),
    ]


def test_stuck_work_and_a_silent_kafka() -> None:
    """Stuck requests, stuck work with its reason, and a Kafka that does not answer are risks."""
    work = [{"service": "erasure-executor", "work": "erasure", "state": "stuck", "reason": "not_erased", "rows": 2}]
    assert risks(kafka=Kafka.UNREACHABLE, requests=[{"stuck": 2}, {"stuck": 1}], work=work) == [
        ("kafka_unreachable", "kafka", 1),
        ("requests_stuck", "request-intake", 3),
        ("work_stuck", "erasure-executor", 2),
    ]


@pytest.mark.parametrize(
    ("work", "reason", "size", "risk", "said"),
    [
        ("trim", "not_allowed", None, "topic_untrimmed", "account ids stay in t.v1: the service needs the rights Write and Delete on it"),
        ("trim", "failing", None, "topic_untrimmed", "account ids stay in t.v1: trimming fails, see trimmer.trouble in its log"),
        ("trim", "refused", None, "topic_untrimmed", "account ids stay in t.v1: Kafka does not let it be trimmed (refused)"),
        ("publish", "not_allowed", 300, "topic_refuses", "messages for t.v1 cannot be sent: the service needs the right Write on it"),
        ("publish", "too_large", 2048, "topic_refuses", TOO_LARGE),
        ("publish", "refused", 300, "topic_refuses", "messages for t.v1 cannot be sent: Kafka gives refused"),
    ],
)  # fmt: skip
def test_what_kafka_refuses_is_a_risk(work: str, reason: str, size: int | None, risk: str, said: str) -> None:
    """With its topic, and with the size or the right that is missing."""
    trouble = {"work": work, "topic": "t.v1", "reason": reason, "bytes": size, "since": NOW}
    (one,) = find(seen(services=[service(troubles=[trouble])]), NOW, OLD_S)
    assert (one.risk, one.service, one.count, one.said) == (risk, "export-builder", 1, said)


def test_topics_and_rights() -> None:
    """What can lose messages comes before what merely differs; a right that is missing is told before, as less can be seen without it."""
    difference = {"topic": "a.v1", "setting": "retention.ms", "found": "1", "wanted": "2", "is_unfit": False}
    topics = {
        "missing": ["b.v1", "c.v1"],
        "hidden": ["d.v1"],
        "unread": [],
        "differences": [difference, {**difference, "topic": "e.v1", "is_unfit": True}],
    }
    rights = [
        {"right": "Describe", "kind": "group", "names": ["x", "y"]},
        {"right": "Describe", "kind": "topic", "names": ["d.v1"]},
    ]
    found = find(seen(topics=topics, rights=rights), NOW, OLD_S)
    assert [(each.risk, each.count) for each in found] == [
        ("right_missing", 2),
        ("right_missing", 1),
        ("topics_missing", 2),
        ("topic_unfit", 1),
        ("topic_drifted", 1),
    ]
    assert [each.said for each in found[:3]] == [
        "this user lacks the right Describe on 2 groups, such as x: how they stand is not known",
        "this user lacks the right Describe on d.v1: how they stand is not known",
        "2 topics, such as b.v1, are not there: `habeas migrate` makes them, or says why not",
    ]
