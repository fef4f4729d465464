"""References of a store's collections: which fields refer together to which row of which other table."""

from collections.abc import Iterator, Sequence

from habeas.datamap.explain import PathPart, one_of
from habeas.datamap.map.dataset import IDENTITY, REVIEW, Constant, DatasetField, Detach, Match, WhenParentGoes
from habeas.datamap.map.dataset import Reference as FidesReference
from habeas.datamap.map.listing import UNDECIDED, Collections
from habeas.datamap.map.paths import Reference


def read_references(listed: Collections) -> dict[str, tuple[Reference, ...]]:
    """References of every collection; those that can't be followed are problems."""
    reading = _ReferenceReading(listed)
    return {name: tuple(reading.of(name)) for name in listed.collections}


class _ReferenceReading:
    """One walk over the fields of a store."""

    def __init__(self, listed: Collections) -> None:
        self.listed = listed

    def of(self, name: str) -> Iterator[Reference]:
        """References of one collection: fields that refer to different columns of one table are one."""
        groups: dict[tuple[str, str], list[tuple[DatasetField, str, int]]] = {}
        for index, field in enumerate(self.listed.collections[name].fields):
            for number, reference in enumerate((field.fides_meta and field.fides_meta.references) or ()):
                if reference.direction == "to":
                    continue
                target = self._target_of(name, field, reference, ("fields", index, "fides_meta", "references", number))
                if target is not None:
                    for group in _names(field.habeas.reference):
                        groups.setdefault((target[0], group), []).append((field, target[1], index))
            yield from self._by_value(name, field)
        for (to_table, group), pairs in groups.items():
            columns = [theirs for _, theirs, _ in pairs]
            repeated = sorted({each for each in columns if columns.count(each) > 1})
            if group or not repeated:
                if repeated:
                    what = f"two fields of the reference `{group}` refer to `{to_table}.{repeated[0]}`"
                    self.listed.problems.append(
                        self.listed.places[name].problem(what, "another `reference` on one of them", "fields")
                    )
                yield self._reference(name, to_table, pairs)
            elif set(columns) == set(repeated):
                for pair in pairs:
                    yield self._reference(name, to_table, [pair])
            else:
                what = f"it can't be told which fields of `{name}` refer to `{to_table}` together"
                write = "`habeas: {reference: NAME}` on each, with the same name on those that belong together"
                self.listed.problems.append(self.listed.places[name].problem(what, write, "fields"))

    def _by_value(self, name: str, field: DatasetField) -> Iterator[Reference]:
        """A field with another kind of identity refers to the field of the root that has it."""
        kind = field.fides_meta.identity if field.fides_meta else None
        root = self.listed.dataset.habeas.root
        if (
            kind in {None, IDENTITY}
            or root not in self.listed.collections
            or name == root
            or self._has_reference(field)
        ):
            return
        for theirs in self.listed.collections[root].fields:
            if theirs.fides_meta and theirs.fides_meta.identity == kind:
                yield self._reference(name, root, [(field, theirs.name, 0)])

    @staticmethod
    def _has_reference(field: DatasetField) -> bool:
        return any(each.direction != "to" for each in (field.fides_meta and field.fides_meta.references) or ())

    def _target_of(
        self, name: str, field: DatasetField, reference: FidesReference, path: tuple[PathPart, ...]
    ) -> tuple[str, str] | None:
        at = self.listed.places[name].at(*path)
        dataset = self.listed.keys.get(reference.dataset)
        table, column = reference.field.split(".")
        if dataset is None:
            what = f"`{field.name}` refers to a dataset of another store, which no join can reach"
            write = f"`identity: {IDENTITY}` on a column that holds the account id itself"
            self.listed.problems.append(at.problem(what, write, "dataset"))
            return None
        full = self.listed.full_name(table, dataset)
        if full not in self.listed.collections:
            what = f"`{field.name}` refers to `{table}`, which is no collection here"
            self.listed.problems.append(at.problem(what, one_of(table, self.listed.collections), "field"))
            return None
        fields = [each.name for each in self.listed.collections[full].fields]
        if column not in fields and self.listed.collections[full].habeas.personal:
            what = f"`{field.name}` refers to `{reference.field}`, which is no field of it"
            self.listed.problems.append(at.problem(what, one_of(column, fields), "field"))
            return None
        return full, column

    def _reference(self, name: str, to_table: str, pairs: Sequence[tuple[DatasetField, str, int]]) -> Reference:
        said: WhenParentGoes | None = None
        detached: list[tuple[str, Constant]] = []
        for field, _, index in pairs:
            word = field.habeas.when_parent_goes
            if word is None:
                continue
            at = self.listed.places[name].at("fields", index, "habeas", "when_parent_goes")
            if word == REVIEW:
                self.listed.problems.append(at.problem(UNDECIDED, "`detach`, `delete` or `keep_parent`"))
                continue
            this = WhenParentGoes.DETACH if isinstance(word, Detach) else WhenParentGoes(word)
            if said not in {None, this}:
                what = f"the fields of one reference to `{to_table}` say different things"
                self.listed.problems.append(at.problem(what, "one of them"))
            said = this
            if this is WhenParentGoes.DETACH:
                detached.append((field.name, word.detach.to if isinstance(word, Detach) else None))
        return Reference(
            name,
            tuple((field.name, theirs) for field, theirs, _ in pairs),
            to_table,
            any(field.habeas.match is Match.CASE_INSENSITIVE for field, _, _ in pairs),
            said,
            tuple(detached),
        )


def _names(given: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if given is None:
        return ("",)
    return (given,) if isinstance(given, str) else given
