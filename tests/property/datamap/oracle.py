"""What the language means, walked row by row in plain Python: what an erasure leaves, what an export holds, what may be purged."""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from tests.property.datamap.model import LOOSENS, SET_DEFAULT, Content, Reference, Row, Schema
from tests.property.datamap.reading import Book, Link, Stated, Told, spelled

Spot: TypeAlias = tuple[str, int]
"""A row: its table, and its place among the table's rows."""


@dataclass(frozen=True)
class Made:
    """A value that chance makes; where nothing stood, nothing may stay, for there was nothing to overwrite."""

    pattern: str
    may_be_null: bool

    def fits(self, value: str | None) -> bool:
        """Whether it could be this value."""
        return self.may_be_null if value is None else re.fullmatch(self.pattern, value) is not None


Value: TypeAlias = str | Made | None
Expected: TypeAlias = dict[str, Value]

RANDOM: Final = "[0-9a-f]{16,32}"


@dataclass(frozen=True)
class Erased:
    """What is there after an erasure; `doomed`, `kept` and `touched` say which rows went, stayed in spite of it, and were changed."""

    content: dict[str, list[Expected]]
    doomed: frozenset[Spot]
    kept: frozenset[Spot]
    touched: frozenset[Spot]

    def held(self) -> Content:
        """Return the rows with something in the place of what chance makes."""
        return {
            table: [
                {name: value.pattern if isinstance(value, Made) else value for name, value in row.items()}
                for row in rows
            ]
            for table, rows in self.content.items()
        }


