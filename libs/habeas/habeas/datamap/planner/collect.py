"""Statements for tables whose rows are looked for before any is changed: shared rows, threads, both ends of an edge, a parent's side."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from habeas.contracts.vocabulary import TableResult
from habeas.datamap.map.dataset import Action, Role, WhenParentGoes
from habeas.datamap.map.model import Column, Kept, Link, Table
from habeas.datamap.map.paths import Reference, Where
from habeas.datamap.planner.plan import CollectPlan, DetachPlan, FollowPlan, HolderPlan, Holding, LinkPlan
from habeas.datamap.planner.shape import LOOSENS, Shape
from habeas.datamap.planner.sql import (
    CASELESS,
    Names,
    Reach,
    any_of,
    conditions,
    equal,
    holds,
    ids,
    listed,
    literal,
    quoted,
    unwritten,
    words,
    written,
)
from habeas.datamap.source import Problem


@dataclass(frozen=True)
class Collecting:
    """Everything that the statements of one store's collected tables are made of."""

    shape: Shape
    names: Names
    problems: list[Problem]

    def plan(self, table: Table, reaches: Sequence[tuple[int, Link, Reach]], newest: str) -> CollectPlan | None:
        """Make the plan of one table; None, and a problem, where its rows have no key by which to find them again."""
        key = self._key(table)
        if not key:
            what = f"rows of `{table.name}` have to be found twice, but it has neither a primary key nor a unique one without nulls"
            self.problems.append(table.place.problem(what, "a primary key for the table"))
            return None
        return CollectPlan(
            table=table.name,
            columns=self._columns(table.name),
            key=len(key),
            found=self._found(table, reaches, newest),
            links=tuple(self._link(table, rank, link) for rank, link, _ in reaches),
            follows=tuple(self._follows(table)),
            holders=tuple(self._holders(table)) if table.deletes else (),
            detaches=tuple(self._detaches(table)) if table.deletes else (),
            delete=words(
                "DELETE FROM",
                self._own(table.name),
                "USING",
                self._given(table.name),
                conditions(self._same(table.name)),
            ),
            kept=self._kept_for_others(table),
        )

    def _key(self, table: Table) -> tuple[str, ...]:
        live = self.shape.live.tables.get(table.name)
        if live is None:
            return ()
        whole = [key for key in live.keys if all(live.columns[name].not_null for name in key)]
        return live.key or next(iter(whole), ())

    def _columns(self, name: str) -> tuple[str, ...]:
        """The key, and whatever else rows of other tables refer to it by."""
        key = self._key(self.shape.store.tables[name])
        more = [column for each in self.shape.references_to(name) for column in each.to_columns]
        return tuple(dict.fromkeys([*key, *more]))

    def _type(self, table: str, column: str) -> str:
        return self.shape.live.type_of(table, column) or "text"

    def _own(self, name: str) -> str:
        return words(self.names.of(name), "AS t0")

    def _given(self, name: str, parameter: int = 1) -> str:
        """Keys of rows of a table, as parameters."""
        key = self._key(self.shape.store.tables[name])
        return listed(parameter, [self._type(name, column) for column in key], [f"k{at}" for at in range(len(key))])

    def _same(self, name: str, alias: str = "t0") -> list[str]:
        key = self._key(self.shape.store.tables[name])
        return [words(quoted(alias, column), "=", f"d.k{at}") for at, column in enumerate(key)]

    @staticmethod
    def _texts(columns: Iterable[str]) -> list[str]:
        return [f"{quoted('t0', column)}::text" for column in columns]

    def _found(self, table: Table, reaches: Sequence[tuple[int, Link, Reach]], newest: str) -> str | None:
        ways = [(rank, reach) for rank, link, reach in reaches if not link.is_mention]
        if not ways:
            return None
        key = self._key(table)
        held = any_of(list(self._held(reaches))) if any(self._held(reaches)) else "false"
        given = [f"r.k{at}" for at in range(len(key))]
        on = [words(quoted("t0", column), "=", other) for column, other in zip(key, given, strict=True)]
        return words(
            "SELECT",
            ", ".join(
                ["r.id AS account_id", "r.ranks", f"{held} AS held", f"{newest} AS newest", *self._texts(self._columns(table.name))]
            ),
            "FROM (", reached(ways, key), ") AS r JOIN", self._own(table.name), "ON", " AND ".join(on), "FOR UPDATE OF t0",
        )  # fmt: skip

    def _held(self, reaches: Sequence[tuple[int, Link, Reach]]) -> Iterator[str]:
        """Conditions that somebody else than those asked for owns a row of t0 together with them."""
        ghosts = sorted(self.shape.store.ghosts)
        nobody = "ARRAY[" + ", ".join(literal(each) for each in ghosts) + "]::text[]"
        for _, link, reach in reaches:
            if link.role is not Role.CO_OWNER or reach.path.has_down:
                continue
            other = [f"{reach.subject} <> ALL({ids('$1', reach.subject_type)})"]
            if ghosts:
                other.append(f"{reach.subject}::text <> ALL({nobody})")
            found = conditions(reach.on, other).removeprefix("WHERE ")
            if reach.path.direct:
                yield f"(({found}) IS TRUE)"
            else:
                yield words("EXISTS ( SELECT FROM", ", ".join(reach.others), "WHERE", found, ")")

    def _link(self, table: Table, rank: int, link: Link) -> LinkPlan:
        goes = link.deletes and not link.is_mention and not self.shape.follows_by(link)
        stays = not link.deletes or link.role is Role.CO_OWNER
        is_change = bool(link.blanked) and stays and not link.is_mention
        change, left = self._change(table, link.blanked) if is_change else (None, None)
        result = TableResult.KEPT if isinstance(link.erasure, Kept) else None
        if (link.erasure is Action.ANONYMISE and not link.is_mention) or (link.deletes and is_change):
            result = TableResult.ANONYMISED
        return LinkPlan(rank, link.role is not Role.ACCESSOR, goes, link.role is Role.CO_OWNER, result, change, left)

    def _kept_for_others(self, table: Table) -> LinkPlan | None:
        keeps = any(
            each.when_parent_goes is WhenParentGoes.KEEP_PARENT for each in self.shape.incoming.get(table.name, ())
        )
        going = (link for link in table.owning if link.deletes)
        blanked = tuple({column.name: column for link in going for column in link.blanked}.values())
        if not keeps or not blanked:
            return None
        change, left = self._change(table, blanked)
        return LinkPlan(
            -1, owns=True, goes=False, is_shared=False, result=TableResult.ANONYMISED, change=change, left=left
        )

    def _change(self, table: Table, columns: Sequence[Column]) -> tuple[str, str]:
        still = any_of([unwritten(quoted("t0", column.name), column.constant) for column in columns])
        assigned = assignments(table, columns, self.shape)
        same = self._same(table.name)
        given = self._given(table.name)
        update = words("UPDATE", self._own(table.name), "SET", assigned, "FROM", given, conditions(same, still))
        left = words("SELECT count(*) FROM", self._own(table.name), ",", given, conditions(same, still))
        return update, left

    def _follows(self, table: Table) -> Iterator[FollowPlan]:
        for reference in table.references:
            if not self.shape.follows(reference) or reference.to_table not in self.shape.collected:
                continue
            where = reference.where or next(
                (
                    path.where
                    for link in table.owning
                    for path in link.paths
                    if reference.when_parent_goes is None and path.joins and path.joins[0].on == reference.on
                ),
                (),
            )
            of, given, on = self._referred(reference)
            chosen = ["d.n", *self._texts(self._columns(table.name))]
            from_ = words("FROM", given, "JOIN", self._own(table.name), "ON", " AND ".join(on))
            sql = words("SELECT", ", ".join(chosen), from_, conditions(holding(where)), "FOR UPDATE OF t0")
            yield FollowPlan(reference.to_table, of, sql)

    def _referred(self, reference: Reference) -> tuple[tuple[int, ...], str, list[str]]:
        """Numbers of the parent's columns that a reference needs, these as parameters, and the condition on t0."""
        columns = self._columns(reference.to_table)
        of = tuple(columns.index(theirs) for theirs in reference.to_columns)
        types = [self._type(reference.to_table, theirs) for theirs in reference.to_columns]
        given = listed(1, types, [f"k{at}" for at in range(len(of))])
        on = [
            equal(quoted("t0", own), f"d.k{at}", is_caseless=reference.is_caseless)
            for at, own in enumerate(reference.columns)
        ]
        return of, given, on

    def _holders(self, table: Table) -> Iterator[HolderPlan]:
        own = {
            (path.joins[0].table, frozenset(path.joins[0].on))
            for link in table.owning
            for path in link.paths
            if link.deletes and link.role is Role.CO_OWNER and path.joins and path.joins[0].is_down
        }
        for reference in self.shape.references_to(table.name):
            turned = frozenset((theirs, mine) for mine, theirs in reference.on)
            if reference.when_parent_goes is WhenParentGoes.KEEP_PARENT:
                yield HolderPlan(reference.table, self._holder(table, reference), Holding.ANYWAY)
            elif (reference.table, turned) in own:
                yield HolderPlan(reference.table, self._holder(table, reference), Holding.OWNER)
            elif own and not self._lets_go(reference):
                yield HolderPlan(reference.table, self._holder(table, reference), Holding.USER)

    def _lets_go(self, reference: Reference) -> bool:
        """Whether rows that refer by it go with the row, or let go of it."""
        key = self.shape.enforced(reference)
        is_loosened = key is not None and key.on_delete in LOOSENS
        return reference.when_parent_goes is not None or is_loosened or self.shape.follows(reference)

    def _holder(self, table: Table, reference: Reference) -> str:
        key = self._key(table)
        after = len(key) + 1
        chosen = ["d.n"]
        where: list[str] = [f"${after}::text[] IS NOT NULL", *holding(reference.where)]
        child = self.shape.store.tables.get(reference.table)
        is_collected = child is not None and reference.table in self.shape.collected
        if child is not None and is_collected:
            chosen += self._texts(self._key(child))
        for link in child.links if child is not None else ():
            is_cleared = not {column.name for column in link.blanked}.isdisjoint(reference.columns)
            if (link.deletes and not is_collected) or (is_cleared and not link.deletes):
                ways = (self.shape.reach(self.names, path) for path in link.paths)
                where += [words("NOT", way.leads_to_any_of(f"${after}")) for way in ways]
        on = [
            equal(quoted("t0", own), quoted("p", theirs), is_caseless=reference.is_caseless)
            for own, theirs in reference.on
        ]
        return words(
            "SELECT DISTINCT", ", ".join(chosen), "FROM", self._given(table.name), "JOIN", self.names.of(table.name),
            "AS p ON", " AND ".join(self._same(table.name, "p")), "JOIN", self._own(reference.table), "ON", " AND ".join(on),
            conditions(where),
        )  # fmt: skip

    def _detaches(self, table: Table) -> Iterator[DetachPlan]:
        for reference in self.shape.incoming.get(table.name, ()):
            if reference.when_parent_goes is not WhenParentGoes.DETACH:
                continue
            of, given, on = self._referred(reference)
            assigned = ", ".join(
                words(quoted(column), "=", literal(constant)) for column, constant in reference.detached
            )
            where = conditions(on, holding(reference.where))
            update = words("UPDATE", self._own(reference.table), "SET", assigned, "FROM", given, where)
            if reference.table in self.shape.collected:
                key = self._key(self.shape.store.tables[reference.table])
                update = words(update, "RETURNING", ", ".join(self._texts(key)))
            yield DetachPlan(reference.table, of, update)


