"""Many seeds one after another, and what came of them."""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import monotonic
from typing import Final

import asyncpg
from typing_extensions import override

from tests.property.datamap.alterations import alterations
from tests.property.datamap.model import Feature
from tests.property.datamap.product import Workshop
from tests.property.datamap.sabotage import sabotages
from tests.property.datamap.shrink import shrunk
from tests.property.datamap.trial import Case, Kind, Owner, Verdict, judge, judge_broken

SHOWN: Final = 3
"""So many of each kind are told whole, and made small."""


@dataclass
class Report:
    """What came of a campaign: how many seeds of each kind, and the words of those that were not good."""

    first: int
    count: int
    on: Collection[Feature]
    kinds: Counter[str] = field(default_factory=Counter)
    figures: Counter[str] = field(default_factory=Counter)
    spoiled: Counter[str] = field(default_factory=Counter)
    told: dict[Kind, list[str]] = field(default_factory=lambda: defaultdict(list))
    seconds: float = 0.0

    @property
    def bad(self) -> list[str]:
        """Words of every seed that breaks a law; a false alarm breaks none, but is told as well."""
        return [each for words in self.told.values() for each in words]

    @override
    def __str__(self) -> str:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.kinds.most_common())
        figures = ", ".join(f"{count:,} {name}" for name, count in sorted(self.figures.items()))
        again = f"make test-maps ARGS='--schemas={self.count} --seed={self.first}'"
        return f"data maps: {self.count:,} schemas in {self.seconds:.0f} s ({kinds}; {figures}); again: {again}"


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[Owner]:
    """The owner of the schemas; times are those of UTC."""
    owner = await asyncpg.connect(dsn, server_settings={"TimeZone": "UTC"})
    try:
        yield owner
    finally:
        await owner.close()


async def run(
    dsn: str, directory: Path, first: int, count: int, on: Collection[Feature], not_yet: Collection[str] = ()
) -> Report:
    """Judge ``count`` seeds from ``first`` on, each with its right map and with maps that are broken on purpose.

    Ways to break a map that are in `not_yet` are left out.
    """
    report = Report(first, count, on)
    workshop = Workshop(directory, dsn)
    started = monotonic()
    async with opened(dsn) as owner:
        for seed in range(first, first + count):
            case = Case.of(seed, on)
            verdict = await judge(owner, workshop, case)
            await _note(report, owner, workshop, case, verdict)
            if verdict.kind is Kind.GOOD:
                await _spoil(report, workshop, case, not_yet)
                await _alter(report, owner, workshop, case, not_yet)
    report.seconds = monotonic() - started
    return report


async def first_bad(
    dsn: str, directory: Path, count: int, on: Collection[Feature], break_it: Callable[[], AbstractContextManager[None]]
) -> str | None:
    """Return the words of the first seed that goes wrong with a broken product and well without; None where there is none."""
    workshop = Workshop(directory, dsn)
    async with opened(dsn) as owner:
        for seed in range(1, count + 1):
            case = Case.of(seed, on)
            with break_it():
                words = await _first_word(owner, workshop, case)
            if words is not None and await _first_word(owner, workshop, case) is None:
                return f"seed {seed}: {words}"
    return None


async def _first_word(owner: Owner, workshop: Workshop, case: Case) -> str | None:
    verdict = await judge(owner, workshop, case)
    if verdict.kind is not Kind.GOOD:
        return str(verdict)
    for name, document in sabotages(case, Random(case.seed)):
        overlooked = await judge_broken(workshop, name, document)
        if overlooked is not None:
            return str(overlooked)
    return None


async def _spoil(report: Report, workshop: Workshop, case: Case, not_yet: Collection[str]) -> None:
    for name, document in sabotages(case, Random(case.seed), not_yet):
        report.figures["broken maps"] += 1
        report.spoiled[name] += 1
        overlooked = await judge_broken(workshop, name, document)
        if overlooked is not None:
            report.kinds[overlooked.kind] += 1
            words = f"seed {case.seed}: {overlooked}"
            if sum(name in each for each in report.told[overlooked.kind]) < 1:
                words = f"{words}\n{case.with_document(document)}"
            report.told[overlooked.kind].append(words)


async def _alter(report: Report, owner: Owner, workshop: Workshop, case: Case, not_yet: Collection[str]) -> None:
    for name, altered in alterations(case, Random(case.seed)):
        if name in not_yet:
            continue
        report.figures["altered schemas"] += 1
        report.spoiled[name] += 1
        await owner.execute(altered.there)
        overlooked = await judge_broken(workshop, name, case.document)
        await owner.execute(altered.back)
        if overlooked is not None:
            report.kinds[overlooked.kind] += 1
            report.told[overlooked.kind].append(f"seed {case.seed}: {overlooked}\n{altered.there}\n{case}")


async def _note(report: Report, owner: Owner, workshop: Workshop, case: Case, verdict: Verdict) -> None:
    report.kinds[verdict.kind] += 1
    report.figures["tables"] += len(case.schema.tables)
    report.figures["rows"] += sum(len(rows) for rows in case.content.values())
    if verdict.kind is Kind.GOOD:
        return
    words = f"seed {case.seed}: {verdict}"
    if len(report.told[verdict.kind]) < SHOWN:

        async def is_same(smaller: Case) -> bool:
            return verdict.is_like(await judge(owner, workshop, smaller))

        smallest = await shrunk(case, is_same)
        words = f"{words}\nsmallest form:\n{await judge(owner, workshop, smallest)}\n{smallest}"
    report.told[verdict.kind].append(words)
