"""From a table to the people whom its rows are about: joins over several hops, and the order in which tables can be erased."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import TypeAlias

from habeas.datamap.map.dataset import REVIEW, Constant, WhenParentGoes

Where: TypeAlias = tuple[tuple[str, tuple[Constant, ...]], ...]
"""Columns and the values that they must have, one of them each, for a row to belong to somebody."""

Pairs: TypeAlias = tuple[tuple[str, str], ...]
"""Columns of one table, each with the column of another whose value it has."""


@dataclass(frozen=True)
class Reference:
    """Columns of `table` hold the values of columns of `to_table`, all of them or none.

    `detached` are the columns that let go of a row that is deleted, with what they become then. `where` are the conditions under which
    what they hold is an id of that table, where they may hold those of several.
    """

    table: str
    on: Pairs
    to_table: str
    is_caseless: bool = False
    when_parent_goes: WhenParentGoes | None = None
    detached: tuple[tuple[str, Constant], ...] = ()
    where: Where = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the table itself."""
        return tuple(own for own, _ in self.on)

    @property
    def to_columns(self) -> tuple[str, ...]:
        """The columns referred to."""
        return tuple(theirs for _, theirs in self.on)


@dataclass(frozen=True)
class Join:
    """One hop: to the rows of `table` that have in each second column of `on` the value of the first, in the table before.

    Only to those for which `where` holds. `is_down`: rows of `table` refer to the table before, so a row may have several.
    """

    on: Pairs
    table: str
    where: Where = ()
    is_caseless: bool = False
    is_down: bool = False


@dataclass(frozen=True)
class Within:
    """A subject column that holds several ids: an array, or JSON in which `keys` lead to them (`None`: every element)."""

    keys: tuple[str | None, ...] | None = None


@dataclass(frozen=True)
class SubjectPath:
    """How rows of `table` for which `where` holds lead to a person.

    The account id stands in `subject_column` of the last joined table, or of `table` itself when there is no join.
    """

    table: str
    joins: tuple[Join, ...]
    subject_column: str
    where: Where = ()
    within: Within | None = None

    def narrowed(self, where: Mapping[str, Where], own: Where = ()) -> "SubjectPath":
        """Return the same path among those rows only that the conditions of each table, and `own` of this one, allow."""
        joins = tuple(replace(join, where=(*join.where, *where.get(join.table, ()))) for join in self.joins)
        return replace(self, joins=joins, where=(*self.where, *where.get(self.table, ()), *own))

    @property
    def direct(self) -> bool:
        """Whether the rows themselves carry the account id, so that they can be found without any other table."""
        return not self.joins and self.within is None

    @property
    def has_down(self) -> bool:
        """Whether it goes over rows that refer to this table's, so that it may lead to several people."""
        return any(join.is_down for join in self.joins)

    @property
    def tables(self) -> tuple[str, ...]:
        """The table itself and then every table on the way, nearest first."""
        return (self.table, *(join.table for join in self.joins))

    @property
    def own_columns(self) -> tuple[str, ...]:
        """The table's own columns with which the path begins."""
        return tuple(own for own, _ in self.joins[0].on) if self.joins else (self.subject_column,)

    def lineage(self, root: str, identity: str) -> tuple[Join, ...]:
        """Joins all the way into the root, whose row the path itself often needs no longer; without a root as far as the path leads."""
        if not root or self.tables[-1] == root:
            return self.joins
        return (*self.joins, Join(((self.subject_column, identity),), root))


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
class Ways:
    """What a table says about how it reaches a person.

    `identities` are columns that hold the account id itself, `choice` is the column that the map names where several would lead there.
    `said` are the ways that the map spells out; nothing is looked for then. Whatever goes on at this table goes along those of them
    that make somebody an owner or co-owner.
    """

    identities: tuple[str, ...] = ()
    references: tuple[Reference, ...] = ()
    choice: str | None = None
    said: tuple["Said", ...] = field(default=())


@dataclass(frozen=True)
class Said:
    """One way that the map spells out: an own column with an id, or a reference of this table, or one that comes from another table."""

    name: str
    is_owning: bool
    where: Where = ()
    column: str | None = None
    within: Within | None = None
    by: Reference | None = None
    through: Reference | None = None


