"""Run benchmarks, print a table, keep the figures."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from rich.console import Console

from tests.bench import fleet, idle, mails, overload, page, pair, recovery
from tests.bench.report import Figure, keep, show


async def _pipeline(console: Console) -> list[Figure]:
    figures = await pair.measure(console)
    return figures + await fleet.measure(console, fleet.Sizes())


_BENCHES: Final[Mapping[str, Callable[[Console], Awaitable[list[Figure]]]]] = {
    "pipeline": _pipeline,
    "history": pair.measure_history,
    "mails": mails.measure,
    "recovery": recovery.measure,
    "overload": overload.measure,
    "idle": idle.measure,
}


async def _run(console: Console, name: str) -> list[Figure]:
    return await _BENCHES[name](console)


def main() -> None:
    """Run the named benchmarks, or all; ``--write`` puts the newest figures of each into docs/performance.md."""
    console = Console(width=None if sys.stdout.isatty() else 200)
    names = [word for word in sys.argv[1:] if word != "--write"]
    for name in names or _BENCHES:
        figures = asyncio.run(_run(console, name))
        show(console, figures)
        console.print(f"kept in {keep(name, figures)}")
    if "--write" in sys.argv:
        page.write()
        console.print(f"written to {page.PAGE} and {page.CHART}")
