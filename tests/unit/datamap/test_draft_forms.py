"""Every form in which rows are people's, as a draft writes it; whatever it writes can be read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from habeas.datamap.catalogue.schema import ForeignKey, LiveColumn, LiveSchema, LiveTable
from habeas.datamap.map.draft import draft_dataset
from habeas.datamap.map.listing import UNDECIDED
from habeas.datamap.map.loading import load_datamap
from habeas.datamap.source import ConfigurationError
from tests.support.shop import write_map

TIME = "timestamp with time zone"


def _table(name: str, key: Sequence[str] = ("id",), schema: str = "", **columns: str) -> LiveTable:
    """A table; a type that ends in `?` is one of a column that may be NULL."""
    found = {
        column: LiveColumn(
            column,
            kind.rstrip("?"),
            not_null=not kind.endswith("?"),
            element=kind.rstrip("?").removesuffix("[]") if "[]" in kind else "",
        )
        for column, kind in columns.items()
    }
    return LiveTable(f"{schema}.{name}" if schema else name, found, key=tuple(key), schema=schema, relation=name)


def _key(table: str, columns: str, to_table: str, to_columns: str = "id", on_delete: str = "no action") -> ForeignKey:
    return ForeignKey(table, tuple(columns.split()), to_table, tuple(to_columns.split()), on_delete)


USERS = _table("users", id="integer", email="text")


class _Drafted:
    """A draft of these tables, and that nothing but what is undecided is wrong with it."""

    def __init__(
        self,
        directory: Path,
        tables: Sequence[LiveTable],
        keys: Sequence[ForeignKey] = (),
        **options: Any,
    ) -> None:
        _, policy = write_map(directory)
        live = LiveSchema({table.name: table for table in tables}, tuple(keys))
        given = {"schema": "public", "root": "users", **options}
        self.text = draft_dataset(live, store="shop", connection="SHOP_DSN", policy=policy, **given).text
        (directory / "draft.yaml").write_text(self.text, encoding="utf-8")
        self.datasets: Sequence[Mapping[str, Any]] = yaml.safe_load(self.text)["dataset"]
        try:
            load_datamap(directory / "draft.yaml", policy)
            self.wrong = []
        except ConfigurationError as error:
            self.wrong = [problem.what for problem in error.problems if problem.what != UNDECIDED]

    def notes(self, table: str) -> Mapping[str, Any]:
        notes: Mapping[str, Any] = self._collection(table)["habeas"]
        return notes

    def field(self, table: str, name: str) -> Mapping[str, Any]:
        return next(field for field in self._collection(table)["fields"] if field["name"] == name)

    def _collection(self, table: str) -> Mapping[str, Any]:
        return next(each for dataset in self.datasets for each in dataset["collections"] if each["name"] == table)


def _reference(field: str, dataset: str = "shop") -> Mapping[str, str]:
    return {"dataset": dataset, "field": field, "direction": "from"}


def test_the_root_is_found_by_its_last_word_and_by_what_hangs_on_it(tmp_path: Path) -> None:
    """`htx_user` before `organization_member`, which hangs on it; `htx_user_groups` is no candidate. The draft says why."""
    tables = [
        _table("htx_user", id="integer", email="text"),
        _table("htx_user_groups", id="integer", user_id="integer", group_id="integer"),
        _table("organization_member", id="integer", user_id="integer"),
        _table("tasks", id="integer", user_id="integer", body="text"),
    ]
    keys = [_key(each.name, "user_id", "htx_user") for each in tables[1:]]
    drafted = _Drafted(tmp_path, tables, keys, root=None)
    assert drafted.datasets[0]["habeas"]["root"] == "htx_user"
    assert "# The root is htx_user: references of others to it 3" in drafted.text
    assert drafted.wrong == []


def test_a_tie_between_roots_is_left_to_a_person(tmp_path: Path) -> None:
    """Two kinds of people with as much on each of them."""
    tables = [
        *(_table(name, id="integer", email="text") for name in ("shop_customer", "auth_user")),
        *(_table(name, id="integer", by="integer") for name in ("orders", "sessions")),
    ]
    keys = [_key("orders", "by", "shop_customer"), _key("sessions", "by", "auth_user")]
    drafted = _Drafted(tmp_path, tables, keys, root=None)
    assert drafted.datasets[0]["habeas"]["root"] == "REVIEW"
    assert "for shop_customer draft again with --root TABLE" in drafted.text


def test_each_schema_is_a_dataset_and_references_lead_across(tmp_path: Path) -> None:
    """The root's schema has the store's name; a table of another schema refers to it and is referred to."""
    tables = [
        _table("users", schema="people", id="integer"),
        _table("events", schema="shows", id="integer", owner_id="integer"),
    ]
    drafted = _Drafted(
        tmp_path,
        tables,
        [_key("shows.events", "owner_id", "people.users")],
        schema=("people", "shows"),
        root="people.users",
    )
    assert [each["habeas"].get("root") for each in drafted.datasets] == ["users", None]
    assert drafted.field("events", "owner_id")["fides_meta"] == {"references": [_reference("users.id")]}
    assert drafted.wrong == []


def test_a_reference_over_several_columns_is_whole(tmp_path: Path) -> None:
    """Both columns say so; where two foreign keys lead to one table, their columns are told apart by a name."""
    tables = [
        USERS,
        _table("tickets", ("shop", "number"), shop="integer", number="integer", user_id="integer"),
        _table("moves", id="integer", shop="integer", old="integer", new="integer?"),
    ]
    keys = [
        _key("tickets", "user_id", "users"),
        _key("moves", "shop old", "tickets", "shop number"),
        _key("moves", "shop new", "tickets", "shop number"),
    ]
    drafted = _Drafted(tmp_path, tables, keys)
    assert drafted.field("moves", "shop")["habeas"]["reference"] == ["old", "new"]
    assert drafted.field("moves", "old")["habeas"]["reference"] == "old"
    assert drafted.field("moves", "new")["habeas"] == {"reference": "new", "when_parent_goes": "detach"}
    assert drafted.notes("moves")["path"] == "old"
    assert drafted.wrong == []


def test_self_references_let_go_of_their_parents(tmp_path: Path) -> None:
    """Where the column may be NULL; else a person decides. The root's own are references, never a second identity."""
    tables = [
        _table("users", id="integer", email="text", created_by_fk="integer?"),
        _table("comments", id="integer", user_id="integer", parent_id="integer?", top_id="integer"),
    ]
    keys = [
        _key("users", "created_by_fk", "users"),
        _key("comments", "user_id", "users"),
        _key("comments", "parent_id", "comments"),
        _key("comments", "top_id", "comments"),
    ]
    drafted = _Drafted(tmp_path, tables, keys)
    assert drafted.field("users", "created_by_fk")["fides_meta"] == {"references": [_reference("users.id")]}
    assert drafted.field("users", "created_by_fk")["habeas"] == {"when_parent_goes": "detach"}
    assert drafted.field("comments", "parent_id")["habeas"] == {"when_parent_goes": "detach"}
    assert drafted.field("comments", "top_id")["habeas"] == {"when_parent_goes": "REVIEW"}
    assert drafted.wrong == []


