"""Rows that are looked for before any is changed, and which of them go: what the plan's statements find, joined up in memory."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final, Self, TypeAlias

from habeas.contracts.vocabulary import TableResult
from habeas.datamap.planner import CollectPlan, Holding, LinkPlan, StorePlan
from habeas.datamap.postgres.connection import Connection
from habeas.datamap.postgres.ids import AskedIds

Key: TypeAlias = tuple[str, ...]
Named: TypeAlias = tuple[str, Key]
"""A row: its table and its key."""

NOBODYS: Final = None
"""Stands for a row that certainly stays, of a table that is not looked through."""


@dataclass
class Found:
    """One row: its values as texts, and the accounts to which links lead it, with the numbers of those links.

    `held`: somebody else owns it too. `parents` are the rows with which it goes.
    """

    values: Sequence[str | None]
    owners: dict[str, list[int]] = field(default_factory=dict)
    held: bool = False
    newest: datetime | date | None = None
    parents: set[Named] = field(default_factory=set)
    is_alone: bool = False
    is_shared: bool = False

    @property
    def is_wanted(self) -> bool:
        """Whether it goes for its own sake, unless others need it."""
        return self.is_alone or (self.is_shared and not self.held)


@dataclass
class Collection:
    """All rows found for some accounts, those that go, and those that stay for others' sake although they would go."""

    plan: StorePlan
    rows: dict[str, dict[Key, Found]]
    going: dict[str, set[Key]]
    kept: dict[str, set[Key]]

    @classmethod
    async def collect(cls, conn: Connection, plan: StorePlan, asked: AskedIds) -> Self:
        """Look for rows, lock them, and decide; nothing is changed yet. The same rows whatever the order in which they are found."""
        rows: dict[str, dict[Key, Found]] = {name: {} for name in plan.collected}
        for each in plan.collected.values():
            await _find(conn, each, asked, rows[each.table])
        await _follow(conn, plan, rows)
        held_by = await _find_holders(conn, plan, asked, rows)
        going, kept = _decide(rows, held_by)
        return cls(plan, rows, going, kept)

    def keys(self, table: str, link: LinkPlan) -> list[Key]:
        """Rows that stay and are changed because of a link."""
        if link.rank < 0:
            return sorted(self.kept[table])
        going = self.going[table]
        return [
            key
            for key, row in self.rows[table].items()
            if key not in going and any(link.rank in ranks for ranks in row.owners.values())
        ]

    def results(self, table: str) -> Iterator[tuple[str, TableResult, Found]]:
        """What becomes of each row, once for every account that it is one of; of rows of others, once, with the first account concerned."""
        plan, going, kept = self.plan.collected[table], self.going[table], self.kept[table]
        of_links = {link.rank: link.result for link in plan.links if link.result is not None}
        owning = {link.rank for link in plan.links if link.owns}
        for key, row in self.rows[table].items():
            is_of_others = all(owning.isdisjoint(ranks) for ranks in row.owners.values())
            if key in going and is_of_others:
                for account_id in sorted(self.accounts(table, key))[:1]:
                    yield account_id, TableResult.ERASED_WITH_PARENT, row
                continue
            for account_id, ranks in row.owners.items():
                if key in going and owning.isdisjoint(ranks):
                    continue  # who only could see it is told nothing of what its owner took away
                found = {TableResult.ERASED} if key in going else {of_links[rank] for rank in ranks if rank in of_links}
                if key in kept and plan.kept is not None and plan.kept.result is not None:
                    found.add(plan.kept.result)
                # A row that is kept is told as kept, also where another link overwrites something in it.
                for result in (TableResult.KEPT, TableResult.ERASED, TableResult.ANONYMISED):
                    if result in found:
                        yield account_id, result, row
                        break

    def accounts(self, table: str, key: Key) -> frozenset[str]:
        """Accounts for whose sake a row goes: those to which it leads, or those of the rows with which it goes."""
        seen: set[Named] = set()
        found: set[str] = set()
        waiting: list[Named] = [(table, key)]
        while waiting:
            here = waiting.pop()
            if here in seen:
                continue
            seen.add(here)
            row = self.rows[here[0]][here[1]]
            if row.owners:
                found |= set(row.owners)
            else:
                waiting += [each for each in row.parents if each[1] in self.going[each[0]]]
        return frozenset(found)


async def _find(conn: Connection, plan: CollectPlan, asked: AskedIds, rows: dict[Key, Found]) -> None:
    if plan.found is None:
        return
    goes = {link.rank: link for link in plan.links if link.goes}
    for account_id, ranks, held, newest, *values in await conn.fetch(plan.found, asked.parameter):
        row = rows.setdefault(_key(plan, values), Found(values))
        for given in asked.given(account_id):
            row.owners[given] = ranks
        row.held = row.held or held
        row.newest = newest
        row.is_alone = row.is_alone or any(rank in goes and not goes[rank].is_shared for rank in ranks)
        row.is_shared = row.is_shared or any(rank in goes and goes[rank].is_shared for rank in ranks)


