"""Random schemas: tables as platforms have them, put together by chance from one seed."""

from collections.abc import Callable, Collection
from random import Random
from typing import Final

from tests.property.datamap.model import (
    CASCADE,
    NO_ACTION,
    RESTRICT,
    SET_DEFAULT,
    SET_NULL,
    Feature,
    Reference,
    Schema,
    Table,
    Way,
)

NOUNS: Final = (
    *("tasks", "posts", "notes", "orders", "items", "photos", "visits", "drafts", "plans", "events"),
    *("goals", "files", "polls", "votes", "tags", "boards", "cards", "lists", "steps", "runs"),
    *("logs", "keys", "teams", "rooms", "pages", "links", "jobs", "bills", "claims", "tests"),
)
ODD: Final = {
    "orders": "order",
    "users": "user",
    "tasks": "Tasks",
    "files": "old-files",
    "tags": "SELECT",
    "lists": "table",
}
ID_TYPES: Final = ("integer", "text", "uuid")
GHOSTS: Final = {"integer": "0", "text": "ghost", "uuid": "00000000-0000-0000-0000-000000000000"}
TENANT: Final = "tenant_id"


def schema_of(rng: Random, on: Collection[Feature]) -> Schema:
    """Return a schema that uses some of the features; the same state of `rng` gives the same."""
    return _Making(rng, on).schema_of()


