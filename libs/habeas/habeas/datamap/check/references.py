"""The part of the check that is about people: whether each row that goes is theirs, and each that names them is dealt with."""

from collections.abc import Iterator

from habeas.datamap.catalogue.schema import ForeignKey, LiveSchema
from habeas.datamap.map.dataset import IDENTITY, Action, Role, WhenParentGoes
from habeas.datamap.map.model import Column, Kept, Link, StoreMap, Table, names
from habeas.datamap.map.paths import Join, Reference, SubjectPath
from habeas.datamap.planner.shape import LOOSENS, Shape, pairs
from habeas.datamap.planner.sql import CASELESS, INTEGER_TYPES, TEXT_TYPES
from habeas.datamap.source import Problem

WORDS_FOR_PARENT = "`habeas: {when_parent_goes: detach}` on it (or `delete`, or `keep_parent`)"


def unsafe_references(store: StoreMap, live: LiveSchema) -> Iterator[Problem]:
    """Everything by which an erasure could take rows of others, or leave what names the person."""
    shape = Shape(store, live)
    for key in live.foreign_keys:
        yield from _survivable(shape, key)
    for table in store.tables.values():
        for reference in table.references:
            yield from _detachable(shape, table, reference)
        yield from _keeps_nobody(shape, table)
        yield from _leave_shared_rows(shape, table)
        yield from _both_sides(shape, table)
    yield from _mentions(shape)
    yield from _mentions_by_value(shape)
    yield from _claims_nobody(store, live)
    yield from _ambiguous(store, live)


def _survivable(shape: Shape, key: ForeignKey) -> Iterator[Problem]:
    """What becomes of rows that refer to a row which is deleted, whoever's they are."""
    store = shape.store
    child, parent = store.tables.get(key.table), store.tables.get(key.to_table)
    if child is None or parent is None or not parent.deletes:
        return
    stated = shape.stated(key)
    if stated is not None and stated.when_parent_goes is not None:
        return
    if key.on_delete in LOOSENS:
        yield from _loosened(shape, child, key)
        return
    if _waits_for_others(parent) or goes_along(shape, child, parent, key):
        return
    column = child.column(key.columns[0])
    names_person = column is not None and pairs(key) == ((column.name, store.identity),) and key.to_table == store.root
    if column is not None and names_person and child.links and not _is_cleared(shape, child, column):
        return  # it names another person, which is told by itself
    place = column.place if column is not None else child.place
    owners = "another person's" if child.links else "nobody's"
    if key.on_delete == "cascade":
        what = (
            f"rows of `{child.name}` that are {owners} or are to stay refer to `{parent.name}` by {names(key.columns)}, "
            f"and the database deletes them with `{parent.name}` (ON DELETE CASCADE)"
        )
    else:
        what = (
            f"rows of `{child.name}` that are {owners} or are to stay refer by {names(key.columns)} to rows of `{parent.name}` and "
            f"forbid that `{parent.name}` is deleted (foreign key)"
        )
    write = WORDS_FOR_PARENT
    if stated is None:
        write = f"`references` to `{key.to_table}` on {names(key.columns)} with {WORDS_FOR_PARENT}"
    if key.to_table == store.root and len(key.columns) == 1:
        write = f"`habeas: {{anonymise: null}}` on it with a reference to the root, or {WORDS_FOR_PARENT}"
    yield place.problem(what, write)


def _loosened(shape: Shape, child: Table, key: ForeignKey) -> Iterator[Problem]:
    """The database lets go by itself; that must be possible, and must not take the row from its own owner."""
    live = shape.live.tables[child.name]
    changed = key.set_columns or key.columns
    for name in changed if key.on_delete == "set null" else ():
        column = live.columns.get(name)
        if column is not None and column.not_null:
            what = f"`{child.name}.{name}` is NOT NULL, but the database sets it null with the row of `{key.to_table}`"
            yield child.place.problem(what, f"{WORDS_FOR_PARENT}, or a column that takes null")
    for link in child.owning:
        for path in link.paths:
            if not set(path.own_columns).isdisjoint(changed) and not _is_by(shape, path, key):
                what = (
                    f"with a row of `{key.to_table}` the database changes {names(changed)} of `{child.name}`, by which its rows "
                    "belong to somebody"
                )
                yield child.place.problem(what, f"ON DELETE SET NULL of other columns alone, or {WORDS_FOR_PARENT}")


def _waits_for_others(parent: Table) -> bool:
    """Whether rows go only when no row refers to them any more."""
    deleting = [link for link in parent.links if link.deletes]
    follows = any(each.when_parent_goes is WhenParentGoes.DELETE for each in parent.references)
    return not follows and all(
        link.role is Role.CO_OWNER and all(path.joins and path.joins[0].is_down for path in link.paths)
        for link in deleting
    )


