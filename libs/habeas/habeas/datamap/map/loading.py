"""Reading a data map: files → models → tables with every default, name and path resolved; all problems at once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from habeas.contracts.vocabulary import KeepGround
from habeas.datamap.explain import one_of
from habeas.datamap.map.dataset import (
    IDENTITY,
    NO_ROOT,
    REVIEW,
    Action,
    CollectionNotes,
    Dataset,
    DatasetCollection,
    DatasetFile,
    Keep,
    Portable,
)
from habeas.datamap.map.model import Age, Column, DataMap, Kept, Place, StoreMap, Table, names, yaml_files
from habeas.datamap.map.paths import (
    CYCLE,
    NOTHING_LEADS,
    SEVERAL_LEAD,
    Edge,
    Join,
    Links,
    NoPath,
    ReferenceCycleError,
    SubjectPath,
    Where,
    children_first,
    find_paths,
)
from habeas.datamap.policy.model import Policy
from habeas.datamap.policy.retention import CountsFrom, WhileOpen
from habeas.datamap.source import ConfigurationError, Problem, load_yaml, validate

UNDECIDED = "a draft that nobody has decided yet"
AGE_OF_PARENT = "parent"


def load_datamap(directory: Path, policy: Policy) -> DataMap:
    """Read every dataset file of a directory (or one file) against a policy.

    Raises ConfigurationError with everything that is wrong, also where a draft still says REVIEW.
    """
    directory = Path(directory)
    if not directory.exists() or not (files := yaml_files(directory)):
        what, write = "no data map is here", "the path of a directory with dataset files (`*.yaml`)"
        raise ConfigurationError([Problem(directory, 1, "", what, write)])
    problems: list[Problem] = []
    stores: dict[str, StoreMap] = {}
    for file in files:
        try:
            located = load_yaml(file)
            model = validate(DatasetFile, located)
        except ConfigurationError as error:
            problems += error.problems
            continue
        for index, dataset in enumerate(model.dataset):
            place = Place(located, ("dataset", index))
            if dataset.habeas.store in stores:
                what = f"the store `{dataset.habeas.store}` is described a second time"
                problems.append(place.problem(what, "one dataset for each store", "habeas", "store"))
                continue
            reading = _StoreReading(dataset, place, policy)
            stores[dataset.habeas.store] = reading.store()
            problems += reading.problems
    if stores and not problems and not any(store.has_root for store in stores.values()):
        what = "no store of this map has a root, so nobody could say who has an account"
        first = next(iter(stores.values()))
        problems.append(first.place.problem(what, "`root: COLLECTION` on the store with the table of people", "habeas"))
    if problems:
        raise ConfigurationError(problems)
    return DataMap(stores)


class _StoreReading:
    """One walk over a dataset, which collects tables and problems together."""

    def __init__(self, dataset: Dataset, place: Place, policy: Policy) -> None:
        self.dataset = dataset
        self.place = place
        self.policy = policy
        self.problems: list[Problem] = []
        self.target = ("", "")
        self.places: dict[str, Place] = {}
        self.collections: dict[str, DatasetCollection] = {}
        for index, collection in enumerate(dataset.collections):
            at = place.at("collections", index)
            if collection.name in self.collections:
                self.problems.append(at.problem(f"`{collection.name}` is listed twice", "each table once", "name"))
                continue
            self.places[collection.name] = at
            self.collections[collection.name] = collection

    def store(self) -> StoreMap:
        notes = self.dataset.habeas
        edges = {name: tuple(self._edges(name)) for name in self.collections}
        root, identity = self.target = self._root()
        links = {
            name: Links(tuple(_identities(collection)), edges[name], collection.habeas.path)
            for name, collection in self.collections.items()
            if collection.habeas.personal
        }
        paths = find_paths(links, root, identity) if root or self._is_without_root() else {}
        tables = {name: self._table(name, edges[name], paths) for name in self.collections}
        for table in list(tables.values()):
            tables[table.name] = self._with_inherited_age(table, tables)
        for table in tables.values():
            self._require_end(table, tables)
        self._refuse_cycles([edge for each in edges.values() for edge in each])
        if self._is_without_root() and not any(table.path for table in tables.values()):
            what = "nothing in this store leads to a person"
            write = f"`identity: {IDENTITY}` on a column that holds the account id, or no dataset for this store"
            self.problems.append(self.place.problem(what, write))
        return StoreMap(notes.store, notes.connection, notes.schema_name, root, identity, tables, self.place)

    def _is_without_root(self) -> bool:
        """Whether the file says that no table of people is here; a table of that name is one all the same."""
        return self.dataset.habeas.root == NO_ROOT and NO_ROOT not in self.collections

    def _root(self) -> tuple[str, str]:
        """Name of the root and its identity column; empty names where there is none, and after a problem."""
        name = self.dataset.habeas.root
        if self._is_without_root():
            return "", ""
        if name is None:
            having = [each.name for each in self.collections.values() if list(_identities(each))]
            if len(having) != 1:
                what = f"the root can't be told: {len(having)} collections have a field with `identity: {IDENTITY}`"
                self.problems.append(self.place.problem(what, f"`root: COLLECTION`, or `root: {NO_ROOT}`", "habeas"))
                return "", ""
            name = having[0]
        if name not in self.collections:
            what = f"the root `{name}` is no collection here"
            self.problems.append(self.place.problem(what, one_of(name, self.collections), "habeas", "root"))
            return "", ""
        identities = list(_identities(self.collections[name]))
        if len(identities) != 1:
            what = f"the root `{name}` has {len(identities)} fields that are the account id"
            write = f"`fides_meta: {{identity: {IDENTITY}}}` on exactly one of its fields"
            self.problems.append(self.places[name].problem(what, write))
            return "", ""
        return name, identities[0]

    def _edges(self, name: str) -> Iterator[Edge]:
        for index, field in enumerate(self.collections[name].fields):
            for number, reference in enumerate((field.fides_meta and field.fides_meta.references) or ()):
                if reference.direction == "to":
                    continue
                at = self.places[name].at("fields", index, "fides_meta", "references", number)
                table, column = reference.field.split(".")
                if reference.dataset != self.dataset.fides_key:
                    what = f"`{field.name}` refers to another dataset, which no join can reach"
                    write = f"`identity: {IDENTITY}` on a column that holds the account id itself"
                    self.problems.append(at.problem(what, write, "dataset"))
                elif table not in self.collections:
                    what = f"`{field.name}` refers to `{table}`, which is no collection here"
                    self.problems.append(at.problem(what, one_of(table, self.collections), "field"))
                elif column not in {each.name for each in self.collections[table].fields}:
                    what = f"`{field.name}` refers to `{reference.field}`, which is no field of it"
                    write = one_of(column, [each.name for each in self.collections[table].fields])
                    self.problems.append(at.problem(what, write, "field"))
                else:
                    yield Edge(name, field.name, table, column)

    def _table(self, name: str, edges: tuple[Edge, ...], paths: Mapping[str, SubjectPath | NoPath]) -> Table:
        collection, notes, at = self.collections[name], self.collections[name].habeas, self.places[name]
        path = self._path(name, paths)
        self._judge(notes, at)
        self._judge_where(collection, at.at("habeas", "where"))
        columns = tuple(
            self._column(collection, index, has_path=path is not None) for index in range(len(collection.fields))
        )
        own = path.own_column if path else None
        naming_people = {
            *_identities(collection),
            *(e.column for e in edges if (e.to_table, e.to_column) == self.target),
        }
        mentions = tuple(c for c in columns if c.name in naming_people and c.name != own and c.anonymises)
        erasure, blanked = self._erasure(name, columns, mentions)
        return Table(
            name=name,
            personal=notes.personal,
            category=notes.category,
            columns=columns,
            key=tuple(field.name for field in collection.fields if field.fides_meta and field.fides_meta.primary_key),
            path=path,
            erasure=erasure,
            blanked=blanked,
            mentions=mentions,
            retention=notes.retention,
            age=self._age(name, path),
            partitioned=notes.partitioned is not None,
            edges=edges,
            place=at,
        )

    def _path(self, name: str, paths: Mapping[str, SubjectPath | NoPath]) -> SubjectPath | None:
        notes, at = self.collections[name].habeas, self.places[name]
        path = paths.get(name)
        if isinstance(path, SubjectPath):
            return path.narrowed({each.name: _where(each.habeas) for each in self.collections.values()})
        if path is None:
            return None
        if path.reason == NOTHING_LEADS:
            if notes.on_erasure is not Action.NONE:
                what = f"nothing leads from `{name}` to a person"
                write = (
                    f"`references` on a field that leads there, `identity: {IDENTITY}` on one that holds the account id, or "
                    "`personal: false` with a `reason`"
                )
                self.problems.append(at.problem(what, write))
        elif path.reason == SEVERAL_LEAD:
            what = f"several fields of `{name}` lead to a person: {names(path.columns)}"
            write = f"`path: {path.columns[0]}` (the one whose person the row belongs to)"
            self.problems.append(at.problem(what, write, "habeas"))
        elif path.reason == CYCLE:
            what = f"references go in a circle: {' → '.join(path.columns)}"
            self.problems.append(at.problem(what, "a reference that leads to the root"))
        else:
            what = f"the field `{notes.path}` doesn't lead to a person"
            self.problems.append(at.problem(what, one_of(notes.path, path.columns), "habeas", "path"))
        return None

    def _judge(self, notes: CollectionNotes, at: Place) -> None:
        """Whether the keys of one collection fit together."""
        wrong: list[tuple[str, str]] = []
        if not notes.personal and notes.reason is None:
            wrong.append(("`personal: false` stands without a reason", "`reason: …` beside it"))
        if not notes.personal and notes.on_erasure is not None:
            wrong.append(("a table without personal data has no `on_erasure`", "`personal: false` and `reason` alone"))
        if notes.personal and notes.on_erasure is None:
            write = "`on_erasure: delete`, `anonymise`, `{keep: GROUND, until: CLASS}` or `none`"
            wrong.append(("what an erasure does is missing", write))
        if notes.on_erasure is Action.NONE and notes.reason is None:
            wrong.append(("`on_erasure: none` stands without a reason", "`reason: …` beside it"))
        if notes.retention is None and (notes.age or notes.partitioned):
            wrong.append(
                ("`age` and `partitioned` mean nothing without a retention class", "`retention: CLASS` beside it")
            )
        self.problems += [at.problem(what, write, "habeas") for what, write in wrong]
        if notes.reason == REVIEW:
            self.problems.append(at.problem(UNDECIDED, "the reason", "habeas", "reason"))
        if notes.on_erasure == REVIEW:
            write = "`delete`, `anonymise`, `{keep: GROUND, until: CLASS}` or `none`"
            self.problems.append(at.problem(UNDECIDED, write, "habeas", "on_erasure"))
        self._known("retention class", notes.retention, list(self.policy.retention), at.at("habeas", "retention"))
        self._known("category", notes.category, list(self.policy.categories), at.at("habeas", "category"))

    def _judge_where(self, collection: DatasetCollection, at: Place) -> None:
        """Whether the condition of one collection names columns that it has, and rows that can be somebody's."""
        where = collection.habeas.where
        if where and (collection.name == self.target[0] or not collection.habeas.personal):
            what = "a condition tells whose rows of a table are a person's; here all of them are, or none"
            self.problems.append(at.problem(what, "no `where`"))
        fields = [field.name for field in collection.fields]
        for column, values in where.items():
            if column not in fields:
                self.problems.append(
                    at.problem(f"`{column}` is no field of this table", one_of(column, fields), column)
                )
            elif values == ():
                self.problems.append(
                    at.problem(f"`{column}` can have no value at all", "one or several values", column)
                )

    def _known(self, kind: str, name: str | None, allowed: Sequence[str], at: Place) -> bool:
        if name is None or name in allowed:
            return True
        what = f"the policy has no {kind} `{name}`"
        if name == REVIEW:
            what = UNDECIDED
        self.problems.append(at.problem(what, one_of(name, allowed)))
        return False

    def _column(self, collection: DatasetCollection, index: int, *, has_path: bool) -> Column:
        field, at = collection.fields[index], self.places[collection.name].at("fields", index)
        if field.name in {each.name for each in collection.fields[:index]}:
            self.problems.append(at.problem(f"`{field.name}` is listed twice", "each field once", "name"))
        category = field.habeas.category or collection.habeas.category
        if field.habeas.category:
            self._known("category", category, list(self.policy.categories), at.at("habeas", "category"))
        elif category is None and has_path:
            what = f"`{field.name}` has no category"
            self.problems.append(
                at.problem(what, f"`category: …` under `habeas` of `{collection.name}` or of the field")
            )
        known = self.policy.categories.get(category) if category else None
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
        )

    def _erasure(
        self, name: str, columns: tuple[Column, ...], mentions: tuple[Column, ...]
    ) -> tuple[Action | Kept, tuple[Column, ...]]:
        notes, at = self.collections[name].habeas, self.places[name].at("habeas", "on_erasure")
        if isinstance(notes.on_erasure, Keep):
            return self._kept(notes, notes.on_erasure, columns, at)
        if notes.on_erasure is Action.ANONYMISE:
            # What names another person goes when that one is erased, not with the one whose row it is.
            blanked = tuple(column for column in columns if column.anonymises and column not in mentions)
            if not blanked:
                what = f"`{name}` is to be anonymised, but no field says what it becomes"
                self.problems.append(
                    at.problem(what, "`habeas: {anonymise: null}` on every field that names the person")
                )
            return Action.ANONYMISE, blanked
        return (Action.DELETE if notes.on_erasure is Action.DELETE else Action.NONE), ()

    def _kept(
        self, notes: CollectionNotes, keep: Keep, columns: tuple[Column, ...], at: Place
    ) -> tuple[Action | Kept, tuple[Column, ...]]:
        if keep.until is not None and self._known(
            "retention class", keep.until, list(self.policy.retention), at.at("until")
        ):
            self._require_rule(keep.until, notes.retention, at)
        elif notes.retention is None:
            write = "`retention: CLASS` and `age: COLUMN` beside `on_erasure`"
            self.problems.append(at.problem("kept rows have no end", write))
        by_name = {column.name: column for column in columns}
        for index, wanted in enumerate(keep.anonymise):
            if wanted not in by_name:
                what = f"`{wanted}` is no field of this table"
                self.problems.append(at.problem(what, one_of(wanted, by_name), "anonymise", index))
        if not isinstance(keep.keep, KeepGround):
            self.problems.append(at.problem(UNDECIDED, "a ground", "keep"))
            return Action.NONE, ()
        return Kept(keep.keep, notes.retention or ""), tuple(
            by_name[each] for each in keep.anonymise if each in by_name
        )

    def _require_rule(self, until: str, retention: str | None, at: Place) -> None:
        """People are told when kept rows go: that has to be the class by which the retention sweep lets them go."""
        if retention is None:
            what = f"people would be told the end of `{until}`, but no rule lets the rows go by then"
            self.problems.append(
                at.problem(what, f"`retention: {until}` and `age: COLUMN` beside `on_erasure`", "until")
            )
        elif until != retention:
            what = f"people would be told the end of `{until}`, but the rows go by `{retention}`"
            write = f"`until: {retention}` here, or `retention: {until}` beside `on_erasure`"
            self.problems.append(at.problem(what, write, "until"))

    def _require_end(self, table: Table, tables: Mapping[str, Table]) -> None:
        """Kept rows must go one day, also when what the erasure deletes is gone."""
        kept, notes = table.erasure, self.collections[table.name].habeas
        retention = self.policy.retention.get(notes.retention or "")
        if not isinstance(kept, Kept) or retention is None:
            return
        at = table.place.at("habeas")
        if isinstance(retention, WhileOpen):
            what = (
                f"`{notes.retention}` ends with the account, which the erasure takes away: the kept rows would never go"
            )
            self.problems.append(at.problem(what, "a class of the form `{for: 10y}`", "retention"))
        elif table.age is None and notes.age is None:
            what = f"the kept rows would never go: nothing says from when `{notes.retention}` runs"
            self.problems.append(at.problem(what, "`age: COLUMN` beside `on_erasure`", "on_erasure"))
        if retention.ground is not None and retention.ground is not kept.ground:
            what = f"people would be told `{kept.ground}`, but `{notes.retention}` is kept under `{retention.ground}`"
            self.problems.append(at.problem(what, f"`keep: {retention.ground}`", "on_erasure", "keep"))
        holder = table
        for join in self._lineage(table.path) if table.age is not None else ():
            if table.age is None or holder.name == table.age.table:
                break
            lost = join.column in {column.name for column in holder.blanked}
            holder = tables[join.table]
            if lost or holder.erasure is Action.DELETE:
                what = f"the kept rows would never go: their age is in `{table.age.table}`, to which an erasure leaves no way"
                self.problems.append(at.problem(what, f"a column of `{table.name}`", "age"))
                break

    def _age(self, name: str, path: SubjectPath | None) -> Age | None:
        collection = self.collections[name]
        if collection.habeas.age is None:
            return None
        at = self.places[name].at("habeas", "age")
        table, _, column = collection.habeas.age.rpartition(".")
        ancestors = [join.table for join in self._lineage(path)]
        if table == AGE_OF_PARENT and table not in ancestors and ancestors:
            table = ancestors[0]
        table = table or name
        if table not in {name, *ancestors}:
            what = f"`{table}` doesn't stand on the path from `{name}` to a person"
            self.problems.append(at.problem(what, one_of(table, ancestors)))
            return None
        fields = [field.name for field in self.collections[table].fields]
        if column not in fields:
            self.problems.append(at.problem(f"`{table}` has no field `{column}`", one_of(column, fields)))
            return None
        retention = self.policy.retention.get(collection.habeas.retention or "")
        if retention is not None and retention.counts_from is CountsFrom.ACCOUNT_CLOSED and table != self.target[0]:
            what = (
                f"`{collection.habeas.retention}` counts from the closing of the account, not from `{table}.{column}`"
            )
            write = f"the column of `{self.target[0]}` that says when it was closed"
            if not self.target[0]:
                write = "a class of the form `{for: 90d}`: only the store of the root knows when an account was closed"
            self.problems.append(at.problem(what, write))
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

    def _refuse_cycles(self, edges: Sequence[Edge]) -> None:
        try:
            children_first(self.collections, edges)
        except ReferenceCycleError as error:
            what = f"references go in a circle: {error}"
            write = "only those references that the database enforces; none of the tables could be erased first"
            self.problems.append(self.places[error.tables[0]].problem(what, write))


def _identities(collection: DatasetCollection) -> Iterator[str]:
    for field in collection.fields:
        if field.fides_meta is not None and field.fides_meta.identity == IDENTITY:
            yield field.name


def _where(notes: CollectionNotes) -> Where:
    """Return the condition of a collection, each column with all of its values."""
    return tuple((column, values if isinstance(values, tuple) else (values,)) for column, values in notes.where.items())
