"""Counters, gauges and histograms whose labels cannot carry a value that a person gave us.

A label's value is a member of an enum or a `Name`; any other becomes "redacted", and the 201st combination of a
metric's labels becomes "other", so that neither a person nor an endless series gets in. `metrics` makes them all.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Generic, TypeAlias, TypeVar

import prometheus_client
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest

from habeas.chassis.redaction import Name

Label: TypeAlias = StrEnum | Name
Child = TypeVar("Child", prometheus_client.Counter, prometheus_client.Gauge, prometheus_client.Histogram)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
ROWS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0)

_SERIES_MAX: Final = 200

prometheus_client.disable_created_metrics()
_registry: Final = CollectorRegistry(auto_describe=False)
ProcessCollector(registry=_registry)
GCCollector(registry=_registry)


class _Metric(Generic[Child]):
    """What the three kinds share: a name, and one child of the library's metric for each combination of labels."""

    def __init__(self, name: str, labels: tuple[str, ...], metric: Child) -> None:
        self.name = Name(name)
        self._labels = labels
        self._metric: Child = metric
        self._children: dict[tuple[Label, ...], Child] = {} if labels else {(): metric}

    def _child(self, given: Mapping[str, Label]) -> Child:
        """Find the child for the labels; raises TypeError for labels that are not the declared ones."""
        if len(given) == len(self._labels):
            try:
                return self._children[tuple([given[label] for label in self._labels])]
            except KeyError:
                pass
        return self._new_child(given)

    def _new_child(self, given: Mapping[str, Label]) -> Child:
        if given.keys() != set(self._labels):
            raise TypeError(f"{self.name} has these labels: {', '.join(self._labels) or 'none'}")
        values = [_text(given[label]) for label in self._labels]
        if len(self._children) >= _SERIES_MAX:
            return self._metric.labels(*("other" for _ in values))
        child = self._metric.labels(*values)
        if "redacted" not in values:  # what was redacted is not kept as a key either
            self._children[tuple(given[label] for label in self._labels)] = child
        return child


class Counter(_Metric[prometheus_client.Counter]):
    """Counts what happened; only ever grows."""

    def add(self, amount: float = 1, **labels: Label) -> None:
        """Count `amount` more."""
        self._child(labels).inc(amount)


class Gauge(_Metric[prometheus_client.Gauge]):
    """Shows how something stands now."""

    def set(self, value: float, **labels: Label) -> None:
        """Show `value` from now on."""
        self._child(labels).set(value)

    def show_all(self, values: Mapping[tuple[Label, ...], float]) -> None:
        """Show these from now on, by their labels in the declared order, and 0 for all others that were shown before."""
        for gone in self._children.keys() - values.keys():
            self._children[gone].set(0)
        for given, value in values.items():
            self._child(dict(zip(self._labels, given, strict=True))).set(value)


class Histogram(_Metric[prometheus_client.Histogram]):
    """Measures how something is spread."""

    def observe(self, value: float, **labels: Label) -> None:
        """Measure one more."""
        self._child(labels).observe(value)


def counter(name: str, meaning: str, *labels: str) -> Counter:
    """Declare a counter; each name can be declared once in a process, else ValueError."""
    return Counter(name, labels, prometheus_client.Counter(_shown(name), meaning, labels, registry=_registry))


def gauge(name: str, meaning: str, *labels: str) -> Gauge:
    """Declare a gauge; each name can be declared once in a process, else ValueError."""
    return Gauge(name, labels, prometheus_client.Gauge(_shown(name), meaning, labels, registry=_registry))


def histogram(name: str, meaning: str, *labels: str, buckets: tuple[float, ...] = SECONDS) -> Histogram:
    """Declare a histogram with upper bounds of its buckets; each name can be declared once, else ValueError."""
    metric = prometheus_client.Histogram(_shown(name), meaning, labels, registry=_registry, buckets=buckets)
    return Histogram(name, labels, metric)


def render() -> bytes:
    """Give all metrics of the process in Prometheus' text format, whose media type is `CONTENT_TYPE`."""
    return generate_latest(_registry)


def _text(value: object) -> str:
    return str(value) if isinstance(value, StrEnum | Name) else "redacted"


def _shown(name: str) -> str:
    return "habeas_" + name.replace(".", "_").replace("-", "_")
