"""Right maps made wrong in one way each, so that with some rows an erasure would touch others, leave something, or fail."""

from collections.abc import Callable, Collection, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from random import Random
from typing import Final, TypeAlias

from tests.property.datamap.model import LOOSENS, Document, Reference, Schema, Table, Way
from tests.property.datamap.trial import Case

TRIED: Final = 3
"""So many ways are tried for each seed, of those that its map allows."""


@dataclass
class Spoiling:
    """A copy of a map, to be spoiled in place."""

    schema: Schema
    document: Document
    rng: Random
    collections: dict[str, Document] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Find the collections by the names of their tables."""
        for dataset in self.document["dataset"]:
            prefix = "" if dataset["habeas"]["schema"] == "public" else f"{dataset['habeas']['schema']}."
            for collection in dataset["collections"]:
                self.collections[prefix + collection["name"]] = collection

    def notes(self, table: str) -> Document:
        """What stands under `habeas:` of a collection."""
        notes: Document = self.collections[table]["habeas"]
        return notes

    def is_personal(self, table: str) -> bool:
        """Whether rows of it are people's."""
        return bool(self.notes(table).get("personal", True))

    def field(self, table: str, column: str) -> Document:
        """Return a field of a collection."""
        found: Document = next(each for each in self.collections[table]["fields"] if each["name"] == column)
        return found

    def word(self, reference: Reference) -> object:
        """Return the `when_parent_goes` of a reference."""
        try:
            return (self.field(reference.table, reference.columns[-1]).get("habeas") or {}).get("when_parent_goes")
        except StopIteration:
            return None

    def goes(self, table: str) -> bool:
        """Whether rows of a table are deleted with the person whose they are."""
        return self.is_personal(table) and self.notes(table).get("on_erasure") == "delete"

    def firm(self) -> list[Reference]:
        """References that the database holds fast, into tables whose rows go."""
        return [
            each
            for each in self.schema.references
            if each.enforced and each.on_delete not in LOOSENS and self.goes(each.to_table)
        ]

    def owned(self) -> list[tuple[Table, Way, Reference]]:
        """Tables that go with their one owner, by a firm reference without a word of its own."""
        return [
            (table, way, reference)
            for table in self.schema.tables.values()
            for way in table.ways
            for reference in self.firm()
            if way.role == "owner" and way.kind == "reference" and self.is_personal(table.name)
            if (reference.table, reference.columns) == (table.name, way.columns) and self.goes(table.name)
            if not self.schema.tables[reference.to_table].co_owned  # whose rows wait until nobody refers to them
            if self.word(reference) is None and sum(each.role == "owner" for each in table.ways) == 1
            if "anonymise" not in (self.field(table.name, way.columns[-1]).get("habeas") or {})
        ]


Spoil: TypeAlias = Callable[[Spoiling], bool]


def table_left_out(spoiling: Spoiling) -> bool:
    """A table with a foreign key into people's tables is not in the map."""
    leaves = [
        each.table
        for each in spoiling.schema.references
        if each.enforced and spoiling.is_personal(each.to_table) and spoiling.is_personal(each.table)
        if each.table != spoiling.schema.root and not spoiling.schema.to(each.table)
        if not any(way.other == each.table for table in spoiling.schema.tables.values() for way in table.ways)
    ]
    if not leaves:
        return False
    name = spoiling.rng.choice(leaves)
    for dataset in spoiling.document["dataset"]:
        dataset["collections"] = [each for each in dataset["collections"] if each is not spoiling.collections[name]]
    spoiling.document["dataset"] = [each for each in spoiling.document["dataset"] if each["collections"]]
    return True


def column_left_out(spoiling: Spoiling) -> bool:
    """A column of a mapped table is not in the map."""
    for name, table in spoiling.schema.tables.items():
        plain = [column for column in table.columns if column in {"body", "code"}]
        if plain and spoiling.is_personal(name) and plain[0] not in str(spoiling.notes(name)):
            spoiling.collections[name]["fields"].remove(spoiling.field(name, plain[0]))
            return True
    return False


def word_dropped(spoiling: Spoiling) -> bool:
    """Nothing says what becomes of rows whose parent goes."""
    found = [
        each
        for each in spoiling.firm()
        if spoiling.word(each) is not None
        and not any(
            way.other for way in spoiling.schema.tables[each.to_table].ways
        )  # such rows are held, and do not go
        and not any(way.columns == each.columns for way in spoiling.schema.tables[each.table].ways)
    ]
    if not found:
        return False
    reference = spoiling.rng.choice(found)
    del spoiling.field(reference.table, reference.columns[-1])["habeas"]["when_parent_goes"]
    return True