def goes_along(shape: Shape, child: Table, parent: Table, key: ForeignKey) -> bool:
    """Whether every row of the child that refers to a row which goes is gone, or has let go of it, before."""
    if any(shape.follows(each) for each in parent.references):
        # The parent's rows may go because of a row above them, whoever's they are: then the child has to say so for itself.
        stated = shape.stated(key)
        return stated is not None and shape.follows(stated)
    if not _may_stay(shape, child) and _is_of_the_same_person(child, parent, key):
        return True
    for link in child.links:
        own = [path for path in link.paths if _is_by(shape, path, key)]
        if not own or len(own) != len(link.paths) or any(path.where for path in own):
            continue
        if not {column.name for column in link.blanked}.isdisjoint(key.columns) and (
            not link.deletes or link.role is Role.CO_OWNER or _may_stay(shape, child)
        ):
            return True
        if link.role is Role.ACCESSOR or not link.deletes:
            continue
        if (link.role is Role.OWNER and not _may_stay(shape, child)) or shape.follows_by(link):
            return True
    return False


def _is_of_the_same_person(child: Table, parent: Table, key: ForeignKey) -> bool:
    """Whether both ends hold the account id by itself, and the foreign key says that it is the same one."""
    ends = [(link, path) for table in (child, parent) for link in table.links for path in link.paths]
    if len(child.links) != 1 or len(parent.links) != 1 or len(ends) != 2:  # noqa: PLR2004 - one of each
        return False
    (own, own_path), (other, other_path) = ends
    return (
        own.deletes
        and other.deletes
        and own_path.direct
        and other_path.direct
        and not own_path.where
        and (own_path.subject_column, other_path.subject_column) in pairs(key)
    )


def _may_stay(shape: Shape, table: Table) -> bool:
    """Whether rows that are to go may stay for others, anonymised."""
    return any(each.when_parent_goes is WhenParentGoes.KEEP_PARENT for each in shape.incoming.get(table.name, ()))


def _is_by(shape: Shape, path: SubjectPath, key: ForeignKey) -> bool:
    """Whether a path begins with the reference that a foreign key enforces."""
    if path.within is not None:
        return False
    if path.joins:
        first = path.joins[0]
        return not first.is_down and first.table == key.to_table and set(first.on) == set(pairs(key))
    target = (path.subject_column, shape.store.identity)
    return key.to_table == shape.store.root and target in pairs(key)


def _detachable(shape: Shape, table: Table, reference: Reference) -> Iterator[Problem]:
    """Whether a field can become what a map says that it becomes."""
    live = shape.live.tables.get(table.name)
    for name, constant in reference.detached:
        column = table.column(name)
        place = column.place if column is not None else table.place
        found = live.columns.get(name) if live is not None else None
        if constant is None and found is not None and found.not_null:
            what = f"`{table.name}.{name}` is NOT NULL and can't let go of a row of `{reference.to_table}` by null"
            yield place.problem(what, "`when_parent_goes: {detach: {to: CONSTANT}}` with the id of a row that stays")
        owners = [link for link in table.owning for path in link.paths if set(path.own_columns) & {name}]
        if any(link.deletes for link in owners) and reference.to_table != shape.store.root:
            what = f"rows of `{table.name}` belong to somebody by `{name}`, so it can't let go"
            yield place.problem(what, "`when_parent_goes: delete`, or another way to the person")


def _keeps_nobody(shape: Shape, table: Table) -> Iterator[Problem]:
    """Rows that stay for others must not name their owner any more."""
    incoming = shape.incoming.get(table.name, ())
    if not any(each.when_parent_goes is WhenParentGoes.KEEP_PARENT for each in incoming):
        return
    cleared = {column.name for link in table.owning if link.deletes for column in link.blanked}
    for link in table.owning:
        for path in link.paths:
            if link.deletes and cleared.isdisjoint(path.own_columns):
                what = f"rows of `{table.name}` that stay for others would still lead to their owner by {names(path.own_columns)}"
                yield table.place.problem(
                    what, "`habeas: {anonymise: null}` on it (or a constant, a ghost's id)", "fields"
                )


def _leave_shared_rows(shape: Shape, table: Table) -> Iterator[Problem]:
    """A row that stays for its other owners must not name the one who left."""
    root = shape.store.tables.get(shape.store.root)
    detached = {
        column
        for each in table.references
        if root is not None and each.to_table == root.name and root.deletes
        for column, _ in each.detached
    }
    for link in table.owning:
        if link.role is not Role.CO_OWNER or not link.deletes:
            continue
        cleared = {column.name for column in link.blanked} | detached
        for path in link.paths:
            if (not path.joins or not path.joins[0].is_down) and cleared.isdisjoint(path.own_columns):
                what = (
                    f"rows of `{table.name}` that stay for their other owners would still lead to the one who left "
                    f"by {names(path.own_columns)}"
                )
                yield link.place.problem(what, "`habeas: {anonymise: null}` on that field")