def reached(ways: Sequence[tuple[int, Reach]], columns: Sequence[str]) -> str:
    """Rows of t0 by those columns (`k0`, …), with each account asked for (`id`) to which ways lead, and the ways' numbers (`ranks`)."""
    keys = [f"k{at}" for at in range(len(columns))]
    parts = [
        words(
            "SELECT",
            ", ".join(
                [f"{column_of(column)} AS {key}" for column, key in zip(columns, keys, strict=True)]
                + [words(account_text(reach), "AS id"), f"{rank} AS rank"]
            ),
            "FROM", reach.tables, conditions(reach.on, reach.is_one_of),
        )
        for rank, reach in ways
    ]  # fmt: skip
    given = ", ".join([*keys, "id"])
    together = " UNION ALL ".join(parts)
    return words(
        "SELECT", given, ", pg_catalog.array_agg(DISTINCT rank) AS ranks FROM (", together, ") AS w GROUP BY", given
    )


def column_of(column: str) -> str:
    """A column of t0, of the system's or of the table's own."""
    return f"t0.{column}" if column in {"tableoid", "ctid"} else quoted("t0", column)


def account_text(reach: Reach) -> str:
    """The account id as text, in one spelling where the column takes several for the same."""
    text = f"{reach.subject}::text"
    return f"pg_catalog.lower({text})" if reach.subject_type == CASELESS else text


def assignments(table: Table, columns: Iterable[Column], shape: Shape) -> str:
    """Assignments of an anonymisation."""
    live = shape.live.tables.get(table.name)
    key = [quoted("t0", name) for name in (live.key if live is not None else ())]
    return ", ".join(
        words(
            quoted(column.name),
            "=",
            written(column.constant, shape.live.type_of(table.name, column.name) or "text", key),
        )
        for column in columns
    )


def holding(where: Where) -> list[str]:
    """Conditions on t0."""
    return list(holds("t0", where))
