"""Which differences from the catalogue count: what weakens a topic is always found, what makes it stronger never is."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from habeas.chassis.drift import Difference, compare
from habeas.contracts.topics import AUDIT_ENTRIES, CATALOGUE, DSR_REQUESTS, REQUESTS, SUBJECT_FLAGS, Topic

HOUR_MS = "3600000"


def found(
    topic: Topic, *, partitions: int | None = None, replicas: int = 3, wanted: int = 1, **changed: str
) -> set[tuple[str, bool]]:
    """What is found of a topic that is as the catalogue has it, but for what is changed (with `_` for the dot)."""
    configs = topic.configs_on(replicas) | {name.replace("_", "."): value for name, value in changed.items()}
    shape = topic.partitions if partitions is None else partitions
    return {(each.setting, each.is_unfit) for each in compare(topic, shape, replicas, configs, wanted)}


def found_of(topic: Topic, changed: Mapping[str, Any]) -> set[tuple[str, bool]]:
    """What is found of a topic with these changes."""
    return found(topic, **changed)


@given(st.sampled_from(CATALOGUE), st.integers(1, 9), st.integers(0, 20))
def test_the_catalogue_itself_differs_in_nothing(topic: Topic, replicas: int, more: int) -> None:
    """On however many brokers, and with any number of further partitions."""
    assert found(topic, partitions=topic.partitions + more, replicas=replicas) == set()


@given(st.integers(1, 99))
def test_a_majority_has_to_have_a_record(replicas: int) -> None:
    """Any two majorities share a broker: what was acknowledged is on each one that goes on; so many may be asked for, and no more."""
    least = int(AUDIT_ENTRIES.configs_on(replicas)["min.insync.replicas"])
    assert 2 * least > replicas >= least
    assert found(AUDIT_ENTRIES, replicas=replicas, min_insync_replicas=str(least - 1)) == {
        ("min.insync.replicas", True)
    }


@given(st.sampled_from(CATALOGUE), st.integers(0, 400 * 86_400_000))
def test_a_shorter_retention_is_unfit_and_a_longer_one_differs(topic: Topic, retention_ms: int) -> None:
    """Of topics that delete; a compacted one keeps what it has whatever its retention says."""
    limit = float("inf") if topic.retention_ms == -1 else topic.retention_ms
    expected = set() if retention_ms == limit else {("retention.ms", retention_ms < limit and not topic.compacted)}
    assert found(topic, retention_ms=str(retention_ms)) == expected


@pytest.mark.parametrize(
    ("topic", "changed", "expected"),
    [
        (AUDIT_ENTRIES, {"retention_ms": HOUR_MS}, {("retention.ms", True)}),
        (REQUESTS, {"retention_ms": "-1"}, {("retention.ms", False)}),
        (REQUESTS, {"cleanup_policy": "compact"}, {("cleanup.policy", True)}),
        (REQUESTS, {"cleanup_policy": "compact,delete"}, {("cleanup.policy", True)}),
        (SUBJECT_FLAGS, {"cleanup_policy": "delete"}, {("cleanup.policy", True)}),
        (SUBJECT_FLAGS, {"cleanup_policy": "compact,delete", "retention_ms": HOUR_MS}, {("cleanup.policy", True), ("retention.ms", True)}),
        (REQUESTS, {"retention_bytes": "1000000"}, {("retention.bytes", True)}),
        (REQUESTS, {"unclean_leader_election_enable": "true"}, {("unclean.leader.election.enable", True)}),
        (REQUESTS, {"min_insync_replicas": "1"}, {("min.insync.replicas", True)}),
        (REQUESTS, {"min_insync_replicas": "3"}, set()),
        (REQUESTS, {"min_insync_replicas": "4"}, {("min.insync.replicas", False)}),
        (REQUESTS, {"max_message_bytes": "1000"}, {("max.message.bytes", False)}),
        (REQUESTS, {"max_message_bytes": "9000000"}, set()),
        (DSR_REQUESTS, {"segment_ms": "604800000"}, {("segment.ms", False)}),
        (DSR_REQUESTS, {"segment_ms": "500"}, set()),
        (DSR_REQUESTS, {"message_timestamp_type": "CreateTime"}, {("message.timestamp.type", False)}),
        (REQUESTS, {"retention_ms": "much"}, {("retention.ms", True)}),
    ],
)  # fmt: skip
def test_what_differs_and_what_is_unfit(topic: Topic, changed: dict[str, str], expected: set[tuple[str, bool]]) -> None:
    """Unfit is what can lose a message; anything else that differs is told."""
    assert found_of(topic, changed) == expected


def test_too_few_partitions_or_replicas_are_unfit() -> None:
    """A lane without its partition has nowhere to publish to; production asks for three brokers."""
    assert found(REQUESTS, partitions=3) == {("partitions", True)}
    assert found(REQUESTS, replicas=2, wanted=3) == {("replicas", True)}
    assert found(REQUESTS, replicas=2, wanted=2) == set()


def test_unknown_settings_are_no_difference() -> None:
    """Where only the shape may be seen nothing is said about the rest."""
    assert list(compare(REQUESTS, 4, 1, None, 1)) == []


def test_a_difference_says_all_of_it() -> None:
    """Topic, setting, what it is and what it has to be, in one sentence."""
    said = Difference("audit.entries.v1", "retention.ms", HOUR_MS, "-1", is_unfit=True).said
    assert (
        said
        == "audit.entries.v1 has retention.ms 3600000, the catalogue -1: messages can be lost, services refuse to start"
    )
