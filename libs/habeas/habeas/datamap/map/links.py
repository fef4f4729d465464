"""Links of a collection: those that it spells out, or its one way to a person, each with what an erasure and an export do."""

import re
from collections.abc import Iterator, Mapping, Sequence

from habeas.contracts.vocabulary import KeepGround
from habeas.datamap.explain import one_of
from habeas.datamap.map.dataset import (
    IDENTITY,
    REVIEW,
    Action,
    Anonymise,
    ByOne,
    CollectionNotes,
    Keep,
    LinkNotes,
    Redact,
    Role,
    WhenParentGoes,
)
from habeas.datamap.map.listing import UNDECIDED, Collections, conditions, identities
from habeas.datamap.map.model import Column, Kept, Link, Place, names
from habeas.datamap.map.paths import Reference, Said, SubjectPath, Where, Within

_STARTS = frozenset({"by", "through", "from_", "in_"})


class LinkReading:
    """Reads the links of a store's collections; what can't be followed or done is a problem."""

    def __init__(
        self, listed: Collections, references: Mapping[str, tuple[Reference, ...]], target: tuple[str, str]
    ) -> None:
        self.listed = listed
        self.references = references
        self.target = target
        self.erasures: dict[str, Action | Kept] = {}

    def said(self, name: str) -> Iterator[tuple[Said, LinkNotes]]:
        """Ways that a collection spells out, with their notes; those that can't be followed are problems."""
        collection = self.listed.collections[name]
        for word, notes in collection.habeas.links.items():
            at = self.listed.places[name].at("habeas", "links", word)
            given = [key for key, value in notes if key in _STARTS and value is not None]
            if len(given) != 1:
                what = f"the link `{word}` begins {'nowhere' if not given else 'in several ways'}"
                self.listed.problems.append(at.problem(what, "exactly one of `by`, `through`, `from` and `in`"))
                continue
            self.listed.judge_where(name, notes.where, at.at("where"))
            said = self._said_one(name, word, notes, at)
            if said is not None:
                yield said, notes

    def _said_one(self, name: str, word: str, notes: LinkNotes, at: Place) -> Said | None:
        where = conditions(notes.where)
        is_owning = _role(notes) is not Role.ACCESSOR
        if notes.in_ is not None:
            if not self.listed.has_field(name, notes.in_, at.at("in")):
                return None
            keys = None if notes.at is None else _keys(notes.at)
            if notes.role not in {None, Role.ACCESSOR} and (keys is None or None in keys):
                what = f"`{notes.in_}` names several people, none of whom the row belongs to alone"
                self.listed.problems.append(at.problem(what, "`role: accessor`", "role"))
            return Said(word, is_owning, where, notes.in_, Within(keys))
        if isinstance(notes.by, ByOne):
            return self._by_one(name, word, notes.by, where, at, is_owning=is_owning)
        if notes.by is not None:
            columns = (notes.by,) if isinstance(notes.by, str) else notes.by
            if not all(self.listed.has_field(name, column, at.at("by")) for column in columns):
                return None
            if len(columns) == 1 and columns[0] in set(identities(self.listed.collections[name])):
                return Said(word, is_owning, where, columns[0])
            found = [each for each in self.references[name] if set(columns) <= set(each.columns)]
            if len(found) != 1:
                what = f"{names(columns)} {'refers to nothing' if not found else 'refers to several tables'}"
                write = f"`references` on it, or `identity: {IDENTITY}`"
                if found:
                    write = f"all fields of one reference, or `by: {{field: {columns[0]}, to: {found[0].to_table}}}`"
                self.listed.problems.append(at.problem(what, write, "by"))
                return None
            return Said(word, is_owning, where, by=found[0])
        dotted = notes.from_ or notes.through or ""
        key = "from" if notes.from_ else "through"
        reference = self._reference_from(name, dotted, at.at(key))
        return None if reference is None else Said(word, is_owning, where, through=reference)

    def _by_one(self, name: str, word: str, by: ByOne, where: Where, at: Place, *, is_owning: bool) -> Said | None:
        """Return the way by one of several tables to which a field may refer."""
        if not self.listed.has_field(name, by.field, at.at("by", "field")):
            return None
        table = self.listed.called(by.to, name)
        found = [each for each in self.references[name] if by.field in each.columns and each.to_table == table]
        if len(found) != 1:
            what = f"`{by.field}` {'does not refer' if not found else 'refers in several ways'} to `{by.to}`"
            to = [each.to_table for each in self.references[name] if by.field in each.columns]
            self.listed.problems.append(at.problem(what, one_of(by.to, to), "by", "to"))
            return None
        return Said(word, is_owning, where, by=found[0])

    def _reference_from(self, name: str, dotted: str, at: Place) -> Reference | None:
        """Find the reference of another collection to this one, by the collection, or by one of its fields too."""
        table, column = self.listed.called(dotted, name), ""
        if table is None and "." in dotted:
            near, _, column = dotted.rpartition(".")
            table = self.listed.called(near, name)
        if table is None:
            self.listed.problems.append(
                at.problem(f"`{dotted}` is no collection here", one_of(dotted, self.listed.collections))
            )
            return None
        found = [each for each in self.references[table] if each.to_table == name and column in {"", *each.columns}]
        if len(found) != 1:
            what = f"`{dotted}` {'does not refer' if not found else 'refers in several ways'} to `{name}`"
            write = f"`references` on a field of `{table}`" if not found else f"`{table}.FIELD`"
            self.listed.problems.append(at.problem(what, write))
            return None
        return found[0]

    def own(self, name: str, columns: tuple[Column, ...], own: tuple[SubjectPath, ...]) -> tuple[Link, ...]:
        """Links of a collection that spells none out: its way to a person, and the fields that name others."""
        if not own:
            return ()
        at = self.listed.places[name]
        naming = {
            *identities(self.listed.collections[name]),
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
        erasure = self.erasure(name, columns)
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

    def spelled(
        self,
        name: str,
        columns: tuple[Column, ...],
        spelled: Sequence[tuple[Said, LinkNotes, tuple[SubjectPath, ...]]],
    ) -> tuple[Link, ...]:
        """Links that a collection spells out, as `said` gave them, each with the ways that were found for it."""
        others: set[str] = set()
        for _, notes, paths in spelled:
            if _role(notes) is Role.ACCESSOR:
                others |= {column for path in paths for column in path.own_columns}
                others |= set(notes.on_erasure.anonymise) if isinstance(notes.on_erasure, Anonymise | Keep) else set()
        mentions = tuple(column for column in columns if column.name in others)
        links: list[Link] = []
        for said, notes, paths in spelled:
            at = self.listed.places[name].at("habeas", "links", said.name)
            for key, given in (("on_erasure", notes.on_erasure), ("on_export", notes.on_export)):
                if given == REVIEW:
                    self.listed.problems.append(at.problem(UNDECIDED, "what is to happen", key))
            if notes.on_export == "review":
                what = "no export waits for a person's review yet, so these rows would be left out without a word"
                self.listed.problems.append(at.problem(what, "`{redact: [FIELD]}`, or `none`", "on_export"))
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
        at, given = self.listed.places[name].at("habeas", "links", said.name), notes.on_erasure
        if isinstance(given, Anonymise | Keep):
            blanked = self._columns_called(columns, given.anonymise, at.at("on_erasure", "anonymise"))
            if isinstance(given, Anonymise):
                return Action.ANONYMISE, blanked
            return self._kept(self.listed.collections[name].habeas, given, at.at("on_erasure")), blanked
        if given is Action.DELETE and _role(notes) is Role.CO_OWNER:
            return given, self._leaving(columns, said)
        if isinstance(given, Action):
            return given, self._anonymised(columns, mentions) if given is Action.ANONYMISE else ()
        if _role(notes) is Role.CO_OWNER and self.erasure(name, columns) is Action.DELETE:
            return Action.DELETE, self._leaving(columns, said)
        if _role(notes) is not Role.ACCESSOR:
            return self.erasure(name, columns), self._blanked(name, columns, mentions)
        if said.within is None and given is None:
            what = f"what becomes of the rows of the link `{said.name}` when the person is erased is missing"
            write = "`on_erasure: {anonymise: [FIELD]}`, or `on_erasure: none` and a `reason`"
            self.listed.problems.append(at.problem(what, write))
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
                self.listed.problems.append(
                    at.problem(f"`{word}` is no field of this table", one_of(word, by_name), index)
                )
        return tuple(by_name[word] for word in wanted if word in by_name)

    def erasure(self, name: str, columns: tuple[Column, ...]) -> Action | Kept:
        """Return what a collection says for its owners; whether it can be done is judged by `_blanked`."""
        notes, at = self.listed.collections[name].habeas, self.listed.places[name].at("habeas", "on_erasure")
        if name not in self.erasures:
            self.erasures[name] = notes.on_erasure if isinstance(notes.on_erasure, Action) else Action.NONE
            if isinstance(notes.on_erasure, Keep):
                self._columns_called(columns, notes.on_erasure.anonymise, at.at("anonymise"))
                self.erasures[name] = self._kept(notes, notes.on_erasure, at)
        return self.erasures[name]

    def _blanked(self, name: str, columns: tuple[Column, ...], mentions: tuple[Column, ...]) -> tuple[Column, ...]:
        """Return the columns that an erasure of an owner overwrites by what the collection says."""
        notes, at = self.listed.collections[name].habeas, self.listed.places[name].at("habeas", "on_erasure")
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
                self.listed.problems.append(
                    at.problem(what, "`habeas: {anonymise: null}` on every field that names the person")
                )
            return blanked
        return ()

    @staticmethod
    def _anonymised(columns: tuple[Column, ...], mentions: tuple[Column, ...]) -> tuple[Column, ...]:
        """What names another person goes when that one is erased, not with the one whose row it is."""
        return tuple(column for column in columns if column.anonymises and column not in mentions)

    def _kept(self, notes: CollectionNotes, keep: Keep, at: Place) -> Action | Kept:
        if keep.until is not None and self.listed.is_known(
            "retention class", keep.until, list(self.listed.policy.retention), at.at("until")
        ):
            self._require_rule(keep.until, notes.retention, at)
        elif notes.retention is None:
            write = "`retention: CLASS` and `age: COLUMN` beside `on_erasure`"
            self.listed.problems.append(at.problem("kept rows have no end", write))
        if not isinstance(keep.keep, KeepGround):
            self.listed.problems.append(at.problem(UNDECIDED, "a ground", "keep"))
            return Action.NONE
        return Kept(keep.keep, notes.retention or "")

    def _require_rule(self, until: str, retention: str | None, at: Place) -> None:
        """People are told when kept rows go: that has to be the class by which the retention sweep lets them go."""
        if retention is None:
            what = f"people would be told the end of `{until}`, but no rule lets the rows go by then"
            self.listed.problems.append(
                at.problem(what, f"`retention: {until}` and `age: COLUMN` beside `on_erasure`", "until")
            )
        elif until != retention:
            what = f"people would be told the end of `{until}`, but the rows go by `{retention}`"
            write = f"`until: {retention}` here, or `retention: {until}` beside `on_erasure`"
            self.listed.problems.append(at.problem(what, write, "until"))


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
