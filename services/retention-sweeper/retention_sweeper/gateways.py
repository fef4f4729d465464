"""What retention-sweeper reaches outside of its database: the stores in which rows go because of their age."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol
from zoneinfo import ZoneInfo

from habeas.datamap.errors import SchemaMismatch
from habeas.datamap.planner import AgeKind
from habeas.datamap.stores import Stores
from retention_sweeper.lifecycle import Purged, Rule


class Purgeable(Protocol):
    """All stores of the data map, by name, as far as a sweep needs them."""

    def root(self, store: str) -> str:
        """Give the table that stands for the whole store where no other can be named."""
        ...

    async def rules(self, store: str) -> tuple[Rule, ...]:
        """Give the rules of a store as it is now, children before parents. Raises ``StoreError``."""
        ...

    async def purge(
        self, store: str, rule: Rule, cutoff: datetime, rows_max: int, buckets: Sequence[int] | None = None
    ) -> Purged:
        """Let go what is older than ``cutoff``, at most so many rows; may be repeated. Raises ``StoreError``.

        With ``buckets`` only rows whose key falls into one of them, out of ``BUCKETS``.
        """
        ...


class MappedStores:
    """The stores that the data map names; days are those of ``zone``."""

    def __init__(self, stores: Stores, zone: ZoneInfo) -> None:
        self._stores = stores
        self._zone = zone

    def root(self, store: str) -> str:
        """Give the table in which the store's people begin; the store's own name when it has none, or the map has it no more."""
        return (self._stores.named(store).root if store in self._stores.names else None) or store

    async def rules(self, store: str) -> tuple[Rule, ...]:
        """Compare the live schema with the map, then give what the plan says; a store that the map lacks is a mismatch."""
        found = self._stores.named(store)
        await found.check()
        return tuple(Rule(rule.table, rule.retention) for rule in await found.purge_rules())

    async def purge(
        self, store: str, rule: Rule, cutoff: datetime, rows_max: int, buckets: Sequence[int] | None = None
    ) -> Purged:
        """Let whole partitions and at most ``rows_max`` rows go; a rule that the plan lacks is a mismatch, never done."""
        found = self._stores.named(store)
        for live in await found.purge_rules():
            if (live.table, live.retention) == (rule.table, rule.retention):
                result = await found.purge(live, cutoff, rows_max, buckets=buckets)
                is_overdue = result.oldest_left is not None and self._is_before(live.kind, result.oldest_left, cutoff)
                return Purged(result.rows, result.partitions_dropped, result.oldest_left, result.more, is_overdue)
        raise SchemaMismatch(store, (), rule.table)

    def _is_before(self, kind: AgeKind, age: datetime, cutoff: datetime) -> bool:
        """Answer whether a row of this age should be gone; a date counts as before the cutoff once its day has ended."""
        if kind is AgeKind.DAY:
            return age.astimezone(self._zone).date() < cutoff.astimezone(self._zone).date()
        return age < cutoff