def test_a_circle_over_the_root_is_read(tmp_path: Path) -> None:
    """A person has an organisation, which a person has made: the person lets go, and what hangs on it may be everybody's."""
    tables = [
        _table("users", id="integer", organization_id="integer?"),
        _table("organizations", id="integer", created_by_id="integer?", title="text"),
        _table("webhooks", id="integer", organization_id="integer", url="text"),
    ]
    keys = [
        _key("users", "organization_id", "organizations"),
        _key("organizations", "created_by_id", "users"),
        _key("webhooks", "organization_id", "organizations"),
    ]
    drafted = _Drafted(tmp_path, tables, keys)
    assert drafted.field("users", "organization_id")["habeas"] == {"when_parent_goes": "detach"}
    assert drafted.notes("organizations")["on_erasure"] == "REVIEW"
    assert drafted.field("organizations", "created_by_id")["habeas"] == {"anonymise": None}
    assert drafted.notes("webhooks") == {
        "personal": False,
        "reason": "hangs on organizations, which is not one person's",
    }
    assert "1 tables that hang on it are taken for nobody's" in drafted.text
    assert drafted.wrong == []


def test_ids_of_people_without_a_foreign_key_are_seen(tmp_path: Path) -> None:
    """By their names and types; each is for a person to decide, as a path or as a mention."""
    tables = [
        USERS,
        _table("deleted_rows", id="integer", user_id="integer", data="jsonb"),
        _table("notes", id="integer", user_id="text", content="text"),
        _table(
            "states",
            id="integer",
            author_id="integer",
            approved_by_id="integer?",
            closed_by_id="integer",
            closed_by="text",
        ),
    ]
    keys = [_key("states", "author_id", "users")]
    drafted = _Drafted(tmp_path, tables, keys)
    for name in ("deleted_rows", "notes"):
        assert drafted.notes(name)["path"] == "REVIEW"
        assert drafted.field(name, "user_id")["fides_meta"] == {"identity": "account_id"}
    assert drafted.notes("states")["path"] == "author_id"
    assert drafted.field("states", "approved_by_id")["habeas"] == {"anonymise": None}
    assert drafted.field("states", "closed_by_id")["habeas"] == {"anonymise": "REVIEW"}
    assert "fides_meta" not in drafted.field("states", "closed_by")
    assert drafted.wrong == []