async def _follow(conn: Connection, plan: StorePlan, rows: dict[str, dict[Key, Found]]) -> None:
    """Find what goes with rows that go, and with those in turn, until there is no more."""
    fresh = {name: [key for key, row in found.items() if row.is_wanted] for name, found in rows.items()}
    reached = {name: set(keys) for name, keys in fresh.items()}
    while any(fresh.values()):
        parents, fresh = fresh, {name: [] for name in rows}
        for each in plan.collected.values():
            for follow in each.follows:
                keys = parents[follow.parent]
                if not keys:
                    continue
                given = [rows[follow.parent][key].values for key in keys]
                for n, *values in await conn.fetch(follow.sql, *_arrays(given, follow.of)):
                    key = _key(each, values)
                    row = rows[each.table].setdefault(key, Found(values))
                    row.parents.add((follow.parent, keys[n - 1]))
                    if key not in reached[each.table]:
                        reached[each.table].add(key)
                        fresh[each.table].append(key)


_Holders: TypeAlias = dict[Named, set[tuple[Holding, Named | None]]]
"""By what each row is held, and how."""


async def _find_holders(
    conn: Connection, plan: StorePlan, asked: AskedIds, rows: Mapping[str, Mapping[Key, Found]]
) -> _Holders:
    found: _Holders = defaultdict(set)
    for each in plan.collected.values():
        keys = [key for key, row in rows[each.table].items() if row.is_wanted or row.parents]
        for holder in each.holders if keys else ():
            for n, *child in await conn.fetch(holder.sql, *_arrays(keys, range(each.key)), asked.parameter):
                by = (holder.child, tuple(child)) if child else NOBODYS
                mine = (each.table, keys[n - 1])
                if by != mine:
                    found[mine].add((holder.holding, by))
    return found


def _decide(
    rows: Mapping[str, Mapping[Key, Found]], held_by: _Holders
) -> tuple[dict[str, set[Key]], dict[str, set[Key]]]:
    """Take out what others need, and what would only have gone with that, until nothing more changes."""
    stays: set[Named] = set()
    kept: set[Named] = set()
    holds: dict[Named, list[Named]] = defaultdict(list)
    for named, by in held_by.items():
        for _, each in by:
            if each is not None:
                holds[each].append(named)
    while True:
        going = _closure(rows, stays)
        waiting = [named for named in going if named in held_by]
        before = len(stays)
        while waiting:
            named = waiting.pop()
            if named not in going:
                continue
            how = {holding for holding, by in held_by[named] if _keeps(rows, going, named, holding, by)}
            row = rows[named[0]][named[1]]
            is_owned = row.is_alone or not going.isdisjoint(row.parents)
            if Holding.ANYWAY in how or (how and not is_owned):
                going.discard(named)
                stays.add(named)
                waiting += holds[named]
            if Holding.ANYWAY in how:
                kept.add(named)
        if len(stays) == before:
            return _by_table(rows, going), _by_table(rows, kept)


def _keeps(
    rows: Mapping[str, Mapping[Key, Found]], going: set[Named], named: Named, holding: Holding, by: Named | None
) -> bool:
    """Whether a row is kept by another: by one that stays, and a shared row also by an owner that would go only with it."""
    if by is None or by not in going:
        return True
    owner = rows[by[0]][by[1]]
    return holding is Holding.OWNER and not owner.is_wanted and going.isdisjoint(owner.parents - {named})


def _closure(rows: Mapping[str, Mapping[Key, Found]], stays: set[Named]) -> set[Named]:
    """What goes for its own sake, and what goes with that."""
    children: dict[Named, list[Named]] = defaultdict(list)
    going: set[Named] = set()
    for table, found in rows.items():
        for key, row in found.items():
            for parent in row.parents:
                children[parent].append((table, key))
            if row.is_wanted and (table, key) not in stays:
                going.add((table, key))
    waiting = list(going)
    while waiting:
        for child in children[waiting.pop()]:
            if child not in going and child not in stays:
                going.add(child)
                waiting.append(child)
    return going


def _by_table(rows: Iterable[str], named: Iterable[Named]) -> dict[str, set[Key]]:
    found: dict[str, set[Key]] = {name: set() for name in rows}
    for table, key in named:
        found[table].add(key)
    return found


def _key(plan: CollectPlan, values: Sequence[str | None]) -> Key:
    return tuple(str(value) for value in values[: plan.key])


def _arrays(rows: Sequence[Sequence[str | None]], columns: Iterable[int]) -> Iterator[list[str | None]]:
    return ([row[column] for row in rows] for column in columns)


def arrays_of(keys: Sequence[Key], columns: int) -> Iterator[list[str | None]]:
    """Keys as parameters: an array for each of their columns."""
    return _arrays(keys, range(columns))


def values_of(rows: Iterable[Found], columns: Iterable[int]) -> Iterator[list[str | None]]:
    """Values of rows as parameters: an array for each of those columns."""
    return _arrays([row.values for row in rows], columns)
