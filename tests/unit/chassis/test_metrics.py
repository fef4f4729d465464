"""The catalogue of metrics."""

import re
from enum import StrEnum
from typing import Any

import pytest

from habeas.chassis import metrics
from habeas.chassis.instruments import Counter, Gauge, Histogram, counter, gauge
from habeas.chassis.log import Name

CATALOGUE = {name: made for name, made in vars(metrics).items() if name.isupper() and hasattr(made, "name")}


class Right(StrEnum):
    """A closed vocabulary."""

    ERASURE = "erasure"


def samples(name: str) -> dict[str, float]:
    """What Prometheus would read: labels to value."""
    text = metrics.render().decode()
    found = re.findall(rf"^{name}(?:\{{(.*?)\}})? (\S+)$", text, re.MULTILINE)
    return {labels: float(value) for labels, value in found}


@pytest.mark.parametrize(("constant", "metric"), CATALOGUE.items(), ids=CATALOGUE)
def test_constants_are_called_like_their_metrics(constant: str, metric: Counter | Gauge | Histogram) -> None:
    """`outbox.oldest_age_s` is OUTBOX_OLDEST_AGE_S: who knows one name knows the other."""
    assert constant == metric.name.replace(".", "_").upper()
    assert re.fullmatch(r"[a-z]+(\.[a-z_]+){1,2}", metric.name)


def test_counting_and_showing() -> None:
    """A counter adds up, a gauge shows the last value, a histogram sorts into buckets by upper bound."""
    made = counter("test.counted.things", "for a test", "right", "channel")
    made.add(2, right=Right.ERASURE, channel=Name("web"))
    made.add(3, channel=Name("web"), right=Right.ERASURE)
    metrics.LANE_HELD_LANES.set(5)
    metrics.LANE_HELD_LANES.set(16)
    metrics.SWEEP_DURATION_S.observe(0.2, sweep=Name("erase_ready"))
    assert samples("habeas_test_counted_things_total") == {'channel="web",right="erasure"': 5.0}
    assert samples("habeas_lane_held_lanes") == {"": 16.0}
    buckets = samples("habeas_sweep_duration_s_bucket")
    assert buckets['le="0.1",sweep="erase_ready"'] == 0
    assert buckets['le="0.25",sweep="erase_ready"'] == 1


def test_what_is_no_more_is_shown_as_nothing() -> None:
    """When all values of a gauge are shown anew, those that are gone become 0 instead of staying as they were."""
    made = gauge("test.shown.things", "for a test", "kind")
    made.show_all({(Name("one"),): 3, (Name("two"),): 4})
    made.show_all({(Name("two"),): 5})
    assert samples("habeas_test_shown_things") == {'kind="one"': 0.0, 'kind="two"': 5.0}


def test_plain_text_does_not_become_a_label() -> None:
    """A label's value that is neither enum nor name is redacted, and not kept in memory either."""
    made = counter("test.redacted.things", "for a test", "who")
    person: Any = "ada.lovelace@example.org"
    made.add(1, who=person)
    assert samples("habeas_test_redacted_things_total") == {'who="redacted"': 1.0}
    assert not made._children


def test_labels_are_as_declared() -> None:
    """A missing or another label is a mistake of the program."""
    made = counter("test.labels.things", "for a test", "kind")
    for labels in ({}, {"other": Name("x")}, {"kind": Name("x"), "other": Name("x")}):
        with pytest.raises(TypeError, match=r"test\.labels\.things has these labels: kind"):
            made.add(1, **labels)


def test_series_are_bounded() -> None:
    """After 200 combinations of labels the rest is counted together."""
    made = gauge("test.series.things", "for a test", "kind")
    for number in range(1000):
        made.set(1, kind=Name(f"k{number}"))
    assert len(samples("habeas_test_series_things")) == 201
    assert samples("habeas_test_series_things")['kind="other"'] == 1


def test_a_name_is_declared_once() -> None:
    """Two metrics of one name are a mistake of the program."""
    gauge("test.once.things", "for a test")
    with pytest.raises(ValueError, match="Duplicated"):
        gauge("test.once.things", "for a test")
