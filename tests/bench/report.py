"""How figures are shown and kept."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from habeas.chassis.clock import SystemClock

RESULTS_DIR: Final = Path(".habeas/bench")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure; ``better`` says which direction is better, ``goal`` is what is to be reached."""

    bench: str
    what: str
    value: float
    unit: str
    goal: float | None = None
    better: str = "higher"
    cpu_s: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def of_goal(self) -> float | None:
        """Give how much of the goal is reached: 1 is the goal, more is better than it."""
        if not self.goal or not self.value:
            return None
        return self.value / self.goal if self.better == "higher" else self.goal / self.value


def show(console: Console, figures: Sequence[Figure]) -> None:
    """Print the figures with a bar of how much of each goal is reached."""
    table = Table(title="Figures", title_justify="left")
    for head in ("bench", "what", "value", "unit", "goal", "of goal", "CPU-seconds by process", "note"):
        table.add_column(head, justify="right" if head in {"value", "goal"} else "left", overflow="fold")
    for each in figures:
        reached = each.of_goal
        bar = "" if reached is None else f"{'█' * min(20, round(reached * 10)):<10} {reached:.2f}"
        cpu = ", ".join(f"{part} {seconds:.2f}" for part, seconds in each.cpu_s.items())
        goal = "" if each.goal is None else f"{each.goal:g}"
        table.add_row(each.bench, each.what, f"{each.value:,.3g}", each.unit, goal, bar, cpu, each.note)
    console.print(table)


def keep(name: str, figures: Sequence[Figure]) -> Path:
    """Write the figures as JSON with machine and time; gives the file."""
    RESULTS_DIR.mkdir(parents=True, exist_ok=True)
    now = SystemClock().now().astimezone(UTC)
    target = RESULTS_DIR / f"{name}-{now:%Y%m%dT%H%M%SZ}.json"
    machine = {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    kept = {"bench": name, "at": now.isoformat(), "machine": machine, "figures": [asdict(each) for each in figures]}
    target.write_text(json.dumps(kept, indent=2) + "\n")
    return target


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