def _both_sides(shape: Shape, table: Table) -> Iterator[Problem]:
    """A row to which others refer goes with the last of them; so those have to go, or to let go of it."""
    for link in table.owning:
        for path in link.paths:
            if not link.deletes or not path.joins or not path.joins[0].is_down:
                continue
            other = shape.store.tables[path.joins[0].table]
            columns = {theirs for _, theirs in path.joins[0].on}
            cleared = {column.name for column in other.blanked}
            if not other.deletes and cleared.isdisjoint(columns):
                what = f"rows of `{table.name}` would never go: those of `{other.name}` stay, and refer to them by {names(sorted(columns))}"
                yield link.place.problem(
                    what, f"`anonymise: null` on that field of `{other.name}`, or another `on_erasure`"
                )


def _mentions(shape: Shape) -> Iterator[Problem]:
    """Columns that name a person other than the one whose row it is, and that nothing would clear."""
    store, live = shape.store, shape.live
    target = (store.root, store.identity)
    loosened = {(key.table, column) for key in live.foreign_keys if key.on_delete in LOOSENS for column in key.columns}
    named = {
        (key.table, column)
        for key in live.foreign_keys
        for column, to_column in pairs(key)
        if (key.to_table, to_column) == target
    }
    named |= {(each.table, own) for each in store.references for own, to in each.on if (each.to_table, to) == target}
    for name, column_name in sorted(named):
        table = store.tables.get(name)
        column = table.column(column_name) if table else None
        if table is None or column is None or (name, column_name) in loosened or _is_cleared(shape, table, column):
            continue
        what = f"`{name}.{column_name}` can name another person than the one whose row it is, and nothing clears it"
        write = (
            "`habeas: {anonymise: null}` on it with a reference to the root, or a foreign key with ON DELETE SET NULL"
        )
        yield column.place.problem(what, write)


def _mentions_by_value(shape: Shape) -> Iterator[Problem]:
    """Columns that name a person by another value of the root's row than the account id, an e-mail address say, and that nothing clears."""
    store = shape.store
    for table in store.personal:
        for reference in table.references:
            if reference.to_table != store.root or store.identity in reference.to_columns or table.name == store.root:
                continue
            key = shape.enforced(reference)
            is_let_go = bool(reference.when_parent_goes) or (key is not None and key.on_delete in LOOSENS)
            columns = [column for name in reference.columns if (column := table.column(name)) is not None]
            if is_let_go or any(_is_cleared(shape, table, column) for column in columns):
                continue
            theirs = _spelled(store.root, reference.to_columns)
            what = f"{_spelled(table.name, reference.columns)} names a person as {theirs} does, and nothing clears it"
            write = f"a link `{{by: {reference.columns[0]}}}` that says what becomes of those rows"
            yield (columns[-1].place if columns else table.place).problem(what, write)


def _is_cleared(shape: Shape, table: Table, column: Column) -> bool:
    """Whether a link begins with it (what becomes of those rows is said there), or it lets go of a row of the root that is deleted."""
    for link in table.links:
        if any(column.name in path.own_columns for path in link.paths) and (
            link.role is not Role.ACCESSOR or column in link.blanked or link.paths[0].within is not None
            or link.erasure is Action.NONE
        ):  # fmt: skip
            return True
    root = shape.store.tables.get(shape.store.root)
    return (
        root is not None
        and root.deletes
        and any(each.to_table == root.name and column.name in dict(each.detached) for each in table.references)
    )


def _claims_nobody(store: StoreMap, live: LiveSchema) -> Iterator[Problem]:
    """Tables said to hold nothing personal, while the database leads from them to a person, or to rows that go."""
    for table in store.tables.values():
        if table.links or isinstance(table.erasure, Kept):
            continue
        said = {frozenset(each.on) for each in table.references if each.when_parent_goes is not None}
        for key in live.foreign_keys:
            if key.table != table.name or key.to_table != store.root or frozenset(pairs(key)) in said:
                continue
            what = (
                f"`{table.name}` is said to hold no person's data, but {names(key.columns)} leads to `{key.to_table}`"
            )
            write = "`references` on that field, and what an erasure does to the rows"
            yield table.place.problem(what, write, "habeas")