def where_dropped(spoiling: Spoiling) -> bool:
    """The id of something else is taken for a person's."""
    for name, table in spoiling.schema.tables.items():
        if "owner_type" in table.columns:
            notes = spoiling.notes(name)
            notes.pop("where", None)
            for link in notes.get("links", {}).values():
                link.pop("where", None)
            return True
    return False


def where_added(spoiling: Spoiling) -> bool:
    """Rows that nobody owns by a condition still refer to rows that go."""
    for table, _, _ in spoiling.owned():
        if "body" in table.columns and "where" not in str(spoiling.notes(table.name)):
            spoiling.notes(table.name)["where"] = {"body": "x"}
            return True
    return False


def composite_cut(spoiling: Spoiling) -> bool:
    """One column of a reference over two leads to rows of several people."""
    for table in spoiling.schema.tables.values():
        for way in table.ways:
            reference = spoiling.schema.by(table.name, way.columns)
            if (
                reference is None
                or len(reference.columns) == 1
                or way.role != "owner"
                or not spoiling.is_personal(table.name)
            ):
                continue
            if reference.to_table == spoiling.schema.root:
                continue
            meta = spoiling.field(table.name, reference.columns[0])["fides_meta"]
            bare = spoiling.schema.tables[reference.to_table].bare
            meta["references"] = [each for each in meta["references"] if each["field"].split(".")[0] != bare]
            for link in spoiling.notes(table.name).get("links", {}).values():
                if link.get("by") == list(reference.columns):
                    link["by"] = reference.columns[-1]
            return True
    return False


def detach_not_null(spoiling: Spoiling) -> bool:
    """A column that is NOT NULL is to be set to null."""
    for reference in spoiling.firm():
        column = spoiling.schema.tables[reference.table].columns[reference.columns[-1]]
        if spoiling.word(reference) is not None and column.not_null:
            spoiling.field(reference.table, column.name)["habeas"]["when_parent_goes"] = "detach"
            return True
    return False


def _anonymised(spoiling: Spoiling) -> Iterator[Table]:
    for name, table in spoiling.schema.tables.items():
        if (
            spoiling.is_personal(name)
            and spoiling.notes(name).get("on_erasure") == "anonymise"
            and name != spoiling.schema.root
        ):
            yield table


def null_not_null(spoiling: Spoiling) -> bool:
    """What an anonymisation sets to null is NOT NULL."""
    for table in _anonymised(spoiling):
        for name in ("body", "code", "created_at"):
            if name in table.columns and table.columns[name].not_null and name not in table.key:
                spoiling.field(table.name, name).setdefault("habeas", {})["anonymise"] = None
                return True
    return False


def constant_unique(spoiling: Spoiling) -> bool:
    """The same value for the second person breaks a unique index."""
    for table in _anonymised(spoiling):
        if "code" in table.columns and table.columns["code"].unique:
            spoiling.field(table.name, "code").setdefault("habeas", {})["anonymise"] = "erased"
            return True
    return False


def constant_of_another_type(spoiling: Spoiling) -> bool:
    """A date can't be `erased`."""
    for table in _anonymised(spoiling):
        if "created_at" in table.columns and "created_at" not in table.key:
            spoiling.field(table.name, "created_at").setdefault("habeas", {})["anonymise"] = "erased"
            return True
    return False


def said_to_be_nobodys(spoiling: Spoiling) -> bool:
    """A table is said to hold no person's data, and refers to people."""
    for table, _, _ in spoiling.owned():
        if not spoiling.schema.to(table.name) and not any(
            each.other == table.name for t in spoiling.schema.tables.values() for each in t.ways
        ):
            collection = spoiling.collections[table.name]
            collection["habeas"] = {"personal": False, "reason": "about nobody"}
            return True
    return False


def mention_dropped(spoiling: Spoiling) -> bool:
    """A column that names somebody else is never cleared."""
    for reference in spoiling.firm():
        table = spoiling.schema.tables[reference.table]
        for way in table.ways:
            if way.role == "accessor" and way.columns == reference.columns:
                spoiling.field(table.name, way.columns[-1]).get("habeas", {}).pop("anonymise", None)
                spoiling.notes(table.name).get("links", {}).pop(way.name, None)
                return True
    return False


def owner_made_accessor(spoiling: Spoiling) -> bool:
    """Rows that should go stay, and refer to an account that is gone."""
    for table, way, _ in spoiling.owned():
        link = spoiling.notes(table.name).get("links", {}).get(way.name)
        if link is not None:
            link["role"] = "accessor"
            return True
    return False


