"""Which tables can be erased by their way to a person alone, which have to be looked through first, and the order of all of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from habeas.datamap.catalogue.schema import ForeignKey, LiveSchema
from habeas.datamap.map.dataset import Role, WhenParentGoes
from habeas.datamap.map.model import Link, StoreMap, Table
from habeas.datamap.map.paths import Pairs, Reference, ReferenceCycleError, SubjectPath, children_first
from habeas.datamap.planner.plan import PlanError
from habeas.datamap.planner.sql import Names, Reach

LOOSENS = frozenset({"set null", "set default"})


@dataclass(frozen=True)
class Shape:
    """A store's map against its live schema, as far as it decides how rows go."""

    store: StoreMap
    live: LiveSchema

    @cached_property
    def incoming(self) -> Mapping[str, tuple[Reference, ...]]:
        """References that the map states, by the table to which they lead."""
        found: dict[str, tuple[Reference, ...]] = {}
        for each in self.store.references:
            found[each.to_table] = (*found.get(each.to_table, ()), each)
        return found

    @cached_property
    def shared(self) -> frozenset[str]:
        """Tables whose rows may belong to several people together, or hang on such a row."""
        found: set[str] = set()
        grown = True
        while grown:
            grown = False
            for table in self.store.personal:
                if table.name not in found and any(self._is_shared(link, found) for link in table.owning):
                    found.add(table.name)
                    grown = True
        return frozenset(found)

    def _is_shared(self, link: Link, shared: set[str]) -> bool:
        if link.role is Role.CO_OWNER:
            return True
        return any(path.joins and not path.joins[0].is_down and path.joins[0].table in shared for path in link.paths)

    @cached_property
    def collected(self) -> frozenset[str]:
        """Tables whose rows are looked for before any is changed, since no way of their own tells which of them go."""
        found = {table.name for table in self.store.tables.values() if self._is_hard(table)}
        grown = True
        while grown:
            grown = False
            for table in self.store.personal:
                ways = (path for link in table.links if not link.is_mention for path in link.paths)
                if table.name not in found and any(not found.isdisjoint(path.tables[1:]) for path in ways):
                    found.add(table.name)
                    grown = True
        return frozenset(found)

    def _is_hard(self, table: Table) -> bool:
        if any(path.within is not None for link in table.owning for path in link.paths):
            return True
        changing = [link for link in table.links if not link.is_mention and (link.deletes or link.blanked)]
        paths = [path for link in changing for path in link.paths]
        if (
            len(paths) > 1
            or any(path.has_down for path in paths)
            or any(link.role is Role.CO_OWNER for link in changing)
        ):
            return True
        if any(each.when_parent_goes is WhenParentGoes.DELETE for each in table.references):
            return True
        if not table.links:
            return False
        holds = any(each.when_parent_goes is WhenParentGoes.KEEP_PARENT for each in table.references)
        if holds or any(each.when_parent_goes is not None for each in self.incoming.get(table.name, ())):
            return True
        return table.deletes and any(
            each.when_parent_goes is WhenParentGoes.DETACH and self.level(table.name) >= self.level(each.to_table)
            for each in table.references
        )

    def follows(self, reference: Reference) -> bool:
        """Whether rows go because the row goes that they refer to, as the map says or since that one is shared."""
        if reference.when_parent_goes is not None:
            return reference.when_parent_goes is WhenParentGoes.DELETE
        child = self.store.tables[reference.table]
        return reference.to_table in self.shared and any(
            link.deletes
            and path.joins
            and path.joins[0].on == reference.on
            and path.joins[0].table == reference.to_table
            for link in child.owning
            for path in link.paths
        )

    def reach(self, names: Names, path: SubjectPath, letter: str = "t") -> Reach:
        """Return the way of one path with the type of the ids at its end; ids in JSON are compared as texts."""
        kind = self.live.type_of(path.tables[-1], path.subject_column) or ""
        if path.within is None:
            return Reach(names, path, kind, letter)
        if path.within.keys is not None:
            return Reach(names, path, "text", letter, is_json=kind == "json")
        return Reach(names, path, kind.removesuffix("[]"), letter)

    def follows_by(self, link: Link) -> bool:
        """Whether the rows of a link go only with the shared row on which they hang."""
        first = [path.joins[0] for path in link.paths if path.joins]
        return any(not join.is_down and join.table in self.shared for join in first)

    def level(self, table: str) -> int:
        """Number of the layer in which a table is erased."""
        return self._levels.get(table, -1)

    @cached_property
    def _levels(self) -> Mapping[str, int]:
        return {name: level for level, layer in enumerate(self.layers) for name in layer}

    @cached_property
    def layers(self) -> tuple[tuple[str, ...], ...]:
        """Every mapped table in layers, children first; raises PlanError where references go in a circle."""
        try:
            return children_first(self.store.tables, self._order())
        except ReferenceCycleError as error:
            what = f"references go in a circle: {error}"
            write = "`habeas: {when_parent_goes: detach}` on a field of one of these references"
            raise PlanError([self.store.tables[error.tables[0]].place.problem(what, write)]) from None

    @cached_property
    def by_age(self) -> tuple[str, ...]:
        """Every mapped table in the order in which a sweep visits them: rows stay until nothing refers to them, so children first."""
        everything = [
            *self.store.references,
            *(Reference(key.table, pairs(key), key.to_table) for key in self.live.foreign_keys),
        ]
        try:
            layers = children_first(self.store.tables, everything)
        except ReferenceCycleError:
            layers = self.layers
        return tuple(name for layer in layers for name in layer)

    def _order(self) -> Iterator[Reference]:
        """Give what has to be regarded: ways that a statement follows, and foreign keys that would forbid to delete."""
        for table in self.store.personal:
            for link in table.links:
                for path in link.paths:
                    before = table.name
                    for join in path.joins:
                        if join.is_down:
                            break
                        yield Reference(before, join.on, join.table)
                        before = join.table
        for key in self.live.foreign_keys:
            parent = self.store.tables.get(key.to_table)
            if parent is None or not parent.deletes or (key.on_delete in LOOSENS and not self._is_needed(key)):
                continue
            stated = self.stated(key)
            if stated is None or stated.when_parent_goes is not WhenParentGoes.DETACH:
                yield Reference(key.table, pairs(key), key.to_table)

    def _is_needed(self, key: ForeignKey) -> bool:
        """Whether a table has to be looked at before the database itself lets go of what it refers to."""
        child = self.store.tables.get(key.table)
        if child is None:
            return False
        used = {column for link in child.links for path in link.paths for column in path.own_columns}
        used |= {column.name for column in (*child.blanked, *child.mentions)}
        return not used.isdisjoint(key.columns)

    def stated(self, key: ForeignKey) -> Reference | None:
        """Return the reference of the map that says the same as a foreign key."""
        child = self.store.tables.get(key.table)
        wanted = set(pairs(key))
        return next(
            (
                each
                for each in (child.references if child is not None else ())
                if each.to_table == key.to_table and set(each.on) == wanted
            ),
            None,
        )

    def enforced(self, reference: Reference) -> ForeignKey | None:
        """Return the foreign key that says the same as a reference of the map."""
        return next(
            (
                key
                for key in self.live.foreign_keys
                if (key.table, key.to_table) == (reference.table, reference.to_table)
                and set(pairs(key)) == set(reference.on)
            ),
            None,
        )

    def references_to(self, name: str) -> list[Reference]:
        """References to a table, of the map and of the database, each once."""
        enforced = (key for key in self.live.foreign_keys if key.to_table == name and self.stated(key) is None)
        return [*self.incoming.get(name, ()), *(Reference(key.table, pairs(key), key.to_table) for key in enforced)]


def pairs(key: ForeignKey) -> Pairs:
    """Columns of a foreign key, each with the one that it refers to."""
    return tuple(zip(key.columns, key.to_columns, strict=True))