class _Making:
    def __init__(self, rng: Random, on: Collection[Feature]) -> None:
        self.rng = rng
        self.on = on
        self.nouns = list(NOUNS)
        rng.shuffle(self.nouns)
        self.schema = Schema({}, [])
        self.id_type = rng.choice(ID_TYPES)

    def chance(self, part: float, *features: Feature) -> bool:
        """Whether it happens; never where a feature is off."""
        return self.rng.random() < part and all(feature in self.on for feature in features)

    def schema_of(self) -> Schema:
        self._root()
        makers: list[tuple[Callable[[], None], int, tuple[Feature, ...]]] = [
            (self._owned, 6, ()),
            (self._hop, 5, ()),
            (self._nobodys, 2, (Feature.NOBODYS,)),
            (self._edge, 2, (Feature.EDGES, Feature.LINKS)),
            (self._polymorphic, 2, (Feature.POLYMORPHIC,)),
            (self._thread, 4, (Feature.SELF_REFERENCE,)),
            (self._letters, 2, (Feature.CO_OWNER, Feature.LINKS)),
            (self._group, 2, (Feature.MEMBERSHIPS, Feature.CO_OWNER, Feature.LINKS)),
            (self._address, 2, (Feature.PARENTS_SIDE, Feature.LINKS)),
            (self._elements, 2, (Feature.ARRAYS, Feature.LINKS)),
            (self._document, 2, (Feature.JSON, Feature.LINKS)),
            (self._mail, 1, (Feature.MATCH,)),
            (self._nobodys_child, 2, (Feature.NOBODYS_CHILD,)),
        ]
        allowed = [(maker, weight) for maker, weight, needs in makers if all(need in self.on for need in needs)]
        size = self.rng.choices((2, 4, 7, 12, 28), (25, 35, 25, 12, 3))[0]
        while len(self.schema.tables) <= size and len(self.nouns) > 2:
            maker = self.rng.choices([each for each, _ in allowed], [weight for _, weight in allowed])[0]
            maker()
        if self.chance(0.4, Feature.CYCLES):
            self._circle()
        return self.schema

    def _root(self) -> None:
        root = Table("accounts")
        if self.chance(0.25, Feature.COMPOSITE):
            root.add(TENANT, "integer", not_null=True)
            root.key = (TENANT, "id")
            root.uniques.append(("id",))
        else:
            root.key = ("id",)
        root.add("id", self.id_type, not_null=True)
        root.add("email", "text", not_null=True, unique=True)
        root.add("name", "text", not_null=self.chance(0.3))
        root.add("closed_at", "timestamptz")
        self.schema.tables["accounts"] = root
        self.schema.is_caseless = self.chance(0.7, Feature.CASELESS, Feature.MATCH)
        if self.chance(0.5, Feature.GHOST):
            self.schema.ghost = GHOSTS[self.id_type]

    def _table(self, *, keyed: bool = True) -> Table:
        """A table with a key and some columns that nobody refers to."""
        name = self.nouns.pop()
        if self.chance(0.5, Feature.NAMES):
            name = ODD.get(name, name)
        if self.chance(0.2, Feature.TWO_SCHEMAS):
            name = f"crm.{name}"
        table = Table(name)
        if keyed:
            self._key(table)
        if self.chance(0.6):
            table.add("body", "text", not_null=self.chance(0.2))
        if self.chance(0.3):
            table.add("code", "text", not_null=self.chance(0.5), unique=table.partition is None)
        if "created_at" not in table.columns and self.chance(0.6):
            table.add("created_at", "timestamptz", not_null=self.chance(0.6))
        if self.chance(0.3):
            table.add("kind", "text")
        self.schema.tables[name] = table
        return table

    def _key(self, table: Table) -> None:
        if self.chance(0.15, Feature.PARTITIONS):
            table.add("id", "integer", not_null=True)
            table.add("created_at", "timestamptz", not_null=True)
            table.key, table.partition = ("id", "created_at"), ("RANGE", "created_at")
            return
        if self.chance(0.35, Feature.COMPOSITE):
            table.add(TENANT, "integer", not_null=True)
            table.key = (TENANT, "id")
            if self.chance(0.3, Feature.PARTITIONS):
                table.partition = ("LIST", TENANT)
        else:
            table.key = ("id",)
        table.add("id", self.rng.choice(ID_TYPES), not_null=True)

    def _parents(self, *, nobodys: bool = False) -> list[Table]:
        """Tables that others may refer to by their key."""
        return [
            table
            for table in list(self.schema.tables.values())[1:]
            if table.is_nobodys is nobodys
            and "id" in table.key
            and table.key[-1] == "id"
            and not table.has_heir
            and all(way.kind != "in" for way in table.ways)
        ]

    def _refer(self, table: Table, parent: Table, stem: str, *, nullable: bool, firm: bool = False) -> Reference:
        """Let a table refer to the key of another, or, of the root, to the id."""
        own = f"{stem}_id"
        to = parent.key
        if parent.name == self.schema.root and len(to) > 1 and self.chance(0.5):
            to = ("id",)
        columns: tuple[str, ...] = (own,)
        if len(to) > 1:
            taken = any(each.to_table == parent.name for each in self.schema.of(table.name))
            tenant = f"{stem}_{TENANT}" if taken else TENANT
            if tenant not in table.columns:
                table.add(tenant, "integer", not_null=True)
            columns = (tenant, own)
        kind = parent.columns["id"].type
        table.add(own, kind, not_null=not nullable)
        enforced = firm or self.chance(0.75)
        on_delete = self._on_delete(nullable=nullable)
        if parent.name == self.schema.root and to == ("id",) and self.schema.ghost is not None and self.chance(0.15):
            on_delete, table.columns[own].default = SET_DEFAULT, f"'{self.schema.ghost}'"
        reference = Reference(
            table.name,
            columns,
            parent.name,
            to,
            enforced=enforced,
            on_delete=on_delete,
            deferred=enforced and self.chance(0.25, Feature.DEFERRED),
            on_parts=table.partition is not None and self.chance(0.5, Feature.PARTITION_KEYS),
        )
        self.schema.references.append(reference)
        return reference

    def _on_delete(self, *, nullable: bool) -> str:
        choices = [NO_ACTION, NO_ACTION, RESTRICT]
        choices += [CASCADE, CASCADE] if Feature.CASCADES in self.on else []
        choices += [SET_NULL] if nullable else []
        return self.rng.choice(choices)

    def _to_root(self, table: Table, stem: str, *, nullable: bool, loose: float = 0.3) -> Way:
        """Let a table hold a person's id: by a reference, or as it is."""
        own = f"{stem}_id"
        if self.chance(loose):
            table.add(own, self.id_type, not_null=not nullable)
            return Way(stem, "identity", (own,))
        reference = self._refer(table, self.schema.tables["accounts"], stem, nullable=nullable)
        return Way(stem, "reference", reference.columns)

    def _furnish(self, table: Table) -> None:
        """Add what any table may have besides."""
        if self.chance(0.3, Feature.MENTIONS):
            nullable = self.schema.ghost is None or self.chance(0.7)
            way = self._to_root(table, self.rng.choice(("reviewer", "editor")), nullable=nullable)
            if len(way.columns) > 1:
                table.columns[way.columns[-1]].not_null = False  # a ghost is of one tenant
            table.ways.append(Way(way.name, way.kind, way.columns, role="accessor"))
        for nobodys, part in ((True, 0.3), (False, 0.25)):
            parents = [each for each in self._parents(nobodys=nobodys) if each is not table]
            words = {Feature.DETACH, Feature.DELETE_WITH_PARENT, Feature.KEEP_PARENT}
            is_sound = nobodys or not words.isdisjoint(self.on)
            if parents and is_sound and self.chance(part):
                parent = self.rng.choice(parents)
                if f"{parent.bare}_id" not in table.columns and not (parent.co_owned and not self.chance(0.3)):
                    self._refer(table, parent, parent.bare, nullable=parent.co_owned or self.chance(0.6))
        table.has_heir = (
            table.partition is None and self.chance(0.3, Feature.INHERITANCE) and not self.schema.to(table.name)
        )

    def _owned(self) -> None:
        table = self._table()
        table.ways.append(
            self._to_root(table, self.rng.choice(("account", "author", "user")), nullable=self.chance(0.4))
        )
        self._furnish(table)

    def _hop(self) -> None:
        parents = self._parents()
        if not parents:
            return self._owned()
        parent = self.rng.choice(parents)
        table = self._table()
        reference = self._refer(table, parent, parent.bare, nullable=self.chance(0.3))
        table.ways.append(Way(parent.bare.lower().replace("-", "_"), "reference", reference.columns))
        table.co_owned = parent.co_owned
        if not table.co_owned:
            self._furnish(table)
        return None

    def _nobodys(self) -> None:
        table = self._table()
        table.is_nobodys = True

    def _edge(self) -> None:
        """Follows, blocks: a row goes with either end."""
        table = self._table(keyed=self.chance(0.3))
        for stem in ("follower", "followed"):
            way = self._to_root(table, stem, nullable=False)
            is_loose = stem == "followed" and way.kind == "identity" and self.chance(0.4)
            table.ways.append(Way(stem, way.kind, way.columns, role="accessor" if is_loose else "owner"))
        if not table.key:
            table.key = ("follower_id", "followed_id")
        self._bucketed(table)

    def _bucketed(self, table: Table) -> None:
        """A unique column of a partitioned table would need the column that it is partitioned by."""
        if table.partition:
            for column in table.columns.values():
                column.unique = False

    def _polymorphic(self) -> None:
        table = self._table()
        table.add("owner_type", "text", not_null=self.chance(0.5))
        table.add("owner_id", self.id_type)
        table.ways.append(Way("owner", "identity", ("owner_id",), where=(("owner_type", "Account"),)))
        if self.chance(0.3):
            self._furnish(table)

    def _thread(self) -> None:
        """Words of people, below words of others."""
        table = self._table()
        table.ways.append(self._to_root(table, "author", nullable=self.chance(0.8), loose=0.1))
        if table.key[-1] == "id":
            if "body" not in table.columns:
                table.add("body", "text")
            self._refer(table, table, "parent", nullable=True, firm=self.chance(0.5))
        self._furnish(table)

    def _letters(self) -> None:
        """Between two people, until the second of them goes."""
        table = self._table()
        for stem in ("sender", "recipient"):
            way = self._to_root(table, stem, nullable=True)
            table.ways.append(Way(stem, way.kind, way.columns, role="co_owner"))
        table.co_owned = True

    def _group(self) -> None:
        """A group, and who is in it."""
        group, members = self._table(), self._table(keyed=self.chance(0.4))
        if group.key[-1] != "id":
            group.is_nobodys = members.is_nobodys = True
            self._bare(members)
            return
        way = self._to_root(members, "account", nullable=False)
        self._refer(members, group, group.bare, nullable=False)
        members.key = members.key or (f"{group.bare}_id", "account_id")
        if group.key[0] == TENANT and members.key[0] != "id" and TENANT not in members.key:
            members.key = (TENANT, *members.key)
        members.ways.append(way)
        self._bucketed(members)
        group.ways.append(Way("members", "through", other=members.name, role="co_owner"))
        group.co_owned = True

    def _bare(self, table: Table) -> None:
        if not table.key:
            table.add("id", "integer", not_null=True)
            table.key = ("id",)

    def _address(self) -> None:
        """What accounts refer to."""
        table = self._table()
        if table.key[-1] != "id" or len(table.key) > 1:
            table.is_nobodys = True
            return
        root = self.schema.tables["accounts"]
        stem = f"home_{table.bare}"
        reference = self._refer(root, table, stem, nullable=True)
        table.ways.append(Way("home", "from", reference.columns, other=root.name, role="co_owner"))
        table.co_owned = True

    def _elements(self) -> None:
        table = self._table()
        table.add("member_ids", f"{self.id_type}[]", not_null=self.chance(0.3))
        table.ways.append(Way("tagged", "in", ("member_ids",), role="accessor"))
        if self.chance(0.5):
            table.ways.append(self._to_root(table, "account", nullable=self.chance(0.4)))

    def _document(self) -> None:
        table = self._table()
        table.add("settings", "jsonb", not_null=self.chance(0.3))
        at = self.rng.choice(("$.members[*]", "$.owner", "$.members[*].id", "$.team.lead"))
        table.ways.append(Way("named", "in", ("settings",), role="accessor", at=at))
        if self.chance(0.5):
            table.ways.append(self._to_root(table, "account", nullable=self.chance(0.4)))

    def _mail(self) -> None:
        """Leads by the mail address."""
        table = self._table()
        table.add("email", "text", not_null=self.chance(0.5))
        table.ways.append(Way("mail", "identity", ("email",), identity="email"))

    def _nobodys_child(self) -> None:
        parents = [each for each in self._parents() if not each.co_owned]
        if not parents:
            return self._owned()
        table = self._table()
        table.is_nobodys = True
        parent = self.rng.choice(parents)
        self._refer(table, parent, parent.bare, nullable=self.chance(0.6), firm=True)
        return None

    def _circle(self) -> None:
        """Let a parent refer to one of its children."""
        candidates = [
            (self.schema.tables[each.table], self.schema.tables[each.to_table])
            for each in self.schema.references
            if each.table not in {each.to_table, self.schema.root}
            and self.schema.tables[each.table].key[-1:] == ("id",)
            and not self.schema.tables[each.table].has_heir
            and not self.schema.tables[each.table].co_owned
            and not self.schema.tables[each.to_table].co_owned
            and not self.schema.tables[each.to_table].is_nobodys
        ]
        if candidates:
            child, parent = self.rng.choice(candidates)
            if len(child.key) == 1 or TENANT in parent.columns:
                self._refer(parent, child, "last", nullable=True, firm=True)