class Oracle:
    """The meaning of one map over one content of a database."""

    def __init__(self, book: Book, schema: Schema, content: Content) -> None:
        self.book = book
        self.schema = schema
        self.content = content
        self._targets: dict[tuple[str, tuple[str, ...], bool], dict[tuple[str, ...], list[int]]] = {}
        self.leads: dict[tuple[str, str], dict[int, set[str]]] = {}
        self._follow_all()

    # -- whose rows

    def rows(self, table: str) -> Iterator[tuple[int, Row]]:
        """Rows of a table with their places."""
        return enumerate(self.content[table])

    def targets(
        self, table: str, columns: tuple[str, ...], row: Row, own: tuple[str, ...], *, folded: bool = False
    ) -> list[int]:
        """Places of those rows of a table whose columns equal those of a row; NULL equals nothing."""
        known = self._targets.get((table, columns, folded))
        if known is None:
            known = self._targets[table, columns, folded] = defaultdict(list)
            for at, each in self.rows(table):
                values = [each[column] for column in columns]
                if None not in values:
                    known[tuple(_folded(value or "", folded=folded) for value in values)].append(at)
        held = [row[column] for column in own]
        return [] if None in held else known.get(tuple(_folded(each or "", folded=folded) for each in held), [])

    def _follow_all(self) -> None:
        links = [link for told in self.book.tables.values() for link in told.links]
        self.leads = {(link.table, link.name): defaultdict(set) for link in links}
        grown = True
        while grown:
            grown = False
            for link in links:
                for at, person in self._followed(link):
                    known = self.leads[link.table, link.name][at]
                    if person not in known:
                        known.add(person)
                        grown = True

    def _followed(self, link: Link) -> Iterator[tuple[int, str]]:
        told = self.book.tables[link.table]
        if link.kind in {"through", "from"}:
            yield from self._from_others(link)
            return
        for at, row in self.rows(link.table):
            if _holds(link.where, row) and (link.is_anywhere or _holds(told.where, row)):
                yield from ((at, person) for person in self._led(link, told, row))

    def _led(self, link: Link, told: Told, row: Row) -> Iterator[str]:
        if link.kind == "in":
            yield from _inside(row[link.columns[0]], link.at)
            return
        kind = told.identity(link.columns[0])
        value = row[link.columns[0]]
        if kind == "account_id":
            if value is not None:
                yield value
            return
        if kind is not None:
            held = next(name for name in self._root.fields if self._root.identity(name) == kind)
            folded = told.notes(link.columns[0]).get("match") == "case_insensitive"
            for at in self.targets(self.book.root, (held,), row, link.columns, folded=folded):
                yield self.content[self.book.root][at][self.book.identity] or ""
            return
        stated = told.stated_with(link.columns)
        if stated is None:
            return
        if (stated.to_table, stated.to_columns) == (self.book.root, (self.book.identity,)):
            if value is not None:
                yield value
            return
        for at in self.targets(stated.to_table, stated.to_columns, row, stated.columns):
            yield from self.owners(stated.to_table, at)

    @property
    def _root(self) -> Told:
        return self.book.tables[self.book.root]

    def owners(self, table: str, at: int, roles: Collection[str] = ("owner", "co_owner")) -> set[str]:
        """People whose row it is."""
        found: set[str] = set()
        for link in self.book.tables[table].links:
            if link.role in roles:
                found |= self.leads[link.table, link.name].get(at, set())
        return found

    def _from_others(self, link: Link) -> Iterator[tuple[int, str]]:
        told = self.book.tables[link.table]
        roles = ("owner",) if link.kind == "through" else ("owner", "co_owner")
        for stated in self.book.tables[link.other].stated:
            if stated.to_table != link.table or not set(link.columns) <= set(stated.columns):
                continue
            for other, row in self.rows(link.other):
                for at in self.targets(link.table, stated.to_columns, row, stated.columns):
                    mine = self.content[link.table][at]
                    if _holds(link.where, mine) and _holds(told.where, mine):
                        yield from ((at, person) for person in self.owners(link.other, other, roles))

    # -- erasure

    def erase(self, people: Collection[str]) -> Erased:
        """Return what is there after an erasure of a set of people."""
        return _Erasure(self, set(people)).erased()

    def hangs(self, table: str) -> Stated | None:
        """Return the reference by which a table hangs on a co-owned one, directly or over others; None where it does not."""
        return self._hangs(table, ())

    def _hangs(self, table: str, seen: tuple[str, ...]) -> Stated | None:
        told = self.book.tables[table]
        for link in told.links:
            if link.kind != "by" or link.role != "owner" or told.identity(link.columns[0]) or table in seen:
                continue
            stated = told.stated_with(link.columns)
            if stated is None or stated.to_table == self.book.root:
                continue
            parent = self.book.tables[stated.to_table]
            if any(each.role == "co_owner" for each in parent.links) or self._hangs(stated.to_table, (*seen, table)):
                return stated
        return None

    # -- export

    def export(self, person: str) -> dict[str, list[Row]]:
        """Return the rows that a person gets, of each table that has any, without what is not shown or redacted."""
        found: dict[str, list[Row]] = {}
        for told in self.book.tables.values():
            for at, row in self.rows(told.name):
                redacted: set[str] | None = None
                for link in told.links:
                    if person in self.leads[link.table, link.name].get(at, ()) and link.export != "none":
                        left_out = set(link.export["redact"]) if isinstance(link.export, dict) else set()
                        redacted = left_out if redacted is None else redacted & left_out
                if redacted is not None:
                    shown = [name for name in told.fields if told.notes(name).get("export", "shown") == "shown"]
                    found.setdefault(told.name, []).append(
                        {name: None if name in redacted else row[name] for name in shown}
                    )
        return found

    # -- purge

    def references(self) -> list[Stated | Reference]:
        """Return every reference, of the map and of the database."""
        stated = [each for told in self.book.tables.values() for each in told.stated]
        return [*stated, *(each for each in self.schema.references if each.enforced)]

    def purgeable(self, table: str, cutoff: str, held: Collection[str]) -> tuple[set[int], set[int]]:
        """Return places of rows that may go because of their age, and of those that have to; never of people in `held`."""
        may: set[int] = set()
        must: set[int] = set()
        for at, row in self.rows(table):
            age, is_theirs = self._age(self.book.tables[table], row)
            if age is not None and age < cutoff and self.owners(table, at).isdisjoint(held):
                may.add(at)
                # Whether rows that only name somebody are held with them, the language leaves open.
                if is_theirs and self.owners(table, at, ("accessor",)).isdisjoint(held):
                    must.add(at)
        for reference in self.references():
            if reference.to_table == table:
                for _, row in self.rows(reference.table):
                    must.difference_update(self.targets(table, reference.to_columns, row, reference.columns))
        return may, must

    def _age(self, told: Told, row: Row) -> tuple[str | None, bool]:
        """Return since when a row ages, its own time or that of the row above it, and whether the conditions on the way hold."""
        above, _, column = (told.age or "").rpartition(".")
        if not above:
            return row[column], True
        link = next(each for each in told.links if each.role == "owner")
        stated = told.stated_with(link.columns)
        holds = _holds(link.where, row) and _holds(told.where, row)
        for at in self.targets(stated.to_table, stated.to_columns, row, stated.columns) if stated else ():
            parent = self.content[stated.to_table][at] if stated else {}
            theirs = self.book.tables[stated.to_table] if stated else told
            return parent[column], holds and _holds(theirs.where, parent) and bool(self.owners(theirs.name, at))
        return None, False