class PathFinder:
    """Paths of all tables of a store to the account id, which stands in `root.identity`."""

    def __init__(self, tables: Mapping[str, Ways], root: str, identity: str, where: Mapping[str, Where]) -> None:
        """``where`` are the conditions of each table, for each path over it."""
        self._tables = tables
        self._target = (root, identity)
        self._where = where
        self._found: dict[str, tuple[SubjectPath, ...] | NoPath] = {}

    def ways(self, table: str) -> tuple[SubjectPath, ...] | NoPath:
        """Return the paths by which rows of a table are owned, several where the map says so, never none.

        A column that holds the account id is preferred to a join, because rows stay findable when their parents are gone. Where several
        columns would do, and the map names none, the answer is NoPath: guessing would erase one person's rows for another.
        """
        return self._ways(table, ())

    def along(self, table: str, said: Said) -> tuple[SubjectPath, ...] | NoPath:
        """Return the paths of one way that the map spells out."""
        return self._along(table, said, (table,))

    def _ways(self, table: str, coming_from: tuple[str, ...]) -> tuple[SubjectPath, ...] | NoPath:
        if table in self._found:
            return self._found[table]
        if table in coming_from:
            return NoPath(CYCLE, (*coming_from[coming_from.index(table) :], table))
        here = self._tables.get(table, Ways())
        if table == self._target[0] and not here.said:
            answer: tuple[SubjectPath, ...] | NoPath = (SubjectPath(table, (), self._target[1]),)
        elif here.said:
            answer = self._said(table, here.said, (*coming_from, table))
        else:
            answer = self._chosen(table, here, (*coming_from, table))
        if not (isinstance(answer, NoPath) and answer.reason == CYCLE and coming_from):
            self._found[table] = answer  # an answer inside a cycle holds only for where the walk came from
        return answer

    def _said(self, table: str, said: Sequence[Said], coming_from: tuple[str, ...]) -> tuple[SubjectPath, ...] | NoPath:
        found: list[SubjectPath] = []
        for each in said:
            if each.is_owning:
                paths = self._along(table, each, coming_from)
                if isinstance(paths, NoPath):
                    return paths
                found += paths
        return tuple(dict.fromkeys(found)) or NoPath(NOTHING_LEADS)

    def _along(self, table: str, said: Said, coming_from: tuple[str, ...]) -> tuple[SubjectPath, ...] | NoPath:
        if said.column is not None:
            path = SubjectPath(table, (), said.column, within=said.within)
            return (path.narrowed(self._where, said.where),)
        if said.by is not None:
            return self._onward(table, said.by, coming_from, said.where)
        assert said.through is not None, "a way has a column, a reference or one from elsewhere"  # noqa: S101 - for mypy
        back = said.through
        return self._on(
            table, Join(_turned(back.on), back.table, (), back.is_caseless, is_down=True), coming_from, said.where
        )

    def _onward(
        self, table: str, reference: Reference, coming_from: tuple[str, ...], where: Where = ()
    ) -> tuple[SubjectPath, ...] | NoPath:
        """Go by a reference; the root itself need not be visited for the id that the reference holds."""
        direct = self._direct(reference)
        if direct is not None:
            return (SubjectPath(table, (), direct).narrowed(self._where, where),)
        return self._on(table, Join(reference.on, reference.to_table, (), reference.is_caseless), coming_from, where)

    def _on(
        self, table: str, join: Join, coming_from: tuple[str, ...], where: Where
    ) -> tuple[SubjectPath, ...] | NoPath:
        onward = self._ways(join.table, coming_from)
        if isinstance(onward, NoPath):
            return onward
        own = (*self._where.get(table, ()), *where)
        return tuple(
            SubjectPath(table, (replace(join, where=path.where), *path.joins), path.subject_column, own, path.within)
            for path in onward
        )

    def _chosen(self, table: str, here: Ways, coming_from: tuple[str, ...]) -> tuple[SubjectPath, ...] | NoPath:
        ways: dict[str, tuple[SubjectPath, ...]] = {
            column: (SubjectPath(table, (), column).narrowed(self._where),) for column in here.identities
        }
        joined: list[Reference] = []
        is_open = here.choice == REVIEW
        for reference in here.references:
            direct = self._direct(reference)
            if direct is None:
                joined.append(reference)
            else:
                ways.setdefault(direct, (SubjectPath(table, (), direct).narrowed(self._where),))
        if here.choice is not None and not is_open:
            if here.choice in ways:
                return ways[here.choice]
            joined = [each for each in joined if here.choice in each.columns]
        elif ways:
            return _choose(ways, [], is_open=is_open)
        found: dict[str, tuple[SubjectPath, ...]] = {}
        cycles: list[NoPath] = []
        for reference in joined:
            if reference.to_table == table or reference.to_table not in self._tables:
                continue
            onward = self._onward(table, reference, coming_from)
            if isinstance(onward, NoPath):
                cycles += [onward] if onward.reason == CYCLE else []
                continue
            found.setdefault(reference.columns[0], onward)
        if here.choice is not None and not is_open and not found and not cycles:
            return NoPath(UNKNOWN_CHOICE, tuple(ways) or tuple(each.columns[0] for each in here.references))
        return _choose(found, cycles, is_open=is_open)

    def _direct(self, reference: Reference) -> str | None:
        """Return the column that holds the account id, where a reference to the root has one."""
        root, identity = self._target
        if reference.to_table != root or reference.is_caseless:
            return None
        return next((own for own, theirs in reference.on if theirs == identity), None)


def _turned(on: Pairs) -> Pairs:
    return tuple((theirs, own) for own, theirs in on)


def _choose(
    ways: Mapping[str, tuple[SubjectPath, ...]], cycles: Sequence[NoPath], *, is_open: bool = False
) -> tuple[SubjectPath, ...] | NoPath:
    """Return the only way there is; the first of several while a draft leaves it open, so that the rest can be judged."""
    if len(ways) == 1 or (ways and is_open):
        return next(iter(ways.values()))
    if ways:
        return NoPath(SEVERAL_LEAD, tuple(ways))
    return cycles[0] if cycles else NoPath(NOTHING_LEADS)


class ReferenceCycleError(Exception):
    """Tables refer to one another in a circle, so none of them can go first; `tables` walks the circle."""

    def __init__(self, tables: Sequence[str]) -> None:
        self.tables = tuple(tables)
        super().__init__(" → ".join(tables))


def children_first(tables: Iterable[str], references: Iterable[Reference]) -> tuple[tuple[str, ...], ...]:
    """Layers in which tables can be erased so that no foreign key is hurt: whoever refers comes in a layer before the referred.

    Deterministic (by name where the order is free). A table that refers to itself is no cycle: one statement erases all
    of its rows. Raises ReferenceCycleError.
    """
    known = sorted(set(tables))
    sorter = TopologicalSorter[str](dict.fromkeys(known, ()))
    for each in sorted(references, key=lambda each: (each.to_table, each.table)):
        if each.table in known and each.to_table in known and each.table != each.to_table:
            sorter.add(each.to_table, each.table)
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
