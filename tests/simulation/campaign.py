"""A campaign: many schedules, shared out over processes with a database each."""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from typing_extensions import override

JOBS: Final = 2
OPTIONS: Final = {"toys": "--schedules", "lives": "--lives"}
"""What sets the number of schedules of each play."""


@dataclass(frozen=True)
class Report:
    """What came of a campaign."""

    play: str
    first: int
    schedules: int
    seconds: float
    counts: Mapping[str, int]
    bad: str | None

    @override
    def __str__(self) -> str:
        what = ", ".join(f"{count:,} {name}" for name, count in sorted(self.counts.items()))
        again = f"make test-sim ARGS='{OPTIONS[self.play]}={self.schedules} --seed={self.first}'"
        return (
            f"simulation of {self.play}: {self.schedules:,} schedules in {self.seconds:.0f} s ({what}); again: {again}"
        )


async def share_out(admin_dsn: str, template: str, first: int, count: int, play: str = "toys") -> Report:
    """Run ``count`` schedules from seed ``first`` on; every process takes a part of the seeds and stops at its first failure."""
    started = time.monotonic()
    part = -(-count // JOBS)
    shares = [(first + start, min(part, count - start)) for start in range(0, count, part)]
    reports = await asyncio.gather(*(_job(admin_dsn, template, play, *share) for share in shares))
    counts: Counter[str] = Counter()
    for report in reports:
        counts.update(report["counts"])
    done = sum(report["schedules"] for report in reports)
    bad = next((report["bad"] for report in reports if report["bad"]), None)
    return Report(play, first, done, time.monotonic() - started, counts, bad)


async def _job(admin_dsn: str, template: str, play: str, first: int, count: int) -> dict[str, Any]:
    options = ["--play", play, "--template", template, "--seed", str(first), "--schedules", str(count)]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.simulation.run",
        *options,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate(admin_dsn.encode())
    if not output:
        raise AssertionError(f"a process of the campaign ended without a report:\n{errors.decode()}")
    report: dict[str, Any] = json.loads(output.splitlines()[-1])
    return report