def _ambiguous(store: StoreMap, live: LiveSchema) -> Iterator[Problem]:
    """Ids and references that several rows answer to, so that rows of others would be taken for this person's, and types that differ."""
    root = live.tables.get(store.root)
    if root is not None and store.identity in root.columns and not root.is_unique([store.identity]):
        what = f"`{store.root}.{store.identity}` is not unique, so one account id could be two people"
        write = (
            "a column with a primary key or a unique index on it alone as the identity, or such an index on this one; `root: none` if the "
            "store has no table of people"
        )
        yield store.tables[store.root].place.problem(what, write)
    for table in store.personal:
        for link in table.links:
            for path in link.paths:
                yield from _alike(store, table, path, live)
                yield from _of_one_kind(store, table, link, path, live)
                for join in path.joins[:1]:
                    yield from _leads_to_one(table, join, live)
        for reference in table.references:
            if reference.when_parent_goes is not None:
                yield from _leads_to_one(table, Join(reference.on, reference.to_table, (), reference.is_caseless), live)


def _alike(store: StoreMap, table: Table, path: SubjectPath, live: LiveSchema) -> Iterator[Problem]:
    """An id that is one with another in one table must not be two in the next: there, rows would be left behind."""
    if not path.direct or not store.has_root:
        return
    own, root = (live.type_of(*of) for of in ((table.name, path.subject_column), (store.root, store.identity)))
    if own != root and own is not None and CASELESS in {own, root}:
        what = f"`{table.name}.{path.subject_column}` ({own}) tells ids apart otherwise than `{store.root}.{store.identity}` ({root})"
        yield table.place.problem(what, "both as `citext`, or none of them")


def _of_one_kind(store: StoreMap, table: Table, link: Link, path: SubjectPath, live: LiveSchema) -> Iterator[Problem]:
    """An id beside a column that tells of what it is the id may be that of a team: `owner_id` and `owner_type`.

    Not so on the root, nor where the column is named like the account id itself, or has a foreign key.
    """
    if table.name == store.root or table.name not in live.tables or (path.joins and path.joins[0].is_down):
        return
    columns = live.tables[table.name].columns
    for own in path.own_columns:
        enforced = any(own in key.columns for key in live.foreign_keys if key.table == table.name)
        told = {column for column, _ in path.where}
        kinds = [kind for kind in _kinds_of(own) if kind in columns and kind != own]
        is_named = own in {IDENTITY, store.identity}
        if kinds and not (is_named or enforced or told & set(kinds)):
            what = f"`{table.name}.{own}` may be the id of something else than a person, as `{kinds[0]}` says"
            yield link.place.problem(what, f"`where: {{{kinds[0]}: VALUE}}` with what it says of people's rows")


def _kinds_of(column: str) -> tuple[str, ...]:
    """Return the names of columns that would say of what kind of thing a column is the id, as frameworks call them."""
    stem = column.removesuffix("_id").removesuffix("_pk")
    if stem == column:
        return ()
    generic = ("content_type_id", "content_type") if stem == "object" else ()
    return (f"{stem}_type", f"{stem}_type_id", f"{stem}_kind", *generic)


def _leads_to_one(table: Table, join: Join, live: LiveSchema) -> Iterator[Problem]:
    """A reference has to lead to one row, and both of its ends have to be of types that PostgreSQL compares."""
    ours = tuple(own for own, _ in join.on)
    theirs = tuple(other for _, other in join.on)
    referring, referred = (join.table, table.name) if join.is_down else (table.name, join.table)
    by, to = (theirs, ours) if join.is_down else (ours, theirs)
    column = table.column(ours[0])
    place = column.place if column is not None else table.place
    kinds = [(live.type_of(referring, one), live.type_of(referred, other)) for one, other in zip(by, to, strict=True)]
    if any(one is None or other is None for one, other in kinds):
        return
    reference = f"{_spelled(referring, by)} refers to {_spelled(referred, to)}"
    found = live.tables[referred]
    is_unique = found.is_unique_caseless(to) if join.is_caseless else found.is_unique(to)
    if not is_unique:
        what = f"{reference}, which is not unique: rows of others would be taken for the same person's"
        write = "a reference to a column with a primary key or a unique index on it alone"
        if join.is_caseless:
            write = "a unique index on lower() of that column, or `match: exact`"
        elif len(to) > 1:
            write = "a reference to columns with a primary key or a unique index on them together"
        yield place.problem(what, write)
    for one, other in kinds:
        alike = any({one, other} <= kind for kind in (TEXT_TYPES - {CASELESS}, INTEGER_TYPES))
        if one != other and not alike and not join.is_caseless:
            what = f"{reference}, but `{one}` and `{other}` are not compared with each other"
            yield place.problem(what, "a reference to a column of the same type")


def _spelled(table: str, columns: tuple[str, ...]) -> str:
    return ", ".join(f"`{table}.{column}`" for column in columns)
