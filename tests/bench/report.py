"""How figures are shown and kept: a table, JSON, and a chart of how much of each goal is reached."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from habeas.chassis.clock import SystemClock

RESULTS_DIR: Final = Path(".habeas/bench")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure; ``better`` says which direction is better, ``goal`` is what is to be reached.

    ``raw`` is what the bare servers do for the same work in the same run, in the same unit: the limit that nothing can pass.
    """

    bench: str
    what: str
    value: float
    unit: str
    goal: float | None = None
    better: str = "higher"
    cpu_s: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    raw: float | None = None

    @property
    def of_goal(self) -> float | None:
        """Give how much of the goal is reached: 1 is the goal, more is better than it."""
        return self._share(self.goal)

    @property
    def of_raw(self) -> float | None:
        """Give how much of the raw limit is reached."""
        return self._share(self.raw)

    def _share(self, of: float | None) -> float | None:
        if not of or not self.value:
            return None
        return self.value / of if self.better == "higher" else of / self.value


def show(console: Console, figures: Sequence[Figure]) -> None:
    """Print the figures with a bar of how much of each goal is reached."""
    table = Table(title="Figures", title_justify="left")
    for head in ("bench", "what", "value", "unit", "goal", "of goal", "of raw limit", "CPU-seconds by process", "note"):
        table.add_column(head, justify="right" if head in {"value", "goal"} else "left", overflow="fold")
    for each in figures:
        reached, limit = each.of_goal, each.of_raw
        bar = "" if reached is None else f"{'█' * min(20, round(reached * 10)):<10} {reached:.2f}"
        cpu = ", ".join(f"{part} {seconds:.2f}" for part, seconds in each.cpu_s.items())
        goal = "" if each.goal is None else f"{each.goal:g}"
        raw = "" if limit is None else f"{limit:.2f}"
        table.add_row(each.bench, each.what, f"{each.value:,.3g}", each.unit, goal, bar, raw, cpu, each.note)
    console.print(table)


def keep(name: str, figures: Sequence[Figure]) -> Path:
    """Write the figures as JSON with machine and time; gives the file."""
    RESULTS_DIR.mkdir(parents=True, exist_ok=True)
    now = SystemClock().now().astimezone(UTC)
    target = RESULTS_DIR / f"{name}-{now:%Y%m%dT%H%M%SZ}.json"
    kept = {"bench": name, "at": now.isoformat(), "machine": machine(), "figures": [asdict(each) for each in figures]}
    target.write_text(json.dumps(kept, indent=2) + "\n")
    return target


def newest() -> Mapping[str, tuple[datetime, list[Figure]]]:
    """Read back the newest kept figures of each benchmark, with their time."""
    found: dict[str, tuple[datetime, list[Figure]]] = {}
    for file in sorted(RESULTS_DIR.glob("*.json")):
        kept: dict[str, Any] = json.loads(file.read_text())
        at = datetime.fromisoformat(kept["at"])
        if kept["bench"] not in found or found[kept["bench"]][0] < at:
            found[kept["bench"]] = (at, [Figure(**each) for each in kept["figures"]])
    return found


def machine() -> Mapping[str, str | int | None]:
    """Describe the machine as far as figures depend on it."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
