"""Run benchmarks, print a table, keep the figures."""

import asyncio
import sys

from rich.console import Console

from tests.bench import fleet, pair
from tests.bench.report import Figure, keep, show


async def _pipeline(console: Console) -> list[Figure]:
    figures = await pair.measure(console)
    return figures + await fleet.measure(console, fleet.Sizes())


def main() -> None:
    """Run the named benchmark, or all."""
    console = Console(width=None if sys.stdout.isatty() else 200)
    figures = asyncio.run(_pipeline(console))
    show(console, figures)
    console.print(f"kept in {keep('pipeline', figures)}")