def test_an_edge_is_of_both_people(tmp_path: Path) -> None:
    """Two people and little else; with a text in it, it is the message of one of them, and a person says whose."""
    columns = {"id": "integer", "from_id": "integer", "to_id": "integer", "created_at": TIME}
    tables = [USERS, _table("follows", **columns), _table("mails", **columns, body="text")]
    keys = [_key(name, column, "users") for name in ("follows", "mails") for column in ("from_id", "to_id")]
    drafted = _Drafted(tmp_path, tables, keys)
    assert drafted.notes("follows")["links"] == {"from": {"by": "from_id"}, "to": {"by": "to_id"}}
    assert drafted.notes("follows")["on_erasure"] == "delete"
    assert drafted.notes("mails")["path"] == "REVIEW"
    assert drafted.wrong == []


def test_ids_of_several_tables_and_arrays_of_ids_are_links(tmp_path: Path) -> None:
    """Which kind is a person's is for a person to say."""
    tables = [
        USERS,
        _table("grants", id="integer", principal_type="text", principal_id="integer"),
        _table("rooms", id="integer", member_ids="integer[]", run_type="text", run_id="integer"),
    ]
    drafted = _Drafted(tmp_path, tables)
    assert drafted.notes("grants")["links"] == {
        "principal": {"by": "principal_id", "where": {"principal_type": "REVIEW"}}
    }
    assert drafted.field("grants", "principal_id")["fides_meta"] == {"identity": "account_id"}
    assert drafted.notes("rooms")["links"] == {"member_ids": {"in": "member_ids", "role": "accessor"}}
    assert drafted.wrong == []


def test_what_only_others_refer_to_is_theirs(tmp_path: Path) -> None:
    """The address of an order, the members of a group; a group that holds nothing of anybody is nobody's."""
    tables = [
        USERS,
        _table("sales", id="integer", user_id="integer", address_id="integer?"),
        _table("addresses", id="integer", street="text", postcode="text"),
        _table("chats", id="integer", content="text"),
        _table("chat_members", id="integer", chat_id="integer", user_id="integer"),
        _table("roles", id="integer", label="text"),
        _table("role_members", id="integer", role_id="integer", user_id="integer"),
    ]
    keys = [
        *(_key(name, "user_id", "users") for name in ("sales", "chat_members", "role_members")),
        *(_key("sales", "address_id", "addresses"), _key("chat_members", "chat_id", "chats")),
        _key("role_members", "role_id", "roles"),
    ]
    drafted = _Drafted(tmp_path, tables, keys)
    assert drafted.notes("addresses")["links"] == {"sales_address": {"from": "sales.address_id", "role": "co_owner"}}
    assert drafted.notes("chats")["links"] == {"chat_members": {"through": "chat_members.chat_id", "role": "co_owner"}}
    assert drafted.notes("addresses")["on_erasure"] == drafted.notes("chats")["on_erasure"] == "REVIEW"
    assert drafted.notes("roles") == {"personal": False, "reason": "nothing in it leads to a person"}
    assert drafted.wrong == []