def end_dropped(spoiling: Spoiling) -> bool:
    """One end of an edge leads to nobody."""
    for reference in spoiling.firm():
        table = spoiling.schema.tables[reference.table]
        owners = [way for way in table.ways if way.role == "owner"]
        if len(owners) > 1 and spoiling.is_personal(table.name):
            for way in owners:
                if way.columns == reference.columns:
                    del spoiling.notes(table.name)["links"][way.name]
                    return True
    return False


def ghost_missing(spoiling: Spoiling) -> bool:
    """The ghost is no row."""
    ghost = spoiling.schema.ghost
    if ghost is None:
        return False
    for name, table in spoiling.schema.tables.items():
        for way in table.ways:
            reference = spoiling.schema.by(name, way.columns)
            if (
                reference is None
                or not reference.enforced
                or reference.to_table != spoiling.schema.root
                or not spoiling.is_personal(name)
            ):
                continue
            notes = spoiling.field(name, way.columns[-1]).get("habeas") or {}
            if str(notes.get("anonymise")) == ghost:
                notes["anonymise"] = (
                    4711
                    if ghost.isdigit()
                    else ghost.replace("ghost", "spirit").replace("0000-0000-0000", "0000-0000-0001")
                )
                return True
    return False


def made_to_stay(spoiling: Spoiling) -> bool:
    """Rows stay, and forbid that their parent goes, or go with it by a cascade."""
    for table, _, _ in spoiling.owned():
        if table.name != spoiling.schema.root and not table.co_owned:
            notes = spoiling.notes(table.name)
            notes["on_erasure"] = "none"
            notes["reason"] = "nothing to take away"
            return True
    return False


def another_parent(spoiling: Spoiling) -> bool:
    """The map follows another reference than the database has."""
    for table, _, reference in spoiling.owned():
        if reference.to_table == spoiling.schema.root or len(reference.columns) > 1:
            continue
        kind = table.columns[reference.columns[0]].type
        for other in spoiling.schema.tables.values():
            if (
                other.name in {table.name, reference.to_table, spoiling.schema.root}
                or other.key != ("id",)
                or not spoiling.goes(other.name)
            ):
                continue
            is_later = list(spoiling.schema.tables).index(other.name) > list(spoiling.schema.tables).index(table.name)
            if other.columns["id"].type == kind and not is_later and other.schema == "public" and not other.co_owned:
                target = {"dataset": "platform", "field": f"{other.bare}.id", "direction": "from"}
                spoiling.field(table.name, reference.columns[0])["fides_meta"]["references"] = [target]
                return True
    return False


def other_side_stays(spoiling: Spoiling) -> bool:
    """Accounts stay, and keep what only they refer to."""
    if spoiling.notes(spoiling.schema.root).get("on_erasure") != "anonymise":
        return False
    for reference in spoiling.schema.of(spoiling.schema.root):
        notes = spoiling.field(spoiling.schema.root, reference.columns[-1]).get("habeas", {})
        if reference.columns[-1].startswith("home_") and "anonymise" in notes:
            del notes["anonymise"]
            return True
    return False


def leaving_left_out(spoiling: Spoiling) -> bool:
    """Who leaves a row of several still stands in it."""
    for name, table in spoiling.schema.tables.items():
        for way in table.ways:
            if way.role == "co_owner" and way.kind in {"reference", "identity"} and spoiling.is_personal(name):
                spoiling.field(name, way.columns[-1]).get("habeas", {}).pop("anonymise", None)
                return True
    return False


def kept_as_it_is(spoiling: Spoiling) -> bool:
    """Rows that stay for others still name who is gone."""
    for reference in spoiling.schema.references:
        if spoiling.word(reference) == "keep_parent" and spoiling.is_personal(reference.to_table):
            for each in spoiling.collections[reference.to_table]["fields"]:
                each.get("habeas", {}).pop("anonymise", None)
            return True
    return False


SPOILS: Final[tuple[Spoil, ...]] = (
    table_left_out,
    column_left_out,
    word_dropped,
    where_dropped,
    where_added,
    composite_cut,
    detach_not_null,
    null_not_null,
    constant_unique,
    constant_of_another_type,
    said_to_be_nobodys,
    mention_dropped,
    owner_made_accessor,
    end_dropped,
    ghost_missing,
    made_to_stay,
    another_parent,
    other_side_stays,
    leaving_left_out,
    kept_as_it_is,
)


def sabotages(case: Case, rng: Random, but: Collection[str] = ()) -> Iterator[tuple[str, Document]]:
    """Return some maps that are broken, each with the name of the way."""
    made = 0
    for spoil in rng.sample(SPOILS, len(SPOILS)):
        if spoil.__name__ in but:
            continue
        document = deepcopy(case.document)
        if spoil(Spoiling(case.schema, document, rng)):
            yield spoil.__name__, document
            made += 1
            if made == TRIED:
                return