class _Erasure:
    """One erasure."""

    def __init__(self, oracle: Oracle, people: set[str]) -> None:
        self.oracle = oracle
        self.book = oracle.book
        self.people = people
        self.kept: set[Spot] = set()
        self.doomed: set[Spot] = set()
        self.overwritten: dict[Spot, set[str]] = {}

    def erased(self) -> Erased:
        while True:
            self.doomed = self._doomed()
            kept = self._held_by_others()
            if not kept:
                break
            self.kept |= kept
        content: dict[str, list[Expected]] = {}
        touched: set[Spot] = set()
        for table in self.oracle.content:
            content[table] = []
            for at, row in self.oracle.rows(table):
                if (table, at) not in self.doomed:
                    after = self._after((table, at), row)
                    content[table].append(after)
                    if after != row:
                        touched.add((table, at))
        return Erased(content, frozenset(self.doomed), frozenset(self.kept), frozenset(touched))

    def _doomed(self) -> set[Spot]:
        """Return the least set that the three rules and the rows already kept allow."""
        self.doomed = set()
        grown = True
        while grown:
            grown = False
            for told in self.book.tables.values():
                for at, row in self.oracle.rows(told.name):
                    spot = (told.name, at)
                    if spot not in self.doomed and spot not in self.kept and self._goes(told, at, row):
                        self.doomed.add(spot)
                        grown = True
        return self.doomed

    def _goes(self, told: Told, at: int, row: Row) -> bool:
        for stated in told.stated:
            if stated.word == "delete" and self._refers_to_doomed(stated, row):
                return True
        hanging = self.oracle.hangs(told.name)
        for link in told.links:
            led = self.oracle.leads[link.table, link.name].get(at, set())
            if link.erasure != "delete" or not led & self.people:
                continue
            if link.role == "co_owner":
                if self._nobody_else(told, link, at):
                    return True
            elif hanging is not None and link.columns == hanging.columns:
                if self._refers_to_doomed(hanging, row):
                    return True
            elif link.role == "owner":
                return True
        return False

    def _refers_to_doomed(self, reference: Stated | Reference, row: Row) -> bool:
        targets = self.oracle.targets(reference.to_table, reference.to_columns, row, reference.columns)
        return any((reference.to_table, at) in self.doomed for at in targets)

    def _nobody_else(self, told: Told, link: Link, at: int) -> bool:
        if link.kind == "by":
            nobody = self.people | self.book.ghosts
            others = [each for each in told.links if each.role == "co_owner" and each.kind == "by" and each is not link]
            return all(self.oracle.leads[each.table, each.name].get(at, set()) <= nobody for each in others)
        for reference in self.oracle.references():
            if reference.to_table != told.name or (reference.table != link.other and self._lets_go(reference)):
                continue
            for other, row in self.oracle.rows(reference.table):
                spot = (reference.table, other)
                if self._goes_along(reference, row):
                    continue
                held = at in self.oracle.targets(told.name, reference.to_columns, row, reference.columns)
                if held and spot not in self.doomed and not self._overwritten(spot) & set(reference.columns):
                    return False
        return True

    def _goes_along(self, reference: Stated | Reference, row: Row) -> bool:
        """Whether a row goes with the shared row on which it hangs, as its owner link has it."""
        told = self.book.tables[reference.table]
        hanging = self.oracle.hangs(told.name)
        if hanging is None or hanging.columns != reference.columns:
            return False
        links = [link for link in told.links if link.columns == hanging.columns and link.erasure == "delete"]
        return any(_holds(link.where, row) and _holds(told.where, row) for link in links)

    def _lets_go(self, reference: Stated | Reference) -> bool:
        """Whether rows that refer by it keep nothing: they are detached."""
        if isinstance(reference, Reference):
            if reference.on_delete in LOOSENS:
                return True
            return any(
                each.word == "detach" and each.columns == reference.columns
                for each in self.book.tables[reference.table].stated
            )
        enforced = self.oracle.schema.by(reference.table, reference.columns)
        return reference.word == "detach" or (
            enforced is not None and enforced.enforced and enforced.on_delete in LOOSENS
        )

    def _held_by_others(self) -> set[Spot]:
        """Return doomed rows on which a row hangs that is not doomed, by a reference that keeps the parent."""
        held: set[Spot] = set()
        for told in self.book.tables.values():
            for stated in told.stated:
                if stated.word != "keep_parent":
                    continue
                for at, row in self.oracle.rows(told.name):
                    if (told.name, at) not in self.doomed:
                        for parent in self.oracle.targets(stated.to_table, stated.to_columns, row, stated.columns):
                            if (stated.to_table, parent) in self.doomed:
                                held.add((stated.to_table, parent))
        return held

    def _overwritten(self, spot: Spot) -> set[str]:
        """Return the fields that this erasure overwrites in a row that stays."""
        known = self.overwritten.get(spot)
        if known is None or spot in self.kept:
            known = self.overwritten[spot] = set()
            table, at = spot
            told = self.book.tables[table]
            for link in told.links:
                if self.oracle.leads[link.table, link.name].get(at, set()) & self.people:
                    known.update(self._treated(told, link))
            if spot in self.kept:
                own = {name for link in told.links if link.role != "accessor" for name in link.columns}
                known.update(self._plain(told, own))
        return known

    def _plain(self, told: Told, own: Collection[str]) -> Iterator[str]:
        """Return all fields with `anonymise`, but those that name somebody else."""
        for name in told.fields:
            if told.anonymises(name) and (name in own or not self.book.names_people(told.name, name)):
                yield name

    def _treated(self, told: Told, link: Link) -> Iterator[str]:
        if link.erasure == "anonymise":
            yield from self._plain(told, link.columns)
        elif isinstance(link.erasure, dict):
            yield from link.erasure.get("anonymise", ())
        elif link.erasure == "delete" and link.role == "co_owner" and link.kind == "by":
            yield from (name for name in link.columns if told.anonymises(name))

    def _after(self, spot: Spot, row: Row) -> Expected:
        after: Expected = dict(row)
        table, at = spot
        told = self.book.tables.get(table)
        overwritten = self._overwritten(spot) if told is not None else set()
        if told is not None:
            for link in told.links:
                if link.erasure == "remove" and self.oracle.leads[link.table, link.name].get(at, set()) & self.people:
                    after[link.columns[0]] = _without(row[link.columns[0]], link.at, self.people)
            for name in overwritten:
                after[name] = self._becomes(told, name, row)
            for stated in told.stated:
                if stated.word == "detach" and self._refers_to_doomed(stated, row):
                    after.update(stated.detached_to)
        for reference in self.oracle.schema.of(table):
            if reference.enforced and reference.on_delete in LOOSENS and self._refers_to_doomed(reference, row):
                still = all(after[name] == row[name] for name in reference.columns)
                if still:
                    column = self.oracle.schema.tables[table].columns[reference.columns[-1]]
                    default = (column.default or "").strip("'") or None
                    after[column.name] = default if reference.on_delete == SET_DEFAULT else None
        return after

    def _becomes(self, told: Told, name: str, row: Row) -> Value:
        constant: Any = told.notes(name).get("anonymise")
        if not isinstance(constant, dict):
            return spelled(constant)
        keys = self.oracle.schema.tables[told.name].key
        key = ".*?".join(re.escape(row[each] or "") for each in keys)
        pattern = re.escape(constant["template"]).replace(r"\{random\}", RANDOM).replace(r"\{key\}", key)
        return Made(pattern, row[name] is None)


