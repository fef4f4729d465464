"""Reading a data map: files → models → tables with every default, name and path resolved; all problems at once."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from habeas.datamap.explain import one_of
from habeas.datamap.map.dataset import (
    IDENTITY,
    REVIEW,
    Action,
    CollectionNotes,
    Dataset,
    DatasetCollection,
    DatasetFile,
    LinkNotes,
    Portable,
    Role,
)
from habeas.datamap.map.links import LinkReading
from habeas.datamap.map.listing import UNDECIDED, Collections, conditions, identities
from habeas.datamap.map.model import Age, Column, DataMap, Kept, Place, StoreMap, Table, names, yaml_files
from habeas.datamap.map.paths import (
    CYCLE,
    NOTHING_LEADS,
    SEVERAL_LEAD,
    Join,
    NoPath,
    PathFinder,
    Reference,
    Said,
    SubjectPath,
    Ways,
)
from habeas.datamap.map.references import read_references
from habeas.datamap.policy.model import Policy
from habeas.datamap.policy.retention import CountsFrom, WhileOpen
from habeas.datamap.source import ConfigurationError, Problem, load_yaml, validate

AGE_OF_PARENT = "parent"


def load_datamap(directory: Path, policy: Policy) -> DataMap:
    """Read every dataset file of a directory (or one file) against a policy.

    Datasets that name the same store are schemas of it. Raises ConfigurationError with everything that is wrong, also where a draft
    still says REVIEW.
    """
    directory = Path(directory)
    if not directory.exists() or not (files := yaml_files(directory)):
        what, write = "no data map is here", "the path of a directory with dataset files (`*.yaml`)"
        raise ConfigurationError([Problem(directory, 1, "", what, write)])
    problems: list[Problem] = []
    datasets: dict[str, list[tuple[Dataset, Place]]] = {}
    for file in files:
        try:
            located = load_yaml(file)
            model = validate(DatasetFile, located)
        except ConfigurationError as error:
            problems += error.problems
            continue
        for index, dataset in enumerate(model.dataset):
            datasets.setdefault(dataset.habeas.store, []).append((dataset, Place(located, ("dataset", index))))
    stores: dict[str, StoreMap] = {}
    for name, schemas in datasets.items():
        listed = Collections(schemas, policy)
        stores[name] = _StoreReading(listed).store()
        problems += listed.problems
    if stores and not problems and not any(store.has_root for store in stores.values()):
        what = "no store of this map has a root, so nobody could say who has an account"
        first = next(iter(stores.values()))
        problems.append(first.place.problem(what, "`root: COLLECTION` on the store with the table of people", "habeas"))
    if problems:
        raise ConfigurationError(problems)
    return DataMap({name: replace(store, elsewhere=_elsewhere(store, stores)) for name, store in stores.items()})


def _elsewhere(store: StoreMap, stores: Mapping[str, StoreMap]) -> frozenset[str]:
    others = [each for each in stores.values() if each is not store and each.connection == store.connection]
    return frozenset(table if "." in table else f"{each.schema}.{table}" for each in others for table in each.tables)


class _StoreReading:
    """One walk over the collections of a store, which collects tables and problems together."""

    def __init__(self, listed: Collections) -> None:
        self.listed = listed
        self.references = read_references(listed)
        self.target = listed.root()
        self.links = LinkReading(listed, self.references, self.target)

    def store(self) -> StoreMap:
        notes = self.listed.dataset.habeas
        root, identity = self.target
        where = {name: conditions(each.habeas.where) for name, each in self.listed.collections.items()}
        spelled = {
            name: tuple(self.links.said(name))
            for name, collection in self.listed.collections.items()
            if collection.habeas.links
        }
        ways = {
            name: Ways(
                tuple(identities(collection)),
                self.references[name],
                collection.habeas.path,
                tuple(said for said, _ in spelled.get(name, ())),
            )
            for name, collection in self.listed.collections.items()
            if collection.habeas.personal and collection.habeas.materialised is None
        }
        finder = PathFinder(ways, root, identity, where)
        is_judged = bool(root) or self.listed.is_without_root
        tables = {
            name: self._table(name, finder, spelled.get(name), is_rooted=is_judged) for name in self.listed.collections
        }
        for table in list(tables.values()):
            tables[table.name] = self._with_inherited_age(table, tables)
        for table in tables.values():
            self._require_end(table, tables)
        if self.listed.is_without_root and not any(table.links for table in tables.values()):
            what = "nothing in this store leads to a person"
            write = f"`identity: {IDENTITY}` on a column that holds the account id, or no dataset for this store"
            self.listed.problems.append(self.listed.place.problem(what, write))
        return StoreMap(notes.store, notes.connection, notes.schema_name, root, identity, tables, self.listed.place)

    def _table(
        self,
        name: str,
        finder: PathFinder,
        spelled: Sequence[tuple[Said, LinkNotes]] | None,
        *,
        is_rooted: bool,
    ) -> Table:
        collection, at = self.listed.collections[name], self.listed.places[name]
        notes = collection.habeas
        self._judge(notes, at)
        self._judge_retention(name, at.at("habeas", "retention"))
        self._judge_collection_where(name, collection, at.at("habeas", "where"))
        paths: list[tuple[Said, LinkNotes, tuple[SubjectPath, ...]]] = []
        own: tuple[SubjectPath, ...] = ()
        if is_rooted and spelled is not None:
            for said, link in spelled:
                found = finder.along(name, said)
                if isinstance(found, NoPath):
                    self._tell(name, found, at.at("habeas", "links", said.name))
                else:
                    paths.append((said, link, found))
        elif is_rooted and notes.personal and notes.materialised is None:
            ways = finder.ways(name)
            if isinstance(ways, NoPath):
                self._tell(name, ways, at)
            else:
                own = ways
        columns = tuple(
            self._column(name, index, has_path=bool(own or paths)) for index in range(len(collection.fields))
        )
        links = self.links.spelled(name, columns, paths) if paths else self.links.own(name, columns, own)
        erasure = self.links.erasure(name, columns)
        return Table(
            name=name,
            personal=notes.personal and notes.materialised is None,
            category=notes.category,
            columns=columns,
            key=tuple(field.name for field in collection.fields if field.fides_meta and field.fides_meta.primary_key),
            links=links,
            erasure=erasure,
            retention=notes.retention,
            age=self._age(name, next((link.paths[0] for link in links), None)),
            partitioned=notes.partitioned is not None,
            references=self._references(name, spelled or ()),
            place=at,
            triggers=notes.triggers,
            materialised=notes.materialised is not None,
            reason=notes.reason,
        )

    def _references(self, name: str, spelled: Sequence[tuple[Said, LinkNotes]]) -> tuple[Reference, ...]:
        """References of a table; one by which a link goes holds where that link does."""
        told: list[Reference] = []
        for reference in self.references[name]:
            using = [said for said, _ in spelled if said.by == reference]
            shared = self.listed.collections[name].habeas.where
            is_one_of_several = any(
                each is not reference and not set(each.columns).isdisjoint(reference.columns)
                for each in self.references[name]
            )
            where = using[0].where if len(using) == 1 and is_one_of_several else ()
            told.append(replace(reference, where=(*where, *(conditions(shared) if where else ()))))
        return tuple(told)

    def _tell(self, name: str, path: NoPath, at: Place) -> None:
        """Say why rows of a collection cannot be brought to a person."""
        notes = self.listed.collections[name].habeas
        if path.reason == NOTHING_LEADS:
            if notes.on_erasure is not Action.NONE:
                what = f"nothing leads from `{name}` to a person"
                write = (
                    f"`references` on a field that leads there, `identity: {IDENTITY}` on one that holds the account id, or "
                    "`personal: false` with a `reason`"
                )
                self.listed.problems.append(at.problem(what, write))
        elif path.reason == SEVERAL_LEAD:
            what = f"several fields of `{name}` lead to a person: {names(path.columns)}"
            write = f"`path: {path.columns[0]}` (the one whose person the row belongs to), or `links` where it belongs to several"
            self.listed.problems.append(at.problem(what, write, "habeas"))
        elif path.reason == CYCLE:
            what = f"references go in a circle: {' → '.join(path.columns)}"
            self.listed.problems.append(at.problem(what, "a reference that leads to the root"))
        else:
            what = f"the field `{notes.path}` doesn't lead to a person"
            self.listed.problems.append(at.problem(what, one_of(notes.path or "", path.columns), "habeas", "path"))

    def _judge(self, notes: CollectionNotes, at: Place) -> None:
        """Whether the keys of one collection fit together."""
        wrong: list[tuple[str, str]] = []
        if not notes.personal and notes.reason is None:
            wrong.append(("`personal: false` stands without a reason", "`reason: …` beside it"))
        if not notes.personal and notes.on_erasure is not None:
            wrong.append(("a table without personal data has no `on_erasure`", "`personal: false` and `reason` alone"))
        if notes.materialised is not None and notes.on_erasure is not None:
            wrong.append(
                (
                    "a materialised view is filled anew, row by row nothing happens to it",
                    "`materialised: refresh` alone",
                )
            )
        is_said = bool(notes.links) and all(
            each.on_erasure is not None or each.role is Role.ACCESSOR or each.in_ is not None
            for each in notes.links.values()
        )
        if notes.personal and notes.on_erasure is None and notes.materialised is None and not is_said:
            write = "`on_erasure: delete`, `anonymise`, `{keep: GROUND, until: CLASS}` or `none`"
            wrong.append(("what an erasure does is missing", write))
        silent = [each for each in notes.links.values() if each.on_erasure is Action.NONE and each.reason is None]
        if (notes.on_erasure is Action.NONE or silent) and notes.reason is None:
            wrong.append(("`on_erasure: none` stands without a reason", "`reason: …` beside it"))
        if notes.retention is None and (notes.age or notes.partitioned):
            wrong.append(
                ("`age` and `partitioned` mean nothing without a retention class", "`retention: CLASS` beside it")
            )
        self.listed.problems += [at.problem(what, write, "habeas") for what, write in wrong]
        if notes.reason == REVIEW:
            self.listed.problems.append(at.problem(UNDECIDED, "the reason", "habeas", "reason"))
        if notes.path == REVIEW:
            self.listed.problems.append(
                at.problem(UNDECIDED, "the field whose person a row belongs to", "habeas", "path")
            )
        if notes.on_erasure == REVIEW:
            write = "`delete`, `anonymise`, `{keep: GROUND, until: CLASS}` or `none`"
            self.listed.problems.append(at.problem(UNDECIDED, write, "habeas", "on_erasure"))
        self.listed.is_known(
            "retention class", notes.retention, list(self.listed.policy.retention), at.at("habeas", "retention")
        )
        self.listed.is_known(
            "category", notes.category, list(self.listed.policy.categories), at.at("habeas", "category")
        )

    def _judge_retention(self, name: str, at: Place) -> None:
        """Whether a class can come to its end here; that of an account can't where only another store knows accounts."""
        word = self.listed.collections[name].habeas.retention
        if self.listed.is_without_root and isinstance(self.listed.policy.retention.get(word or ""), WhileOpen):
            what = f"rows of `{name}` would never go by `{word}`: only the store of the root knows when an account was closed"
            self.listed.problems.append(at.problem(what, "a class of the form `{for: 90d}`, and `age: COLUMN`"))

    def _judge_collection_where(self, name: str, collection: DatasetCollection, at: Place) -> None:
        """Whether the condition of one collection can tell whose rows are a person's."""
        where = collection.habeas.where
        if where and (name == self.target[0] or not collection.habeas.personal):
            what = "a condition tells whose rows of a table are a person's; here all of them are, or none"
            self.listed.problems.append(at.problem(what, "no `where`"))
        self.listed.judge_where(name, where, at)

    def _column(self, name: str, index: int, *, has_path: bool) -> Column:
        collection = self.listed.collections[name]
        field, at = collection.fields[index], self.listed.places[name].at("fields", index)
        if field.name in {each.name for each in collection.fields[:index]}:
            self.listed.problems.append(at.problem(f"`{field.name}` is listed twice", "each field once", "name"))
        category = field.habeas.category or collection.habeas.category
        if field.habeas.category and collection.habeas.personal:
            self.listed.is_known("category", category, list(self.listed.policy.categories), at.at("habeas", "category"))
        elif category is None and has_path:
            what = f"`{field.name}` has no category"
            self.listed.problems.append(
                at.problem(what, f"`category: …` under `habeas` of `{collection.name}` or of the field")
            )
        if field.habeas.anonymise == REVIEW:
            what = "what the field becomes, `null` or a value, or `when_parent_goes` instead"
            self.listed.problems.append(at.problem(UNDECIDED, what, "habeas", "anonymise"))
        known = self.listed.policy.categories.get(category) if category else None
        default = Portable(known.portable) if known else Portable.NO
        return Column(
            name=field.name,
            category=category,
            export=field.habeas.export or collection.habeas.export,
            portable=field.habeas.portable or default,
            anonymises=field.habeas.anonymises,
            constant=field.habeas.anonymise,
            contact=field.habeas.contact,
            place=at,
            large_object=field.habeas.large_object,
        )

    def _require_end(self, table: Table, tables: Mapping[str, Table]) -> None:
        """Kept rows must go one day, also when what the erasure deletes is gone."""
        kept, notes = table.erasure, self.listed.collections[table.name].habeas
        retention = self.listed.policy.retention.get(notes.retention or "")
        if not isinstance(kept, Kept) or retention is None:
            return
        at = table.place.at("habeas")
        if isinstance(retention, WhileOpen):
            what = (
                f"`{notes.retention}` ends with the account, which the erasure takes away: the kept rows would never go"
            )
            self.listed.problems.append(at.problem(what, "a class of the form `{for: 10y}`", "retention"))
        elif table.age is None and notes.age is None:
            what = f"the kept rows would never go: nothing says from when `{notes.retention}` runs"
            self.listed.problems.append(at.problem(what, "`age: COLUMN` beside `on_erasure`", "on_erasure"))
        if retention.ground is not None and retention.ground is not kept.ground:
            what = f"people would be told `{kept.ground}`, but `{notes.retention}` is kept under `{retention.ground}`"
            self.listed.problems.append(at.problem(what, f"`keep: {retention.ground}`", "on_erasure", "keep"))
        holder = table
        for join in self._lineage(table.path) if table.age is not None else ():
            if table.age is None or holder.name == table.age.table:
                break
            lost = {own for own, _ in join.on} & {column.name for column in holder.blanked}
            holder = tables[join.table]
            if lost or holder.erasure is Action.DELETE:
                what = f"the kept rows would never go: their age is in `{table.age.table}`, to which an erasure leaves no way"
                self.listed.problems.append(at.problem(what, f"a column of `{table.name}`", "age"))
                break

    def _age(self, name: str, path: SubjectPath | None) -> Age | None:
        collection = self.listed.collections[name]
        if collection.habeas.age is None:
            return None
        at = self.listed.places[name].at("habeas", "age")
        table, _, column = collection.habeas.age.rpartition(".")
        ancestors = [join.table for join in self._lineage(path)]
        if table == AGE_OF_PARENT and table not in ancestors and ancestors:
            table = ancestors[0]
        table = (self.listed.called(table, name) or table) if table else name
        if table not in {name, *ancestors}:
            what = f"`{table}` doesn't stand on the path from `{name}` to a person"
            self.listed.problems.append(at.problem(what, one_of(table, ancestors)))
            return None
        fields = [field.name for field in self.listed.collections[table].fields]
        if column not in fields:
            self.listed.problems.append(at.problem(f"`{table}` has no field `{column}`", one_of(column, fields)))
            return None
        retention = self.listed.policy.retention.get(collection.habeas.retention or "")
        is_of_account = retention is not None and retention.counts_from is CountsFrom.ACCOUNT_CLOSED
        if is_of_account and self.target[0] not in {"", table}:
            what = (
                f"`{collection.habeas.retention}` counts from the closing of the account, not from `{table}.{column}`"
            )
            self.listed.problems.append(
                at.problem(what, f"the column of `{self.target[0]}` that says when it was closed")
            )
        return Age(table, column)

    def _lineage(self, path: SubjectPath | None) -> tuple[Join, ...]:
        return path.lineage(*self.target) if path else ()

    def _with_inherited_age(self, table: Table, tables: Mapping[str, Table]) -> Table:
        """A table that has no age of its own ages with the nearest table on its path that has the same class."""
        if table.age is not None or table.retention is None:
            return table
        for join in self._lineage(table.path):
            parent = tables[join.table]
            if parent.retention == table.retention and parent.age is not None:
                return replace(table, age=parent.age)
        return table
