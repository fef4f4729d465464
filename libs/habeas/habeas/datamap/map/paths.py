"""From a table to the person its rows are about: joins over several hops, and the order in which tables can be erased."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from typing import TypeAlias

from habeas.datamap.map.dataset import Constant

Where: TypeAlias = tuple[tuple[str, tuple[Constant, ...]], ...]
"""Columns and the values that they must have, one of them each, for a row to belong to somebody."""


@dataclass(frozen=True)
class Edge:
    """`table.column` holds the value of `to_table.to_column`."""

    table: str
    column: str
    to_table: str
    to_column: str


@dataclass(frozen=True)
class Join:
    """One hop: the table before holds in `column` the value of `to_column` of `table`, among its rows for which `where` holds."""

    column: str
    table: str
    to_column: str
    where: Where = ()


@dataclass(frozen=True)
class SubjectPath:
    """How rows of `table` for which `where` holds lead to a person.

    The account id stands in `subject_column` of the last joined table, or of `table` itself when there is no join.
    """

    table: str
    joins: tuple[Join, ...]
    subject_column: str
    where: Where = ()

    def narrowed(self, where: Mapping[str, Where]) -> "SubjectPath":
        """Return the same path among those rows only that the conditions of each table allow."""
        joins = tuple(replace(join, where=where.get(join.table, ())) for join in self.joins)
        return replace(self, joins=joins, where=where.get(self.table, ()))

    @property
    def direct(self) -> bool:
        """Whether the rows themselves carry the account id, so that they can be found without any other table."""
        return not self.joins

    @property
    def tables(self) -> tuple[str, ...]:
        """The table itself and then every table on the way, nearest first."""
        return (self.table, *(join.table for join in self.joins))

    @property
    def own_column(self) -> str:
        """The table's own column with which the path begins."""
        return self.joins[0].column if self.joins else self.subject_column

    def lineage(self, root: str, identity: str) -> tuple[Join, ...]:
        """Joins all the way into the root, whose row the path itself often needs no longer; without a root as far as the path leads."""
        if not root or self.tables[-1] == root:
            return self.joins
        return (*self.joins, Join(self.subject_column, root, identity))


@dataclass(frozen=True)
class NoPath:
    """Why rows of a table cannot be brought to a person; `columns` are the candidates or the cycle."""

    reason: str
    columns: tuple[str, ...] = ()


NOTHING_LEADS = "nothing_leads"
SEVERAL_LEAD = "several_lead"
CYCLE = "cycle"
UNKNOWN_CHOICE = "unknown_choice"


@dataclass(frozen=True)
class Links:
    """What a table says about how it reaches a person.

    `identities` are columns that hold the account id itself, `choice` is the column that the map names where several
    would lead there.
    """

    identities: tuple[str, ...] = ()
    edges: tuple[Edge, ...] = ()
    choice: str | None = None


def find_paths(tables: Mapping[str, Links], root: str, identity: str) -> dict[str, SubjectPath | NoPath]:
    """Path of each table to the account id, which stands in `root.identity`.

    A column that holds the account id is preferred to a join, because rows stay findable when their parents are gone.
    Where several columns would do, and the map names none, the answer is NoPath: guessing would erase one person's rows
    for another.
    """
    found: dict[str, SubjectPath | NoPath] = {root: SubjectPath(root, (), identity)}
    for table in tables:
        _find(table, tables, (root, identity), found, ())
    return found


def _find(
    table: str,
    tables: Mapping[str, Links],
    target: tuple[str, str],
    found: dict[str, SubjectPath | NoPath],
    coming_from: tuple[str, ...],
) -> SubjectPath | NoPath:
    if table in found:
        return found[table]
    if table in coming_from:
        return NoPath(CYCLE, (*coming_from[coming_from.index(table) :], table))
    links = tables.get(table, Links())
    direct = dict.fromkeys(links.identities) | dict.fromkeys(
        edge.column for edge in links.edges if (edge.to_table, edge.to_column) == target
    )
    ways: dict[str, SubjectPath] = {column: SubjectPath(table, (), column) for column in direct}
    cycles: list[NoPath] = []
    for edge in links.edges:
        if edge.column in ways or edge.to_table == table or edge.to_table not in tables:
            continue
        onward = _find(edge.to_table, tables, target, found, (*coming_from, table))
        if isinstance(onward, SubjectPath):
            joins = (Join(edge.column, edge.to_table, edge.to_column), *onward.joins)
            ways[edge.column] = SubjectPath(table, joins, onward.subject_column)
        elif onward.reason == CYCLE:
            cycles.append(onward)
    answer = _choose(links.choice, ways, cycles)
    if not (isinstance(answer, NoPath) and answer.reason == CYCLE and coming_from):
        found[table] = answer  # an answer inside a cycle holds only for where the walk came from
    return answer


def _choose(choice: str | None, ways: Mapping[str, SubjectPath], cycles: Sequence[NoPath]) -> SubjectPath | NoPath:
    if choice is not None:
        return ways.get(choice) or NoPath(UNKNOWN_CHOICE, tuple(ways))
    direct = [way for way in ways.values() if way.direct]
    best = direct or list(ways.values())
    if len(best) == 1:
        return best[0]
    if best:
        return NoPath(SEVERAL_LEAD, tuple(way.own_column for way in best))
    return cycles[0] if cycles else NoPath(NOTHING_LEADS)


class ReferenceCycleError(Exception):
    """Tables refer to one another in a circle, so none of them can go first; `tables` walks the circle."""

    def __init__(self, tables: Sequence[str]) -> None:
        self.tables = tuple(tables)
        super().__init__(" → ".join(tables))


def children_first(tables: Iterable[str], edges: Iterable[Edge]) -> tuple[tuple[str, ...], ...]:
    """Layers in which tables can be erased so that no foreign key is hurt: whoever refers comes in a layer before the referred.

    Deterministic (by name where the order is free). A table that refers to itself is no cycle: one statement erases all
    of its rows. Raises ReferenceCycleError.
    """
    known = sorted(set(tables))
    sorter = TopologicalSorter[str](dict.fromkeys(known, ()))
    for edge in sorted(edges, key=lambda each: (each.to_table, each.table)):
        if edge.table in known and edge.to_table in known and edge.table != edge.to_table:
            sorter.add(edge.to_table, edge.table)
    try:
        sorter.prepare()
    except CycleError as error:
        raise ReferenceCycleError(error.args[1]) from None
    layers: list[tuple[str, ...]] = []
    while sorter.is_active():
        ready = tuple(sorted(sorter.get_ready()))
        layers.append(ready)
        sorter.done(*ready)
    return tuple(layers)