def _folded(value: str, *, folded: bool) -> str:
    return value.lower() if folded else value


def _holds(where: dict[str, list[Any]], row: Row) -> bool:
    return all(row[column] in [spelled(value) for value in values] for column, values in where.items())


def elements(value: str | None) -> list[str]:
    """Return the elements of an array of ids as PostgreSQL writes it."""
    return [] if value in {None, "{}"} else (value or "")[1:-1].split(",")


def _inside(value: str | None, at: str) -> Iterator[str]:
    """Return what an array or a JSON document holds at a path."""
    if value is None:
        return
    if not at:
        yield from (each for each in elements(value) if each != "NULL")
        return
    before, _, after = at.partition("[*]")
    found = _under(json.loads(value), before)
    for each in (found if isinstance(found, list) else []) if "[*]" in at else [found]:
        held = _under(each, f"${after}") if "[*]" in at else each
        if held is not None:
            yield str(held)


def _under(document: Any, at: str) -> Any:  # noqa: ANN401 -- what JSON holds
    """Return what stands under the keys of a path without arrays; None where nothing does."""
    for name in at.split(".")[1:]:
        document = document.get(name) if isinstance(document, dict) else None
    return document


def _without(value: str | None, at: str, people: Collection[str]) -> str | None:
    """Return an array or a document without the elements or the value that name these people."""
    if value is None:
        return None
    if not at:
        return "{" + ",".join(each for each in elements(value) if each not in people) + "}"
    document = json.loads(value)
    before, _, after = at.partition("[*]")
    *above, last = before.split(".")[1:]
    holder = _under(document, ".".join(["$", *above]))
    if "[*]" in at:
        holder[last] = [each for each in holder[last] if str(_under(each, f"${after}")) not in people]
    else:
        del holder[last]
    return json.dumps(document, ensure_ascii=False)
