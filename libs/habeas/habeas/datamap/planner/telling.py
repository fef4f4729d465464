"""One table of the data map in plain words: whose its rows are and why, and what becomes of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from habeas.datamap.catalogue.schema import ForeignKey, LiveSchema
from habeas.datamap.map.dataset import Action, Constant, Export, Role, Template, WhenParentGoes
from habeas.datamap.map.model import Column, Kept, Link, StoreMap, Table, names
from habeas.datamap.map.paths import Join, Reference, SubjectPath, Where
from habeas.datamap.planner.shape import LOOSENS, Shape
from habeas.datamap.policy.model import Policy

_WHOSE: Final = {
    Role.OWNER: "is the person's",
    Role.CO_OWNER: "is shared: one of its owners is the person",
    Role.ACCESSOR: "is not the person's own, but names the person",
}
_PARENTS: Final = {
    WhenParentGoes.DETACH: "stay and let go of it",
    WhenParentGoes.DELETE: "go with it, whoever's they are",
    WhenParentGoes.KEEP_PARENT: "keep it: as long as one of them stays, it is not deleted but anonymised",
}


@dataclass(frozen=True)
class ToldLink:
    """One link: each of its ways to a person, and what an erasure and an export do with such rows."""

    name: str
    role: str
    ways: tuple[str, ...]
    erasure: str
    export: str


@dataclass(frozen=True)
class Told:
    """A table; `facts` are sentences on the table itself, `references` on rows that it refers to and that refer to it."""

    store: str
    table: str
    facts: tuple[str, ...]
    links: tuple[ToldLink, ...]
    references: tuple[str, ...]
    retention: str
    reason: str | None


def tell(store: StoreMap, table: Table, policy: Policy, live: LiveSchema | None) -> Told:
    """Say what the map means for rows of a table; without ``live`` nothing is said of foreign keys that the map leaves out."""
    shape = Shape(store, live or LiveSchema({}))
    return Told(
        store.name,
        table.name,
        tuple(_facts(store, table)),
        tuple(_link(shape, table, link) for link in table.links),
        tuple(_references(shape, table, is_live=live is not None)),
        _retention(table, policy),
        table.reason,
    )


def _facts(store: StoreMap, table: Table) -> Iterator[str]:
    if table.name == store.root:
        yield f"A person begins here: each row of `{table.name}` is one, and its `{store.identity}` is the account id."
    if table.materialised:
        yield "It is a materialised view and nobody's own: an erasure fills it anew."
    elif not table.personal:
        yield "Nobody's: the map says `personal: false`, so no request reads or changes its rows for a person's sake."
    elif not table.links:
        yield "Nothing leads from its rows to a person; an erasure leaves them as they are."


def _link(shape: Shape, table: Table, link: Link) -> ToldLink:
    ways = tuple(way(shape.store, link.role, path) for path in link.paths)
    return ToldLink(link.name, str(link.role), ways, _erasure(shape, table, link), _export(table, link))


def way(store: StoreMap, role: Role, path: SubjectPath) -> str:
    """Say in a sentence how a row leads to a person, each hop with its columns and conditions."""
    hops, here = "", path.table
    for number, join in enumerate(path.joins):
        hops += (" leads" if number == 0 else ", from there") + _hop(here, join)
        here = join.table
    if here == store.root and path.subject_column == store.identity and path.within is None:
        whose = f"whose row of `{here}` that is" if path.joins else f"whose `{path.subject_column}` it carries"
    else:
        column = f"`{path.subject_column}`" if not path.joins else f"`{here}.{path.subject_column}`"
        whose = f"whose `{store.identity}` in `{store.root}` stands {_place(path, column)}"
    verb = f" and {_WHOSE[role]} {whose}" if hops else f" {_WHOSE[role]} {whose}"
    only = f", only where {_conditions(path.where)}" if path.where else ""
    return f"A row of `{path.table}`{hops}{',' if hops else ''}{verb}{only}."


def _place(path: SubjectPath, column: str) -> str:
    if path.within is None:
        return f"in {column}"
    if path.within.keys is None:
        return f"among the elements of {column}"
    at = "$" + "".join("[*]" if key is None else f".{key}" for key in path.within.keys)
    return f"in the JSON of {column} at `{at}`"


def _hop(here: str, join: Join) -> str:
    caseless = ", upper and lower case alike" if join.is_caseless else ""
    only = f" (only where {_conditions(join.where)})" if join.where else ""
    if join.is_down:
        columns = " and ".join(f"`{theirs}` holds the `{own}` of `{here}`" for own, theirs in join.on)
        return f" to the rows of `{join.table}` whose {columns}{caseless}{only}"
    own = " and ".join(f"`{own}`" for own, _ in join.on)
    theirs = " and ".join(f"`{theirs}`" for _, theirs in join.on)
    return f" by {own} to the row of `{join.table}` with that {theirs}{caseless}{only}"


def _conditions(where: Where) -> str:
    told: list[str] = []
    for column, values in where:
        shown = " or ".join(_value(value) for value in values)
        told.append(f"`{column}` is {shown}")
    return " and ".join(told)


def _value(value: Constant | Template) -> str:
    if isinstance(value, Template):
        return f"'{value.template}'"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}'" if isinstance(value, str) else str(value)


def _erasure(shape: Shape, table: Table, link: Link) -> str:
    blanked = _blanked(link.blanked)
    if isinstance(link.erasure, Kept):
        also = f", and overwrites {blanked}" if blanked else ""
        kept = f"keeps them under the ground `{link.erasure.ground}` until `{link.erasure.until}` lets them go{also}"
        return f"An erasure {kept}."
    if link.erasure is Action.DELETE:
        return _deletion(shape, table, link, blanked)
    if blanked:
        return f"An erasure lets such rows stay and overwrites {blanked}."
    if link.is_mention and link.paths[0].within is not None:
        return "An erasure takes the person's id out of the value; the row and all else in it stay."
    return "An erasure leaves such rows as they are."


def _deletion(shape: Shape, table: Table, link: Link, blanked: str) -> str:
    told = "An erasure deletes such rows"
    if link.role is Role.CO_OWNER:
        told += " once nobody else has a part in them"
        told += f"; until then it overwrites {blanked}" if blanked else ""
    elif shape.follows_by(link):
        told += " only with the row of several people on which they hang"
    keeping = [
        each.table for each in shape.incoming.get(table.name, ()) if each.when_parent_goes is WhenParentGoes.KEEP_PARENT
    ]
    if keeping:
        told += f"; one to which a row of {names(dict.fromkeys(keeping))} refers that stays is anonymised instead"
    return f"{told}."


def _blanked(columns: tuple[Column, ...]) -> str:
    return ", ".join(f"`{column.name}` (to {_value(column.constant)})" for column in columns)


def _export(table: Table, link: Link) -> str:
    if not link.is_shown:
        return "An export shows nothing of such rows for this link."
    left_out = [column.name for column in table.columns if column.export is Export.NEVER]
    named = [column.name for column in table.columns if column.export is Export.NAMED_ONLY]
    parts = [
        f"leaves out {names(link.redacted)} (unless another link shows them)" if link.redacted else "",
        f"never shows {names(left_out)}" if left_out else "",
        f"says of {names(named)} only that they exist" if named else "",
    ]
    told = "An export shows such rows"
    if link.is_reviewed:
        told = "An export holds such rows back until somebody has reviewed them"
    said = ", ".join(part for part in parts if part)
    return f"{told}; it {said}." if said else f"{told}."


def _references(shape: Shape, table: Table, *, is_live: bool) -> Iterator[str]:
    mine = [each for each in shape.store.references if each.table == table.name]
    theirs = [each for each in shape.incoming.get(table.name, ()) if each.table != table.name]
    for reference in (*mine, *theirs):
        yield _reference(shape, reference, is_live=is_live)
    for key in shape.live.foreign_keys:
        if table.name in {key.table, key.to_table} and shape.stated(key) is None:
            yield f"{_refer(key.table, key.columns, key.to_table)}: {_enforced(key)}; the map does not state this reference."
    if not is_live:
        yield "The database was not looked at: what its foreign keys do is not told here."


def _reference(shape: Shape, reference: Reference, *, is_live: bool) -> str:
    told = _refer(reference.table, reference.columns, reference.to_table)
    only = f", where {_conditions(reference.where)}," if reference.where else ""
    word = reference.when_parent_goes
    if word is None and shape.follows(reference):
        said = "when that row goes, they go with it, since it is several people's"
    elif word is None and (own := _own_way(shape.store.tables[reference.table], reference)):
        said = f"it is the way of their link {names(own)}, which says what becomes of them"
    elif word is None and (through := _leads_through(shape.store.tables[reference.to_table], reference)):
        said = f"by it the link {names(through)} of that row finds its owners"
    elif word is None:
        said = "the map has no word on what becomes of them when that row goes"
    else:
        said = f"when that row goes, they {_PARENTS[word]}"
    if reference.detached:
        said += ": " + ", ".join(f"`{column}` becomes {_value(value)}" for column, value in reference.detached)
    key = shape.enforced(reference)
    if key is not None:
        return f"{told}{only}: {said}; {_enforced(key)}."
    return f"{told}{only}: {said}{'; no foreign key enforces it' if is_live else ''}."


def _own_way(table: Table, reference: Reference) -> list[str]:
    """Links of the table that begin with a reference."""
    found: list[str] = []
    for link in table.links:
        ways = [(path.own_columns, path.joins[0].is_down if path.joins else False) for path in link.paths]
        if any(not is_down and set(columns) <= set(reference.columns) for columns, is_down in ways):
            found.append(link.name)
    return found


def _leads_through(table: Table, reference: Reference) -> list[str]:
    """Links of the table referred to that go over the rows which refer."""
    turned = {(theirs, own) for own, theirs in reference.on}
    return [
        link.name
        for link in table.links
        if any(
            path.joins
            and path.joins[0].is_down
            and path.joins[0].table == reference.table
            and set(path.joins[0].on) == turned
            for path in link.paths
        )
    ]


def _refer(table: str, columns: tuple[str, ...], to_table: str) -> str:
    return f"Rows of `{table}` refer by {names(columns)} to a row of `{to_table}`"


def _enforced(key: ForeignKey) -> str:
    if key.on_delete in LOOSENS:
        does = "has them let go of it"
    elif key.on_delete == "cascade":
        does = "would delete them with it"
    else:
        does = "forbids to delete it while they refer to it"
    return f"the foreign key `{key.name}` (ON DELETE {key.on_delete.upper()}) {does}"


def _retention(table: Table, policy: Policy) -> str:
    if table.retention is None:
        return "No retention class: its rows go by erasures alone."
    said = policy.retention[table.retention].in_words()
    age = f"counted from `{table.age.table}.{table.age.column}`" if table.age else "by no age of its own"
    return f"Its retention class is `{table.retention}`: {said}, {age}."
