"""Random data maps that say every table of a schema rightly, as the contract of the language has it."""

from collections.abc import Collection
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import yaml
from typing_extensions import override

from tests.property.datamap.model import LOOSENS, Document, Feature, Reference, Schema, Table, Way

DETACH: Final = "detach"
DELETE: Final = "delete"
KEEP_PARENT: Final = "keep_parent"
TEMPLATE: Final = {"template": "deleted-{random}@example.invalid"}

POLICY: Final = """
policy: {version: "1", controller: {name: A, country: DE, time_zone: Europe/Berlin, dpo: privacy@example.org, authority: B}}
regimes: [gdpr]
answer_within: 30d
notice_of_changes: 30d
children: {under: 16}
categories:
  usage: {data: [user.behavior], source: observed, portable: observed}
purposes:
  run: {categories: [usage], basis: contract}
retention:
  short: {for: 90d}
  invoices: {for: 10y, from: end_of_year, ground: legal_obligation, law: "§ 147 AO"}
"""


@dataclass
class Said:
    """What is decided of one table."""

    table: Table
    treatment: str = DELETE
    owner: Way | None = None
    anonymise: dict[str, Any] = field(default_factory=dict)
    listed: list[str] = field(default_factory=list)
    words: dict[Reference, Any] = field(default_factory=dict)
    where: dict[str, Any] = field(default_factory=dict)
    goes: bool = False
    cascaded: bool = False


def map_of(schema: Schema, rng: Random, on: Collection[Feature]) -> Document:
    """Return a map as YAML would read it; the same state of `rng` gives the same."""
    return _Saying(schema, rng, on).document()


