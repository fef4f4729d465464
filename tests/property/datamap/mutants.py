"""Planners, checks and sweeps that are broken on purpose, one in each way that the laws must find."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

import pytest

from habeas.datamap.check import constants, listed, references
from habeas.datamap.map import paths
from habeas.datamap.map.model import Column, StoreMap, Table
from habeas.datamap.map.paths import Within
from habeas.datamap.planner import collect, compile, purge, shape, sql  # noqa: A004 -- the module's name
from habeas.datamap.planner.plan import StorePlan, TablePlan
from habeas.datamap.planner.shape import Shape
from habeas.datamap.planner.sql import Reach
from habeas.datamap.postgres import collecting
from habeas.datamap.postgres import purge as sweeping
from habeas.datamap.postgres.connection import Connection
from tests.property.datamap.model import Feature

Patch: TypeAlias = pytest.MonkeyPatch
_WORDS: Final = {Feature.DETACH, Feature.DELETE_WITH_PARENT, Feature.KEEP_PARENT}
_BASE: Final = {Feature.LINKS, Feature.NOBODYS, Feature.MENTIONS}


@dataclass(frozen=True)
class Mutant:
    """One way to break the product; `needs` are the features without which nobody could tell."""

    breaks: Callable[[Patch], None]
    needs: Collection[Feature] = ()

    @property
    def name(self) -> str:
        """What it does wrong."""
        return self.breaks.__name__

    @property
    def on(self) -> frozenset[Feature]:
        """Features of its seeds."""
        return frozenset({*_BASE, *self.needs})


def _nothing(*_: Any, **__: Any) -> tuple[()]:
    return ()


# -- whose rows


def joins_by_one_column_alone(patch: Patch) -> None:
    """Follow one column of a reference over two."""
    whole = Reach.on

    def cut(reach: Reach) -> object:
        joins = tuple(replace(join, on=join.on[-1:]) for join in reach.path.joins)
        return whole.__get__(replace(reach, path=replace(reach.path, joins=joins)))

    patch.setattr(Reach, "on", property(cut))


def ignores_conditions(patch: Patch) -> None:
    """Take all rows of a table for people's."""
    patch.setattr(sql, "holds", _nothing)
    patch.setattr(collect, "holds", _nothing)


def takes_null_for_no_value(patch: Patch) -> None:
    """Forget that a condition may ask for null."""
    holds = sql.holds
    patch.setattr(
        sql,
        "holds",
        lambda name, where: holds(name, tuple((c, tuple(v for v in vs if v is not None) or vs) for c, vs in where)),
    )


def knows_one_link_alone(patch: Patch) -> None:
    """Forget every link of a table but the first that owns."""
    planned = compile._Compiler._table

    def first(compiler: compile._Compiler, table: Table) -> TablePlan:
        return planned(compiler, replace(table, links=table.owning[:1] or table.links))

    patch.setattr(compile._Compiler, "_table", first)


def compares_case(patch: Patch) -> None:
    """Tell mail addresses apart by their case."""
    equal = sql.equal

    def exact(one: str, other: str, *, is_caseless: bool = False) -> str:
        return equal(one, other)

    patch.setattr(sql, "equal", exact)
    patch.setattr(collect, "equal", exact)


# -- what goes


def forgets_what_goes_along(patch: Patch) -> None:
    """Leave rows that are to go with their parent."""
    patch.setattr(collect.Collecting, "_follows", _nothing)


def goes_along_one_step(patch: Patch) -> None:
    """Follow what goes along for one step only."""
    follow = collecting._follow

    async def once(conn: Connection, plan: StorePlan, rows: dict[str, dict[collecting.Key, collecting.Found]]) -> None:
        wanted = {name: set(found) for name, found in rows.items()}
        await follow(conn, plan, rows)
        for found in rows.values():
            for row in found.values():
                row.parents = {each for each in row.parents if each[1] in wanted[each[0]]}

    patch.setattr(collecting, "_follow", once)