def test_rows_that_hang_on_rows_of_others_say_what_becomes_of_them(tmp_path: Path) -> None:
    """Detach what can let go; what is named a part goes with its whole; else a person decides. The database's own word is enough."""
    hanging = {"id": "integer", "user_id": "integer"}
    tables = [
        USERS,
        _table("posts", **hanging, body="text"),
        _table("post_likes", **hanging, post_id="integer"),
        _table("votes", **hanging, post_id="integer", other_id="integer?", third_id="integer?"),
    ]
    keys = [
        *(_key(name, "user_id", "users") for name in ("posts", "post_likes", "votes")),
        *(_key(name, "post_id", "posts") for name in ("post_likes", "votes")),
        *(_key("votes", "other_id", "posts"), _key("votes", "third_id", "posts", on_delete="set null")),
    ]
    drafted = _Drafted(tmp_path, tables, keys)
    assert drafted.field("post_likes", "post_id")["habeas"] == {"when_parent_goes": "delete"}
    assert drafted.field("votes", "post_id")["habeas"] == {"when_parent_goes": "REVIEW"}
    assert drafted.field("votes", "other_id")["habeas"] == {"when_parent_goes": "detach"}
    assert "habeas" not in drafted.field("votes", "third_id")
    assert drafted.wrong == []


def test_what_hangs_on_rows_that_go_along_goes_along_too(tmp_path: Path) -> None:
    """A like of another person goes with the post, and what hangs on that like with it."""
    tables = [
        USERS,
        _table("posts", id="integer", user_id="integer"),
        _table("post_likes", id="integer", user_id="integer", post_id="integer"),
        _table("reasons", id="integer", like_id="integer"),
    ]
    keys = [
        *(_key(name, "user_id", "users") for name in ("posts", "post_likes")),
        *(_key("post_likes", "post_id", "posts"), _key("reasons", "like_id", "post_likes")),
    ]
    drafted = _Drafted(tmp_path, tables, keys)
    assert drafted.field("reasons", "like_id")["habeas"] == {"when_parent_goes": "delete"}
    assert drafted.wrong == []


def test_the_wider_of_two_foreign_keys_is_the_way(tmp_path: Path) -> None:
    """A room of a venue by both columns, and by one of them alone: what lets go of neither goes with the room."""
    tables = [
        USERS,
        _table("rooms", id="integer", venue="integer", owner_id="integer"),
        _table("breaks", id="integer", venue="integer?", room_id="integer?"),
    ]
    keys = [
        _key("rooms", "owner_id", "users"),
        _key("breaks", "room_id", "rooms"),
        _key("breaks", "venue room_id", "rooms", "venue id"),
    ]
    drafted = _Drafted(tmp_path, tables, keys)
    assert drafted.field("breaks", "room_id")["habeas"]["when_parent_goes"] == "delete"
    assert drafted.wrong == []


def test_login_names_lead_to_people(tmp_path: Path) -> None:
    """A text that is named after a login name refers to that of the root, where it is unique there."""
    tables = [
        _table("users", ("id",), id="integer", username="text"),
        _table("runs", id="integer", started_user_name="text?"),
    ]
    tables[0] = LiveTable("users", tables[0].columns, key=("id",), keys=(("username",),))
    drafted = _Drafted(tmp_path, tables)
    assert drafted.field("runs", "started_user_name")["fides_meta"] == {"references": [_reference("users.username")]}
    assert drafted.wrong == []


def test_a_table_without_people_keeps_its_columns_in_a_comment(tmp_path: Path) -> None:
    """So that taking `[]  # ` away brings them back; one that may name people all the same is looked at."""
    tables = [USERS, _table("countries", id="integer", label="text"), _table("leads", id="integer", email="text")]
    drafted = _Drafted(tmp_path, tables)
    assert drafted.notes("leads") == {"personal": False, "reason": "REVIEW"}
    line = next(each for each in drafted.text.splitlines() if "label" in each)
    fields = yaml.safe_load(line.replace("[]  # ", "").replace("        fields", "fields"))["fields"]
    assert [field["name"] for field in fields] == ["id", "label"]