class _Writer(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # either of them
    """Writes everything out, also what stands twice."""

    @override
    def ignore_aliases(self, data: object) -> bool:
        return True


def written(document: Document) -> str:
    """Return the file."""
    text: str = yaml.dump(document, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=140)
    return text


class _Saying:
    def __init__(self, schema: Schema, rng: Random, on: Collection[Feature]) -> None:
        self.schema = schema
        self.rng = rng
        self.on = on
        self.said = {name: Said(table) for name, table in schema.tables.items()}
        self.decided: set[str] = set()

    def chance(self, part: float, *features: Feature) -> bool:
        """Whether it happens; never where a feature is off."""
        return self.rng.random() < part and all(feature in self.on for feature in features)

    def document(self) -> Document:
        for said in self.said.values():
            self._treat(said)
        for said in self.said.values():
            for reference in sorted(
                self.schema.of(said.table.name), key=lambda each: (each.to_table == each.table, self._closes(each))
            ):
                self._word(said, reference)
        datasets = []
        for schema in sorted(
            {table.schema for table in self.schema.tables.values()}, key=lambda name: name != "public"
        ):
            notes: Document = {"store": "platform", "connection": "PLATFORM_DSN", "schema": schema}
            if schema == "public":
                notes["root"] = self.schema.root
            collections = [self._collection(said) for said in self.said.values() if said.table.schema == schema]
            key = "platform" if schema == "public" else schema
            datasets.append({"fides_key": key, "habeas": notes, "collections": collections})
        return {"dataset": datasets}

    # -- treatments

    def _treat(self, said: Said) -> None:
        table = said.table
        if table.name == self.schema.root:
            self._treat_root(said)
            return
        if table.is_nobodys:
            said.treatment = ""
            return
        owners = [way for way in table.ways if way.role == "owner"]
        said.owner = owners[0] if len(owners) == 1 else None
        for way in table.ways:
            if way.role != "owner" and way.kind in {"reference", "identity"}:
                self._mention(said, way)
        if table.co_owned or len(owners) > 1:
            said.treatment, said.goes = DELETE, True
        elif not owners:
            said.treatment = "none" if table.ways else ""
        else:
            self._treat_owned(said, owners[0])

    def _treat_root(self, said: Said) -> None:
        said.goes = not self.chance(0.12, Feature.TEMPLATES)
        said.treatment = DELETE if said.goes else "anonymise"
        if said.goes:
            return
        said.anonymise = {"email": TEMPLATE, "name": "erased" if self.chance(0.5) else TEMPLATE}
        said.anonymise |= {
            name: None for name in said.table.columns if name.startswith("home_") and name.endswith("_id")
        }

    def _mention(self, said: Said, way: Way) -> None:
        column = way.columns[-1]
        not_null = said.table.columns[column].not_null
        said.anonymise[column] = self._ghost() if not_null else None
        if not_null and (self.schema.ghost is None or column in said.table.key):
            del said.anonymise[column]

    def _ghost(self) -> Any:  # noqa: ANN401 -- what YAML holds
        ghost = self.schema.ghost
        return int(ghost) if ghost is not None and ghost.isdigit() else ghost

    def _treat_owned(self, said: Said, way: Way) -> None:
        table = said.table
        reference = self.schema.by(table.name, way.columns)
        firm = reference is not None and reference.enforced and self.said[reference.to_table].goes
        column = table.columns[way.columns[-1]]
        if way.where:
            said.where = dict(way.where)
        elif not firm and "kind" in table.columns and self.chance(0.4, Feature.WHERE):
            said.where = {"kind": self.rng.choice(("a", ["a", "b"], [None, "a"], None))}
        to_root = reference is not None and reference.to_table == self.schema.root
        can_clear = not column.not_null or (to_root and self.schema.ghost is not None and len(way.columns) == 1)
        can_clear = can_clear and column.name not in table.key
        is_membership = any(each.other == table.name for other in self.schema.tables.values() for each in other.ways)
        stays = self.chance(0.45) and (not firm or can_clear) and not is_membership
        said.treatment = self.rng.choice(self._stays(table)) if stays else DELETE
        if said.treatment == "none" and firm:
            said.treatment = "anonymise"
        if said.treatment in {"anonymise", "keep"}:
            if firm:
                said.anonymise[column.name] = None if not column.not_null else self._ghost()
            elif self.chance(0.3) and not column.not_null and len(way.columns) == 1 and column.name not in table.key:
                said.anonymise[column.name] = None
            self._choose_blanks(said)
            said.listed = [name for name in said.anonymise if name not in self._mentioned(table)]
            if not said.listed:
                said.treatment = "none" if not firm else DELETE
        said.goes = said.treatment == DELETE

    def _stays(self, table: Table) -> list[str]:
        has_age = table.columns.get("created_at")
        choices = ["anonymise", "anonymise", "none"]
        return [*choices, "keep"] if has_age is not None and has_age.not_null and Feature.KEEP in self.on else choices

    def _mentioned(self, table: Table) -> set[str]:
        return {name for way in table.ways if way.role == "accessor" for name in way.columns}

    def _choose_blanks(self, said: Said) -> None:
        for name in ("body", "code", "kind"):
            column = said.table.columns.get(name)
            if column is None or name in said.where or not self.chance(0.7):
                continue
            if not column.not_null and self.chance(0.6):
                said.anonymise[name] = None
            elif not column.unique:
                said.anonymise[name] = "it's erased"
            elif Feature.TEMPLATES in self.on:
                said.anonymise[name] = {"template": self.rng.choice(("gone-{random}", "gone-{key}-{random}"))}

    # -- references

    def _closes(self, reference: Reference) -> bool:
        """Whether a reference leads to a later table."""
        names = list(self.schema.tables)
        return names.index(reference.to_table) > names.index(reference.table)

    def _word(self, said: Said, reference: Reference) -> None:
        """Choose what becomes of rows whose parent goes, where the database enforces the reference and the parent may go."""
        parent = self.said[reference.to_table]
        column = said.table.columns[reference.columns[-1]]
        if self._is_shared(said, reference) or not reference.enforced or self._is_settled(said, reference):
            return
        if self._closes(reference):
            said.words[reference] = DETACH
            return
        if not parent.goes:
            return
        choices = []
        if not column.not_null and Feature.DETACH in self.on and column.name not in said.table.key:
            choices += [DETACH, DETACH]
        if not parent.table.co_owned:
            choices += [DELETE] if Feature.DELETE_WITH_PARENT in self.on and not self._is_kept(said) else []
            choices += [KEEP_PARENT] * 4 if Feature.KEEP_PARENT in self.on and self._can_stay(parent, said) else []
        is_way = any(way.columns == reference.columns and way.role == "owner" for way in said.table.ways)
        if reference.on_delete in LOOSENS and not column.not_null and not is_way and not parent.table.co_owned:
            choices += [""]
        if is_way and said.treatment == DELETE:
            choices = [each for each in choices if each == DELETE] or choices
        if not choices:
            self._abandon(reference)
            return
        word = self.rng.choice(choices)
        if word:
            said.words[reference] = word
        if word == DELETE:
            said.goes = said.cascaded = True
        if word == KEEP_PARENT:
            self._hold(parent)

    def _is_shared(self, said: Said, reference: Reference) -> bool:
        """Whether a reference makes a row shared, or leads to a co-owner: then it needs no word, and may have one."""
        column = said.table.columns[reference.columns[-1]]
        if any(
            way.role == "co_owner" and way.columns == reference.columns
            for way in said.table.ways
            if way.kind == "reference"
        ):
            return True
        for way in self.said[reference.to_table].table.ways:
            is_through = way.kind == "through" and way.other == said.table.name
            if is_through or (way.kind == "from" and way.columns == reference.columns):
                if self.chance(0.5, Feature.HOLDER_WORDS):
                    said.words[reference] = DELETE if column.not_null else DETACH
                    said.cascaded = said.cascaded or column.not_null
                return True
        return False

    def _abandon(self, reference: Reference) -> None:
        """Where nothing that is on would do, the schema is made without the foreign key."""
        at = self.schema.references.index(reference)
        loose = Reference(
            reference.table, reference.columns, reference.to_table, reference.to_columns, enforced=False, on_parts=False
        )
        self.schema.references[at] = loose

    def _is_settled(self, said: Said, reference: Reference) -> bool:
        """Whether rows that refer to a doomed one are doomed themselves, or let go of it, by their own links."""
        table, parent = said.table, self.said[reference.to_table]
        for way in table.ways:
            if way.columns != reference.columns or way.kind != "reference":
                continue
            if way.columns[-1] in said.anonymise and not self._is_kept(said):
                return not parent.cascaded
            return said.treatment == DELETE and not parent.cascaded and not self._is_kept(said)
        return False

    def _is_kept(self, said: Said) -> bool:
        """Whether rows of it may be kept for others that hang on them."""
        return any(
            word == KEEP_PARENT
            for other in self.said.values()
            for reference, word in other.words.items()
            if reference.to_table == said.table.name
        )

    def _can_stay(self, parent: Said, child: Said) -> bool:
        """Whether rows that others hang on can be anonymised instead: nothing that goes may be left referred to by them."""
        if parent.cascaded or parent.treatment != DELETE or parent.table.name == self.schema.root:
            return False
        if parent is not child and any(each not in parent.words for each in self._unsettled(parent)):
            return False
        if parent is child and any(
            each not in parent.words for each in self._unsettled(parent) if each.to_table != each.table
        ):
            return False
        blanks = [name for name in ("body", "kind") if name in parent.table.columns]
        return bool(blanks) and all(self._clearable(parent, way) for way in parent.table.ways)

    def _unsettled(self, said: Said) -> list[Reference]:
        """References to tables that go, other than those of people's ids."""
        return [
            each
            for each in self.schema.of(said.table.name)
            if each.enforced
            and each.to_table != self.schema.root
            and self.said[each.to_table].goes
            and not (each.on_delete in LOOSENS and not said.table.columns[each.columns[-1]].not_null)
            and said.words.get(each) not in {DETACH, KEEP_PARENT}
        ]

    def _clearable(self, said: Said, way: Way) -> bool:
        if way.kind not in {"reference", "identity"} or way.role == "co_owner":
            return False
        if way.identity != "account_id" and said.table.columns[way.columns[-1]].not_null:
            return False
        column = said.table.columns[way.columns[-1]]
        if column.name in said.table.key:
            return False
        reference = self.schema.by(said.table.name, way.columns)
        if reference is not None and reference.to_table != self.schema.root:
            return reference in said.words or (not reference.enforced and not column.not_null)
        return not column.not_null or (self.schema.ghost is not None and len(way.columns) == 1)

    def _hold(self, said: Said) -> None:
        """Say what becomes of rows that are kept for others."""
        for name in ("body", "kind"):
            if (
                name in said.table.columns
                and name not in said.where
                and (name == "body" or "body" not in said.table.columns)
            ):
                said.anonymise.setdefault(name, "erased")
        for way in said.table.ways:
            reference = self.schema.by(said.table.name, way.columns)
            if way.kind == "identity" or (reference is not None and reference.to_table == self.schema.root):
                not_null = said.table.columns[way.columns[-1]].not_null
                if way.identity == "account_id" or not not_null:
                    said.anonymise.setdefault(way.columns[-1], self._ghost() if not_null else None)
            elif reference is not None and reference not in said.words:
                said.anonymise.setdefault(way.columns[-1], None)

    # -- the document

    def _collection(self, said: Said) -> Document:
        table = said.table
        notes: Document = {"category": "usage"}
        if table.is_nobodys or not said.treatment:
            named = {column for each in said.words for column in each.columns}
            named |= {column for each in self.schema.to(table.name) for column in each.to_columns}
            fields = [self._field(said, name) for name in table.columns if name in named]
            return {"name": table.bare, "habeas": {"personal": False, "reason": "about nobody"}, "fields": fields}
        notes |= self._erasure(said)
        long = self._needs_links(said) or self.chance(0.3, Feature.LINKS)
        if table.name == self.schema.root:
            long = False
        elif not long and said.owner is not None:
            notes["path"] = said.owner.columns[-1]
        if long:
            on_link = bool(said.where) and (len(table.ways) > 1 or self.chance(0.5))
            if said.where and not on_link:
                notes["where"] = said.where
            notes["links"] = {
                way.name: self._link(said, way, said.where if on_link and way is said.owner else {})
                for way in table.ways
            }
            self._say_on_link(said, notes)
        elif said.where:
            notes["where"] = said.where
        return {"name": table.bare, "habeas": notes, "fields": [self._field(said, name) for name in table.columns]}

    def _say_on_link(self, said: Said, notes: Document) -> None:
        """Let the owner's link say what becomes of its rows, and the collection something that then concerns nobody."""
        if said.owner is None or said.table.co_owned or self._is_kept(said) or not self.chance(0.4):
            return
        erasure = notes["on_erasure"]
        link = notes["links"][said.owner.name]
        link["on_erasure"] = {"anonymise": said.listed} if erasure == "anonymise" else erasure
        if erasure == "none":
            link["reason"] = notes["reason"]
        elif not isinstance(erasure, dict):
            notes |= {"on_erasure": "none", "reason": "the link says it"}

    def _needs_links(self, said: Said) -> bool:
        return said.owner is None or any(
            way.kind not in {"reference", "identity"}
            or (way.role == "accessor" and way.columns[-1] not in said.anonymise)
            or way.role == "co_owner"
            for way in said.table.ways
        )

    def _erasure(self, said: Said) -> Document:
        has_age = "created_at" in said.table.columns
        if said.treatment == "keep":
            erasure = {"keep": "legal_obligation", "until": "invoices", "anonymise": said.listed}
            return {"retention": "invoices", "age": "created_at", "on_erasure": erasure}
        notes: Document = {"retention": "short", "age": "created_at"} if has_age and self.chance(0.5) else {}
        reference = self.schema.by(said.table.name, said.owner.columns) if said.owner is not None else None
        parent = self.schema.tables[reference.to_table].columns if reference is not None else {}
        if not has_age and "created_at" in parent and self.chance(0.5):
            notes = {"retention": "short", "age": "parent.created_at"}
        notes["on_erasure"] = said.treatment
        if said.treatment == "none":
            notes["reason"] = "nothing to take away"
        return notes

    def _link(self, said: Said, way: Way, where: Document) -> Document:
        link: Document = {}
        if way.kind in {"reference", "identity"}:
            link["by"] = way.columns[0] if len(way.columns) == 1 else list(way.columns)
        elif way.kind == "through":
            link["through"] = way.other
        elif way.kind == "from":
            link["from"] = f"{way.other}.{way.columns[-1]}"
        else:
            link["in"] = way.columns[0]
            if way.at:
                link["at"] = way.at
        if way.role != "owner" and not (way.kind == "from" and self.chance(0.5)):
            link["role"] = way.role
        if way.role == "accessor" and way.kind != "in" and way.columns[-1] in said.anonymise:
            link["on_erasure"] = {"anonymise": [way.columns[-1]]}
        elif way.role == "accessor" and way.kind != "in":
            link |= {"on_erasure": "none", "reason": "the other end has it"}
        if where:
            link["where"] = dict(where)
        if way.role != "owner" and self.chance(0.3):
            others = [name for name in ("body", "code", "kind") if name in said.table.columns]
            link["on_export"] = {"redact": others} if others and self.chance(0.7) else "none"
        return link

    def _field(self, said: Said, name: str) -> Document:
        told: Document = {"name": name}
        notes: Document = {}
        references = [each for each in self.schema.of(said.table.name) if name in each.columns]
        meta = self._meta(said.table, name, references)
        if references:
            group = self._group(references, said.table)
            if group:
                notes["reference"] = group
            word = next(
                (said.words[each] for each in references if each.columns[-1] == name and each in said.words), None
            )
            if word is not None:
                notes["when_parent_goes"] = word
        if (
            any(way.identity == "email" and way.columns == (name,) for way in said.table.ways)
            and self.schema.is_caseless
        ):
            notes["match"] = "case_insensitive"
        if name in said.anonymise:
            notes["anonymise"] = said.anonymise[name]
        if name in {"body", "code", "kind"} and self.chance(0.15):
            notes["export"] = self.rng.choice(("never", "named_only"))
        if meta:
            told["fides_meta"] = meta
        if notes:
            told["habeas"] = notes
        return told

    def _meta(self, table: Table, name: str, references: list[Reference]) -> Document:
        meta: Document = {"primary_key": True} if name in table.key else {}
        if table.name == self.schema.root and name == self.schema.identity:
            meta["identity"] = "account_id"
        if table.name == self.schema.root and name == "email" and Feature.MATCH in self.on:
            meta["identity"] = "email"
        for way in table.ways:
            if way.kind == "identity" and way.columns == (name,):
                meta["identity"] = way.identity
        if references:
            meta["references"] = [
                {
                    "dataset": self._dataset(each),
                    "field": f"{self._bare(each)}.{dict(each.pairs)[name]}",
                    "direction": "from",
                }
                for each in references
            ]
        return meta

    def _dataset(self, reference: Reference) -> str:
        schema = self.schema.tables[reference.to_table].schema
        return "platform" if schema == "public" else schema

    def _bare(self, reference: Reference) -> str:
        return self.schema.tables[reference.to_table].bare

    def _group(self, references: list[Reference], table: Table) -> str | None:
        """Return a name for the reference, where an earlier one leads to the same table and one of both is over several columns."""
        for each in references:
            others = [other for other in self.schema.of(table.name) if other.to_table == each.to_table]
            if others[0] is not each and any(len(other.columns) > 1 for other in others):
                return each.columns[-1]
        return None
