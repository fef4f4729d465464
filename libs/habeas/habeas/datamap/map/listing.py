"""The collections of one store, from all of its datasets: under which name each is known, and what is wrong so far."""

from collections.abc import Iterator, Sequence

from habeas.datamap.explain import one_of
from habeas.datamap.map.dataset import IDENTITY, NO_ROOT, REVIEW, Conditions, Dataset, DatasetCollection
from habeas.datamap.map.model import Place
from habeas.datamap.map.paths import Where
from habeas.datamap.policy.model import Policy
from habeas.datamap.source import Problem

UNDECIDED = "a draft that nobody has decided yet"


class Collections:
    """What the datasets of a store list; every part of the reading adds its problems here."""

    def __init__(self, schemas: Sequence[tuple[Dataset, Place]], policy: Policy) -> None:
        self.dataset, self.place = max(
            schemas, key=lambda each: (each[0].habeas.root is not None, each[0].habeas.root != NO_ROOT)
        )
        self.policy = policy
        self.problems: list[Problem] = []
        self.places: dict[str, Place] = {}
        self.collections: dict[str, DatasetCollection] = {}
        self.schemas: dict[str, Dataset] = {}
        for index, (dataset, place) in enumerate(schemas):
            self._list(dataset, place, [each for each, _ in schemas[:index]])
        self.keys = {each.fides_key: each for each, _ in schemas}

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
        if notes.root not in {None, NO_ROOT} and dataset is not self.dataset:
            what = f"the store `{notes.store}` has a root already, `{own.root}`"
            self.problems.append(place.problem(what, "no `root` here", "habeas", "root"))
        for index, collection in enumerate(dataset.collections):
            at = place.at("collections", index)
            name = self.full_name(collection.name, dataset)
            if name in self.collections:
                self.problems.append(at.problem(f"`{name}` is listed twice", "each table once", "name"))
                continue
            self.places[name] = at
            self.collections[name] = collection
            self.schemas[name] = dataset

    def full_name(self, name: str, dataset: Dataset) -> str:
        """Return the name in the store of a collection: one of another schema than the root's has that schema before it."""
        schema = dataset.habeas.schema_name
        return name if schema == self.dataset.habeas.schema_name else f"{schema}.{name}"

    def called(self, word: str, beside: str) -> str | None:
        """Return the name in the store of what a collection calls so: one of its own schema, or one with its schema before it."""
        near = self.full_name(word, self.schemas[beside])
        return next((name for name in (near, word) if name in self.collections), None)

    @property
    def is_without_root(self) -> bool:
        """Whether the files say that no table of people is here; a table of that name is one all the same."""
        return self.dataset.habeas.root == NO_ROOT and NO_ROOT not in self.collections

    def root(self) -> tuple[str, str]:
        """Name of the root and its identity column; empty names where there is none, and after a problem."""
        name = self.dataset.habeas.root
        if self.is_without_root:
            return "", ""
        if name is None:
            having = [each for each, collection in self.collections.items() if list(identities(collection))]
            if len(having) != 1:
                what = f"the root can't be told: {len(having)} collections have a field with `identity: {IDENTITY}`"
                self.problems.append(self.place.problem(what, f"`root: COLLECTION`, or `root: {NO_ROOT}`", "habeas"))
                return "", ""
            name = having[0]
        if name not in self.collections:
            what = UNDECIDED if name == REVIEW else f"the root `{name}` is no collection here"
            self.problems.append(self.place.problem(what, one_of(name, self.collections), "habeas", "root"))
            return "", ""
        found = list(identities(self.collections[name]))
        if len(found) != 1:
            what = f"the root `{name}` has {len(found)} fields that are the account id"
            write = f"`fides_meta: {{identity: {IDENTITY}}}` on exactly one of its fields"
            self.problems.append(self.places[name].problem(what, write))
            return "", ""
        return name, found[0]

    def has_field(self, name: str, column: str, at: Place) -> bool:
        """Whether a collection has a field; one that it has not is a problem."""
        fields = [each.name for each in self.collections[name].fields]
        if column in fields:
            return True
        self.problems.append(at.problem(f"`{column}` is no field of this table", one_of(column, fields)))
        return False

    def judge_where(self, name: str, where: Conditions, at: Place) -> None:
        """Whether a condition names columns that the collection has, and values."""
        fields = [field.name for field in self.collections[name].fields]
        for column, values in where.items():
            if column not in fields:
                self.problems.append(
                    at.problem(f"`{column}` is no field of this table", one_of(column, fields), column)
                )
            elif values == REVIEW:
                self.problems.append(at.problem(UNDECIDED, "the value of the rows that are meant", column))
            elif values == ():
                self.problems.append(
                    at.problem(f"`{column}` can have no value at all", "one or several values", column)
                )

    def is_known(self, kind: str, name: str | None, allowed: Sequence[str], at: Place) -> bool:
        """Whether the policy has what a name stands for; one that it has not is a problem, no name is none."""
        if name is None or name in allowed:
            return True
        what = f"the policy has no {kind} `{name}`"
        if name == REVIEW:
            what = UNDECIDED
        self.problems.append(at.problem(what, one_of(name, allowed)))
        return False


def identities(collection: DatasetCollection) -> Iterator[str]:
    """Fields that hold the account id itself."""
    for field in collection.fields:
        if field.fides_meta is not None and field.fides_meta.identity == IDENTITY:
            yield field.name


def conditions(conditions: Conditions) -> Where:
    """Return a condition, each column with all of its values."""
    return tuple((column, values if isinstance(values, tuple) else (values,)) for column, values in conditions.items())