def forgets_to_let_go(patch: Patch) -> None:
    """Leave references to rows that go."""
    patch.setattr(collect.Collecting, "_detaches", _nothing)


def keeps_no_parent(patch: Patch) -> None:
    """Look for nobody who needs a row that goes."""
    patch.setattr(collect.Collecting, "_holders", _nothing)


def keeps_the_name_on_a_parent(patch: Patch) -> None:
    """Keep rows for others as they are."""
    patch.setattr(collect.Collecting, "_kept_for_others", lambda *_: None)


def forgets_the_second_owner(patch: Patch) -> None:
    """Let a row of two go with the first of them."""
    patch.setattr(collect.Collecting, "_held", _nothing)


def takes_what_hangs_on_a_shared_row(patch: Patch) -> None:
    """Let what hangs on a shared row go with the first who leaves."""
    patch.setattr(shape.Shape, "follows_by", lambda *_: False)


def takes_a_ghost_for_a_person(patch: Patch) -> None:
    """Keep a row for its ghost."""
    patch.setattr(StoreMap, "ghosts", property(lambda _: frozenset()))


# -- what is overwritten


def forgets_mentions(patch: Patch) -> None:
    """Leave names in rows of others."""
    patch.setattr(compile._Compiler, "_mentions", lambda *_: ((), ()))


def overwrites_one_field_less(patch: Patch) -> None:
    """Leave the last field of those that are to be overwritten."""
    assignments = collect.assignments

    def fewer(table: Table, columns: Iterable[Column], shape: Shape) -> str:
        every = list(columns)
        return assignments(table, every[:-1] or every, shape)

    patch.setattr(collect, "assignments", fewer)
    patch.setattr(compile, "assignments", fewer)


def overwrites_with_another_value(patch: Patch) -> None:
    """Write another text than the map says."""
    written = sql.written

    def other(constant: object, *rest: Any) -> str:
        return written(constant + "!" if isinstance(constant, str) else constant, *rest)  # type: ignore[arg-type]  # as the planner calls it

    patch.setattr(collect, "written", other)


def empties_arrays(patch: Patch) -> None:
    """Take everybody out of an array."""
    without = sql.without

    def empty(column: str, within: Within, listed: str) -> str:
        return "'{}'" if within.keys is None else without(column, within, listed)

    patch.setattr(compile, "without", empty)


def leaves_elements(patch: Patch) -> None:
    """Take nobody out of an array or a document."""
    patch.setattr(compile, "without", lambda column, *_: column)


# -- exports and sweeps


def shows_what_is_redacted(patch: Patch) -> None:
    """Show everything to everybody."""
    exported = compile._Compiler._export

    def whole(compiler: Any, table: Table, reaches: Any, portable: Any) -> Any:  # noqa: ANN401 -- a plan, or none
        bare = [(rank, replace(link, redacted=()), reach) for rank, link, reach in reaches]
        return exported(compiler, table, bare, portable)

    patch.setattr(compile._Compiler, "_export", whole)


def shows_accessors_nothing(patch: Patch) -> None:
    """Give rows to their owners only."""
    exported = compile._Compiler._export

    def owners(compiler: Any, table: Table, reaches: Any, portable: Any) -> Any:  # noqa: ANN401 -- a plan, or none
        return exported(compiler, table, [each for each in reaches if each[1].role.value != "accessor"], portable)

    patch.setattr(compile._Compiler, "_export", owners)


def sweeps_what_others_need(patch: Patch) -> None:
    """Let rows go that others refer to."""
    patch.setattr(purge._Aged, "_unreferenced", lambda *_: [])


def sweeps_too_early(patch: Patch) -> None:
    """Let rows go that are exactly as old as the cutoff."""
    edge_of = sweeping.edge_of
    patch.setattr(sweeping, "edge_of", lambda kind, cutoff, zone: edge_of(kind, _later(cutoff), zone))


def _later(cutoff: datetime) -> datetime:
    return cutoff + timedelta(seconds=1)


