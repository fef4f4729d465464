"""CPU-seconds and memory of everything that takes part, by process name, from the outside."""

from collections import defaultdict
from collections.abc import Mapping

import psutil

from habeas_embedded.provision import SERVICES

MODULES = {service.replace("-", "_"): service for service in SERVICES}


def spent() -> dict[str, float]:
    """Give the CPU-seconds (user and system) that each part has spent so far; this process counts as ``load``."""
    seconds: dict[str, float] = defaultdict(float)
    me = psutil.Process()
    seconds["load"] += _seconds(me)
    for process in me.children(recursive=True):
        try:
            seconds[_part(process)] += _seconds(process)
        except psutil.NoSuchProcess:
            continue
    return seconds


def resident_mb(parts: frozenset[str] = frozenset(SERVICES)) -> dict[str, float]:
    """Give each part's memory in MB as proportional set size: what would be free without it."""
    found: dict[str, float] = defaultdict(float)
    for process in psutil.Process().children(recursive=True):
        try:
            part = _part(process)
            if part in parts:
                found[part] += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return {part: used / 1e6 for part, used in found.items()}


def between(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Give what each part spent between two looks, the greatest first."""
    spent_by = {part: after[part] - before.get(part, 0.0) for part in after}
    return dict(sorted(((part, each) for part, each in spent_by.items() if each > 0.005), key=lambda each: -each[1]))


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _part(process: psutil.Process) -> str:
    command = process.cmdline()
    name = process.name()
    if name.startswith("postgres"):
        return "postgresql"
    if name.startswith("java"):
        return "kafka"
    for word in command:
        if word in MODULES:
            return MODULES[word]
        if word.endswith("smtp"):
            return "smtp-sink"
        if word == "tests.bench.pair_service":
            return f"pair-{command[-1]}"
    return "other"
