"""Reading a data map: files → models → tables with every default, name and path resolved; all problems at once."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from habeas.contracts.vocabulary import KeepGround
from habeas.datamap.explain import PathPart, one_of
from habeas.datamap.map.dataset import (
    IDENTITY,
    REVIEW,
    Action,
    Anonymise,
    CollectionNotes,
    Conditions,
    Constant,
    Dataset,
    DatasetCollection,
    DatasetField,
    DatasetFile,
    Detach,
    Keep,
    LinkNotes,
    Match,
    Portable,
    Redact,
    Role,
    WhenParentGoes,
)
from habeas.datamap.map.dataset import Reference as FidesReference
from habeas.datamap.map.model import Age, Column, DataMap, Kept, Link, Place, StoreMap, Table, names, yaml_files
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
    Where,
    Within,
)
from habeas.datamap.policy.model import Policy
from habeas.datamap.policy.retention import CountsFrom, WhileOpen
from habeas.datamap.source import ConfigurationError, Problem, load_yaml, validate

UNDECIDED = "a draft that nobody has decided yet"
AGE_OF_PARENT = "parent"
_STARTS = frozenset({"by", "through", "from_", "in_"})


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
        reading = _StoreReading(schemas, policy)
        stores[name] = reading.store()
        problems += reading.problems
    if problems:
        raise ConfigurationError(problems)
    return DataMap({name: replace(store, elsewhere=_elsewhere(store, stores)) for name, store in stores.items()})


def _elsewhere(store: StoreMap, stores: Mapping[str, StoreMap]) -> frozenset[str]:
    others = [each for each in stores.values() if each is not store and each.connection == store.connection]
    return frozenset(f"{each.schema}.{table}" for each in others for table in each.tables)


class _StoreReading:
    """One walk over the datasets of a store, which collects tables and problems together."""

    def __init__(self, schemas: Sequence[tuple[Dataset, Place]], policy: Policy) -> None:
        main = next((index for index, (each, _) in enumerate(schemas) if each.habeas.root is not None), 0)
        self.dataset, self.place = schemas[main]
        self.policy = policy
        self.problems: list[Problem] = []
        self.target = ("", "")
        self.places: dict[str, Place] = {}
        self.collections: dict[str, DatasetCollection] = {}
        self.schemas: dict[str, Dataset] = {}
        self.erasures: dict[str, Action | Kept] = {}
        for index, (dataset, place) in enumerate(schemas):
            self._list(dataset, place, [each for each, _ in schemas[:index]])
        self.keys = {each.fides_key: each for each, _ in schemas}
        self.references = {name: tuple(self._references(name)) for name in self.collections}

    def _list(self, dataset: Dataset, place: Place, earlier: Sequence[Dataset]) -> None:
        """Note the collections of one dataset under their names in the store."""
        notes, own = dataset.habeas, self.dataset.habeas
        if notes.schema_name in {each.habeas.schema_name for each in earlier}:
            what = f"the schema `{notes.schema_name}` of the store `{notes.store}` is described a second time"
            self.problems.append(place.problem(what, "one dataset for each schema", "habeas", "store"))
            return
        if notes.connection != own.connection:
            what = f"the store `{notes.store}` has two connections, `{own.connection}` and `{notes.connection}`"
            self.problems.append(place.problem(what, "one connection, or another store", "habeas", "connection"))
        if notes.root is not None and dataset is not self.dataset:
            what = f"the store `{notes.store}` has a root already, `{own.root}`"
            self.problems.append(place.problem(what, "no `root` here", "habeas", "root"))
        for index, collection in enumerate(dataset.collections):
            at = place.at("collections", index)
            name = self._full_name(collection.name, dataset)
            if name in self.collections:
                self.problems.append(at.problem(f"`{name}` is listed twice", "each table once", "name"))
                continue
            self.places[name] = at
            self.collections[name] = collection
            self.schemas[name] = dataset

    def _full_name(self, name: str, dataset: Dataset) -> str:
        schema = dataset.habeas.schema_name
        return name if schema == self.dataset.habeas.schema_name else f"{schema}.{name}"

    def _called(self, word: str, beside: str) -> str | None:
        """Return the name in the store of what a collection calls so: one of its own schema, or one with its schema before it."""
        near = self._full_name(word, self.schemas[beside])
        return next((name for name in (near, word) if name in self.collections), None)

    def store(self) -> StoreMap:
        notes = self.dataset.habeas
        root, identity = self.target = self._root()
        where = {name: _where(each.habeas.where) for name, each in self.collections.items()}
        spelled = {
            name: tuple(self._said(name)) for name, collection in self.collections.items() if collection.habeas.links
        }
        ways = {
            name: Ways(
                tuple(_identities(collection)),
                self.references[name],
                collection.habeas.path,
                tuple(said for said, _ in spelled.get(name, ())),
            )
            for name, collection in self.collections.items()
            if collection.habeas.personal and collection.habeas.materialised is None
        }
        finder = PathFinder(ways, root, identity, where)
        tables = {name: self._table(name, finder, spelled.get(name), is_rooted=bool(root)) for name in self.collections}
        for table in list(tables.values()):
            tables[table.name] = self._with_inherited_age(table, tables)
        for table in tables.values():
            self._require_end(table, tables)
        return StoreMap(notes.store, notes.connection, notes.schema_name, root, identity, tables, self.place)

    def _root(self) -> tuple[str, str]:
        """Name of the root and its identity column; empty names after a problem."""
        name = self.dataset.habeas.root
        if name is None:
            having = [each for each, collection in self.collections.items() if list(_identities(collection))]
            if len(having) != 1:
                what = f"the root can't be told: {len(having)} collections have a field with `identity: {IDENTITY}`"
                self.problems.append(self.place.problem(what, "`root: COLLECTION`", "habeas"))
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

    def _references(self, name: str) -> Iterator[Reference]:
        """References of one collection: fields that refer to different columns of one table are one."""
        groups: dict[tuple[str, str], list[tuple[DatasetField, str, int]]] = {}
        for index, field in enumerate(self.collections[name].fields):
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
                    self.problems.append(
                        self.places[name].problem(what, "another `reference` on one of them", "fields")
                    )
                yield self._reference(name, to_table, pairs)
            elif set(columns) == set(repeated):
                for pair in pairs:
                    yield self._reference(name, to_table, [pair])
            else:
                what = f"it can't be told which fields of `{name}` refer to `{to_table}` together"
                write = "`habeas: {reference: NAME}` on each, with the same name on those that belong together"
                self.problems.append(self.places[name].problem(what, write, "fields"))

    def _by_value(self, name: str, field: DatasetField) -> Iterator[Reference]:
        """A field with another kind of identity refers to the field of the root that has it."""
        kind = field.fides_meta.identity if field.fides_meta else None
        root = self.dataset.habeas.root
        if kind in {None, IDENTITY} or root not in self.collections or name == root or self._has_reference(field):
            return
        for theirs in self.collections[root].fields:
            if theirs.fides_meta and theirs.fides_meta.identity == kind:
                yield self._reference(name, root, [(field, theirs.name, 0)])

    @staticmethod
    def _has_reference(field: DatasetField) -> bool:
        return any(each.direction != "to" for each in (field.fides_meta and field.fides_meta.references) or ())

    def _target_of(
        self, name: str, field: DatasetField, reference: FidesReference, path: tuple[PathPart, ...]
    ) -> tuple[str, str] | None:
        at = self.places[name].at(*path)
        dataset = self.keys.get(reference.dataset)
        table, column = reference.field.split(".")
        if dataset is None:
            what = f"`{field.name}` refers to a dataset of another store, which no join can reach"
            write = f"`identity: {IDENTITY}` on a column that holds the account id itself"
            self.problems.append(at.problem(what, write, "dataset"))
            return None
        full = self._full_name(table, dataset)
        if full not in self.collections:
            what = f"`{field.name}` refers to `{table}`, which is no collection here"
            self.problems.append(at.problem(what, one_of(table, self.collections), "field"))
            return None
        fields = [each.name for each in self.collections[full].fields]
        if column not in fields:
            what = f"`{field.name}` refers to `{reference.field}`, which is no field of it"
            self.problems.append(at.problem(what, one_of(column, fields), "field"))
            return None
        return full, column

    def _reference(self, name: str, to_table: str, pairs: Sequence[tuple[DatasetField, str, int]]) -> Reference:
        said: WhenParentGoes | None = None
        detached: list[tuple[str, Constant]] = []
        for field, _, index in pairs:
            word = field.habeas.when_parent_goes
            if word is None:
                continue
            at = self.places[name].at("fields", index, "habeas", "when_parent_goes")
            if word == REVIEW:
                self.problems.append(at.problem(UNDECIDED, "`detach`, `delete` or `keep_parent`"))
                continue
            this = WhenParentGoes.DETACH if isinstance(word, Detach) else WhenParentGoes(word)
            if said not in {None, this}:
                what = f"the fields of one reference to `{to_table}` say different things"
                self.problems.append(at.problem(what, "one of them"))
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

    def _said(self, name: str) -> Iterator[tuple[Said, LinkNotes]]:
        """Ways that a collection spells out, with their notes; those that can't be followed are problems."""
        collection = self.collections[name]
        for word, notes in collection.habeas.links.items():
            at = self.places[name].at("habeas", "links", word)
            given = [key for key, value in notes if key in _STARTS and value is not None]
            if len(given) != 1:
                what = f"the link `{word}` begins {'nowhere' if not given else 'in several ways'}"
                self.problems.append(at.problem(what, "exactly one of `by`, `through`, `from` and `in`"))
                continue
            self._judge_where(name, notes.where, at.at("where"))
            said = self._said_one(name, word, notes, at)
            if said is not None:
                yield said, notes

    def _said_one(self, name: str, word: str, notes: LinkNotes, at: Place) -> Said | None:
        where = _where(notes.where)
        is_owning = _role(notes) is not Role.ACCESSOR
        if notes.in_ is not None:
            if not self._has_field(name, notes.in_, at.at("in")):
                return None
            keys = None if notes.at is None else _keys(notes.at)
            if notes.role not in {None, Role.ACCESSOR}:
                what = f"`{notes.in_}` names several people, none of whom the row belongs to alone"
                self.problems.append(at.problem(what, "`role: accessor`", "role"))
            return Said(word, is_owning, where, notes.in_, Within(keys))
        if notes.by is not None:
            columns = (notes.by,) if isinstance(notes.by, str) else notes.by
            if not all(self._has_field(name, column, at.at("by")) for column in columns):
                return None
            if len(columns) == 1 and columns[0] in set(_identities(self.collections[name])):
                return Said(word, is_owning, where, columns[0])
            found = [each for each in self.references[name] if set(columns) <= set(each.columns)]
            if len(found) != 1:
                what = f"{names(columns)} {'refers to nothing' if not found else 'refers to several tables'}"
                write = f"`references` on it, or `identity: {IDENTITY}`" if not found else "all fields of one reference"
                self.problems.append(at.problem(what, write, "by"))
                return None
            return Said(word, is_owning, where, by=found[0])
        dotted = notes.from_ or notes.through or ""
        key = "from" if notes.from_ else "through"
        reference = self._reference_from(name, dotted, at.at(key))
        return None if reference is None else Said(word, is_owning, where, through=reference)

    def _reference_from(self, name: str, dotted: str, at: Place) -> Reference | None:
        """Find the reference of another collection to this one, by the collection, or by one of its fields too."""
        table, column = self._called(dotted, name), ""
        if table is None and "." in dotted:
            near, _, column = dotted.rpartition(".")
            table = self._called(near, name)
        if table is None:
            self.problems.append(at.problem(f"`{dotted}` is no collection here", one_of(dotted, self.collections)))
            return None
        found = [each for each in self.references[table] if each.to_table == name and column in {"", *each.columns}]
        if len(found) != 1:
            what = f"`{dotted}` {'does not refer' if not found else 'refers in several ways'} to `{name}`"
            write = f"`references` on a field of `{table}`" if not found else f"`{table}.FIELD`"
            self.problems.append(at.problem(what, write))
            return None
        return found[0]

    def _has_field(self, name: str, column: str, at: Place) -> bool:
        fields = [each.name for each in self.collections[name].fields]
        if column in fields:
            return True
        self.problems.append(at.problem(f"`{column}` is no field of this table", one_of(column, fields)))
        return False

    def _table(
        self,
        name: str,
        finder: PathFinder,
        spelled: Sequence[tuple[Said, LinkNotes]] | None,
        *,
        is_rooted: bool,
    ) -> Table:
        collection, notes, at = self.collections[name], self.collections[name].habeas, self.places[name]
        self._judge(notes, at)
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
        links = self._spelled_links(name, columns, paths) if paths else self._own_links(name, columns, own)
        erasure = self._erasure(name, columns)
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
            references=self.references[name],
            place=at,
            triggers=notes.triggers,
            materialised=notes.materialised is not None,
        )

    def _own_links(self, name: str, columns: tuple[Column, ...], own: tuple[SubjectPath, ...]) -> tuple[Link, ...]:
        """Links of a collection that spells none out: its way to a person, and the fields that name others."""
        if not own:
            return ()
        at = self.places[name]
        naming = {
            *_identities(self.collections[name]),
            *(
                mine
                for each in self.references[name]
                for mine, theirs in each.on
                if (each.to_table, theirs) == self.target
            ),
        }
        mentions = tuple(
            column
            for column in columns
            if column.name in naming and column.name not in own[0].own_columns and column.anonymises
        )
        erasure = self._erasure(name, columns)
        blanked = self._blanked(name, columns, mentions)
        owner = Link(
            "owner", Role.OWNER, own, erasure, blanked,
            is_shown=True, is_reviewed=False, redacted=(), place=at.at("habeas"),
        )  # fmt: skip
        return (owner, *(self._mention(name, column) for column in mentions))

    def _mention(self, name: str, column: Column) -> Link:
        path = SubjectPath(name, (), column.name)
        return Link(
            column.name, Role.ACCESSOR, (path,), Action.ANONYMISE, (column,),
            is_shown=False, is_reviewed=False, redacted=(), place=column.place,
        )  # fmt: skip

    def _spelled_links(
        self,
        name: str,
        columns: tuple[Column, ...],
        spelled: Sequence[tuple[Said, LinkNotes, tuple[SubjectPath, ...]]],
    ) -> tuple[Link, ...]:
        others: set[str] = set()
        for _, notes, paths in spelled:
            if _role(notes) is Role.ACCESSOR:
                others |= {column for path in paths for column in path.own_columns}
                others |= set(notes.on_erasure.anonymise) if isinstance(notes.on_erasure, Anonymise | Keep) else set()
        mentions = tuple(column for column in columns if column.name in others)
        links: list[Link] = []
        for said, notes, paths in spelled:
            at = self.places[name].at("habeas", "links", said.name)
            for key, given in (("on_erasure", notes.on_erasure), ("on_export", notes.on_export)):
                if given == REVIEW:
                    self.problems.append(at.problem(UNDECIDED, "what is to happen", key))
            erasure, blanked = self._spelled_erasure(name, columns, mentions, said, notes)
            redacted = notes.on_export.redact if isinstance(notes.on_export, Redact) else ()
            self._columns_called(columns, redacted, at.at("on_export", "redact"))
            links.append(
                Link(
                    said.name, _role(notes), paths, erasure, blanked, is_shown=notes.on_export != "none",
                    is_reviewed=notes.on_export == "review", redacted=redacted, place=at,
                )
            )  # fmt: skip
        return tuple(links)

    def _spelled_erasure(
        self, name: str, columns: tuple[Column, ...], mentions: tuple[Column, ...], said: Said, notes: LinkNotes
    ) -> tuple[Action | Kept, tuple[Column, ...]]:
        """Return what an erasure does to the rows of a link that the map spells out, and what it overwrites in them."""
        at, given = self.places[name].at("habeas", "links", said.name), notes.on_erasure
        if isinstance(given, Anonymise | Keep):
            blanked = self._columns_called(columns, given.anonymise, at.at("on_erasure", "anonymise"))
            if isinstance(given, Anonymise):
                return Action.ANONYMISE, blanked
            return self._kept(self.collections[name].habeas, given, at.at("on_erasure")), blanked
        if given is Action.DELETE and _role(notes) is Role.CO_OWNER:
            return given, self._leaving(columns, said)
        if isinstance(given, Action):
            return given, self._anonymised(columns, mentions) if given is Action.ANONYMISE else ()
        if _role(notes) is Role.CO_OWNER and self._erasure(name, columns) is Action.DELETE:
            return Action.DELETE, self._leaving(columns, said)
        if _role(notes) is not Role.ACCESSOR:
            return self._erasure(name, columns), self._blanked(name, columns, mentions)
        if said.within is None and given is None:
            what = f"what becomes of the rows of the link `{said.name}` when the person is erased is missing"
            write = "`on_erasure: {anonymise: [FIELD]}`, or `on_erasure: none` and a `reason`"
            self.problems.append(at.problem(what, write))
        return Action.NONE, ()

    @staticmethod
    def _leaving(columns: tuple[Column, ...], said: Said) -> tuple[Column, ...]:
        """What names one of several owners goes from a row that stays for the others."""
        own = {said.column} if said.column is not None else set(said.by.columns if said.by is not None else ())
        return tuple(column for column in columns if column.name in own and column.anonymises)

    def _columns_called(self, columns: tuple[Column, ...], wanted: Sequence[str], at: Place) -> tuple[Column, ...]:
        by_name = {column.name: column for column in columns}
        for index, word in enumerate(wanted):
            if word not in by_name:
                self.problems.append(at.problem(f"`{word}` is no field of this table", one_of(word, by_name), index))
        return tuple(by_name[word] for word in wanted if word in by_name)

    def _tell(self, name: str, path: NoPath, at: Place) -> None:
        """Say why rows of a collection cannot be brought to a person."""
        notes = self.collections[name].habeas
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
            write = f"`path: {path.columns[0]}` (the one whose person the row belongs to), or `links` where it belongs to several"
            self.problems.append(at.problem(what, write, "habeas"))
        elif path.reason == CYCLE:
            what = f"references go in a circle: {' → '.join(path.columns)}"
            self.problems.append(at.problem(what, "a reference that leads to the root"))
        else:
            what = f"the field `{notes.path}` doesn't lead to a person"
            self.problems.append(at.problem(what, one_of(notes.path or "", path.columns), "habeas", "path"))

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
        if notes.personal and notes.on_erasure is None and notes.materialised is None:
            write = "`on_erasure: delete`, `anonymise`, `{keep: GROUND, until: CLASS}` or `none`"
            wrong.append(("what an erasure does is missing", write))
        silent = [each for each in notes.links.values() if each.on_erasure is Action.NONE and each.reason is None]
        if (notes.on_erasure is Action.NONE or silent) and notes.reason is None:
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

    def _judge_collection_where(self, name: str, collection: DatasetCollection, at: Place) -> None:
        """Whether the condition of one collection can tell whose rows are a person's."""
        where = collection.habeas.where
        if where and (name == self.target[0] or not collection.habeas.personal):
            what = "a condition tells whose rows of a table are a person's; here all of them are, or none"
            self.problems.append(at.problem(what, "no `where`"))
        self._judge_where(name, where, at)

    def _judge_where(self, name: str, where: Conditions, at: Place) -> None:
        """Whether a condition names columns that the collection has, and values."""
        fields = [field.name for field in self.collections[name].fields]
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

    def _column(self, name: str, index: int, *, has_path: bool) -> Column:
        collection = self.collections[name]
        field, at = collection.fields[index], self.places[name].at("fields", index)
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
            large_object=field.habeas.large_object,
        )

    def _erasure(self, name: str, columns: tuple[Column, ...]) -> Action | Kept:
        """Return what a collection says for its owners; whether it can be done is judged by `_blanked`."""
        notes, at = self.collections[name].habeas, self.places[name].at("habeas", "on_erasure")
        if name not in self.erasures:
            self.erasures[name] = notes.on_erasure if isinstance(notes.on_erasure, Action) else Action.NONE
            if isinstance(notes.on_erasure, Keep):
                self._columns_called(columns, notes.on_erasure.anonymise, at.at("anonymise"))
                self.erasures[name] = self._kept(notes, notes.on_erasure, at)
        return self.erasures[name]

    def _blanked(self, name: str, columns: tuple[Column, ...], mentions: tuple[Column, ...]) -> tuple[Column, ...]:
        """Return the columns that an erasure of an owner overwrites by what the collection says."""
        notes, at = self.collections[name].habeas, self.places[name].at("habeas", "on_erasure")
        if isinstance(notes.on_erasure, Keep):
            wanted = set(notes.on_erasure.anonymise)
            return tuple(column for column in columns if column.name in wanted)
        keeps = any(
            reference.when_parent_goes is WhenParentGoes.KEEP_PARENT and reference.to_table == name
            for each in self.references.values()
            for reference in each
        )
        if notes.on_erasure is Action.ANONYMISE or (keeps and notes.on_erasure is Action.DELETE):
            blanked = self._anonymised(columns, mentions)
            if not blanked:
                what = f"`{name}` is to be anonymised, but no field says what it becomes"
                self.problems.append(
                    at.problem(what, "`habeas: {anonymise: null}` on every field that names the person")
                )
            return blanked
        return ()

    @staticmethod
    def _anonymised(columns: tuple[Column, ...], mentions: tuple[Column, ...]) -> tuple[Column, ...]:
        """What names another person goes when that one is erased, not with the one whose row it is."""
        return tuple(column for column in columns if column.anonymises and column not in mentions)

    def _kept(self, notes: CollectionNotes, keep: Keep, at: Place) -> Action | Kept:
        if keep.until is not None and self._known(
            "retention class", keep.until, list(self.policy.retention), at.at("until")
        ):
            self._require_rule(keep.until, notes.retention, at)
        elif notes.retention is None:
            write = "`retention: CLASS` and `age: COLUMN` beside `on_erasure`"
            self.problems.append(at.problem("kept rows have no end", write))
        if not isinstance(keep.keep, KeepGround):
            self.problems.append(at.problem(UNDECIDED, "a ground", "keep"))
            return Action.NONE
        return Kept(keep.keep, notes.retention or "")

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
            lost = {own for own, _ in join.on} & {column.name for column in holder.blanked}
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
        table = (self._called(table, name) or table) if table else name
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
            self.problems.append(at.problem(what, f"the column of `{self.target[0]}` that says when it was closed"))
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


def _identities(collection: DatasetCollection) -> Iterator[str]:
    for field in collection.fields:
        if field.fides_meta is not None and field.fides_meta.identity == IDENTITY:
            yield field.name


def _where(conditions: Conditions) -> Where:
    """Return a condition, each column with all of its values."""
    return tuple((column, values if isinstance(values, tuple) else (values,)) for column, values in conditions.items())


def _names(given: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if given is None:
        return ("",)
    return (given,) if isinstance(given, str) else given


def _role(notes: LinkNotes) -> Role:
    """Return the role that a link has by what it says, or by its form: several people stand behind a row that others refer to."""
    if notes.role is not None:
        return notes.role
    if notes.in_ is not None:
        return Role.ACCESSOR
    return Role.OWNER if notes.by is not None else Role.CO_OWNER


def _keys(path: str) -> tuple[str | None, ...]:
    """Return the steps of a JSON path: names of keys, and None for every element."""
    return tuple(
        None if step == "*" else step
        for step in re.findall(r"\.([A-Za-z_][A-Za-z0-9_]*)|\[(\*)\]", path)
        for step in step
        if step
    )