def goes_parents_first(patch: Patch) -> None:
    """Delete what others refer to before them."""
    children_first = paths.children_first
    patch.setattr(shape, "children_first", lambda tables, references: children_first(tables, references)[::-1])


# -- the check


def does_not_ask_who_refers(patch: Patch) -> None:
    """Ask nothing of foreign keys into rows that go."""
    patch.setattr(references, "_survivable", _nothing)


def does_not_ask_who_is_named(patch: Patch) -> None:
    """Ask nothing of columns that name people."""
    patch.setattr(references, "_mentions", _nothing)
    patch.setattr(references, "_survivable", _nothing)


def believes_in_nobodys_tables(patch: Patch) -> None:
    """Believe that a table holds nobody's data."""
    patch.setattr(references, "_claims_nobody", _nothing)
    patch.setattr(references, "_survivable", _nothing)


def takes_any_target(patch: Patch) -> None:
    """Let references lead to several rows."""
    patch.setattr(references, "_ambiguous", _nothing)


def lets_null_into_not_null(patch: Patch) -> None:
    """Let anonymisations write what the database refuses."""
    patch.setattr(constants, "_unfit", _nothing)


def forgets_unique_indexes(patch: Patch) -> None:
    """Write the same value into a unique column of many rows."""
    patch.setattr(constants, "_would_clash", lambda *_: False)


def overlooks_columns(patch: Patch) -> None:
    """Look at no column that the map lacks."""
    patch.setattr(listed, "_unlisted_columns", _nothing)


def overlooks_tables(patch: Patch) -> None:
    """Look at no table that the map lacks."""
    patch.setattr(listed, "_unmapped_tables", _nothing)


MUTANTS: Final = (
    Mutant(joins_by_one_column_alone, {Feature.COMPOSITE}),
    Mutant(ignores_conditions, {Feature.WHERE, Feature.POLYMORPHIC}),
    Mutant(takes_null_for_no_value, {Feature.WHERE}),
    Mutant(knows_one_link_alone, {Feature.EDGES}),
    Mutant(compares_case, {Feature.MATCH, Feature.CASELESS}),
    Mutant(forgets_what_goes_along, {Feature.DELETE_WITH_PARENT, Feature.SELF_REFERENCE}),
    Mutant(goes_along_one_step, {Feature.DELETE_WITH_PARENT, Feature.SELF_REFERENCE}),
    Mutant(forgets_to_let_go, {Feature.DETACH, Feature.SELF_REFERENCE}),
    Mutant(keeps_no_parent, {Feature.KEEP_PARENT, Feature.SELF_REFERENCE}),
    Mutant(keeps_the_name_on_a_parent, {Feature.KEEP_PARENT, Feature.SELF_REFERENCE}),
    Mutant(forgets_the_second_owner, {Feature.CO_OWNER}),
    Mutant(takes_what_hangs_on_a_shared_row, {Feature.CO_OWNER}),
    Mutant(takes_a_ghost_for_a_person, {Feature.CO_OWNER, Feature.GHOST}),
    Mutant(forgets_mentions),
    Mutant(overwrites_one_field_less),
    Mutant(overwrites_with_another_value),
    Mutant(empties_arrays, {Feature.ARRAYS}),
    Mutant(leaves_elements, {Feature.ARRAYS, Feature.JSON}),
    Mutant(shows_what_is_redacted, {Feature.EDGES, Feature.CO_OWNER}),
    Mutant(shows_accessors_nothing, {Feature.EDGES, Feature.ARRAYS}),
    Mutant(sweeps_what_others_need),
    Mutant(sweeps_too_early),
    Mutant(goes_parents_first),
    Mutant(does_not_ask_who_refers, _WORDS),
    Mutant(does_not_ask_who_is_named),
    Mutant(believes_in_nobodys_tables),
    Mutant(takes_any_target, {Feature.COMPOSITE}),
    Mutant(lets_null_into_not_null),
    Mutant(forgets_unique_indexes),
    Mutant(overlooks_columns),
    Mutant(overlooks_tables),
)
