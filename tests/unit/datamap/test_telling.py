"""What is said of a table in plain words: each form of a link, what becomes of its rows, and of rows that refer."""

from pathlib import Path

import pytest

from habeas.datamap.catalogue.schema import ForeignKey, LiveSchema
from habeas.datamap.map.loading import load_datamap
from habeas.datamap.map.model import StoreMap
from habeas.datamap.planner.telling import Told, tell
from habeas.datamap.policy.model import Policy
from tests.support.shop import write_map

MAP = """
dataset:
  - fides_key: shop
    habeas: {store: shop, connection: SHOP_DSN, root: accounts}
    collections:
      - name: accounts
        habeas: {category: account, on_erasure: delete}
        fields:
          - {name: id, fides_meta: {primary_key: true, identity: account_id}}
          - {name: email}
          - {name: address_id, fides_meta: {references: [{dataset: shop, field: addresses.id}]}}
      - name: addresses
        habeas: {category: account, on_erasure: delete, links: {home: {from: accounts.address_id}}}
        fields: [{name: id, fides_meta: {primary_key: true}}]
      - name: groups
        habeas: {category: usage, on_erasure: delete, links: {members: {through: memberships}}}
        fields: [{name: id, fides_meta: {primary_key: true}}, {name: settings}]
      - name: memberships
        habeas: {category: usage, on_erasure: delete, links: {member: {by: account_id, where: {kind: [a, null]}}}}
        fields:
          - {name: id, fides_meta: {primary_key: true}}
          - {name: account_id, fides_meta: {references: [{dataset: shop, field: accounts.id}]}}
          - {name: group_id, fides_meta: {references: [{dataset: shop, field: groups.id}]}}
          - {name: kind}
      - name: posts
        habeas: {category: usage, on_erasure: delete, links: {ingroup: {by: group_id}}}
        fields:
          - {name: id, fides_meta: {primary_key: true}}
          - {name: group_id, fides_meta: {references: [{dataset: shop, field: groups.id}]}}
      - name: messages
        habeas:
          category: usage
          links:
            sent: {by: sender, role: owner, on_erasure: delete}
            received: {by: recipient, role: accessor, on_erasure: {anonymise: [recipient]}, on_export: {redact: [sender]}}
            tagged: {in: tags, role: accessor}
            named: {in: settings, at: "$.members[*].id", role: accessor}
        fields:
          - {name: id, fides_meta: {primary_key: true}}
          - {name: sender, fides_meta: {references: [{dataset: shop, field: accounts.id}]}}
          - {name: recipient, fides_meta: {references: [{dataset: shop, field: accounts.id}]}, habeas: {anonymise: null}}
          - {name: tags}
          - {name: settings}
          - {name: parent, fides_meta: {references: [{dataset: shop, field: messages.id}]}, habeas: {when_parent_goes: keep_parent}}
      - name: mails
        habeas: {category: usage, on_erasure: delete}
        fields:
          - {name: id, fides_meta: {primary_key: true}}
          - {name: to, fides_meta: {references: [{dataset: shop, field: accounts.email}]}, habeas: {match: case_insensitive}}
"""


@pytest.fixture
def read(tmp_path: Path) -> tuple[StoreMap, Policy]:
    """Give a map with every form of a link."""
    path, policy = write_map(tmp_path, MAP)
    return load_datamap(path, policy).store("shop"), policy


def _tell(read: tuple[StoreMap, Policy], table: str, *keys: ForeignKey) -> Told:
    store, policy = read
    return tell(store, store.tables[table], policy, LiveSchema({}, keys) if keys else None)


@pytest.mark.parametrize(
    ("table", "link", "way"),
    [
        ("accounts", "owner", "A row of `accounts` is the person's whose `id` it carries."),
        (
            "memberships",
            "member",
            "A row of `memberships` is the person's whose `id` in `accounts` stands in `account_id`, only where `kind` is 'a' or null.",
        ),
        (
            "groups",
            "members",
            (
                "A row of `groups` leads to the rows of `memberships` whose `group_id` holds the `id` of `groups` (only where `kind` is"
                " 'a' or null), and is shared: one of its owners is the person whose `id` in `accounts` stands in `memberships.account_id`."
            ),
        ),
        (
            "addresses",
            "home",
            (
                "A row of `addresses` leads to the rows of `accounts` whose `address_id` holds the `id` of `addresses`, and is shared: one"
                " of its owners is the person whose row of `accounts` that is."
            ),
        ),
        (
            "mails",
            "owner",
            (
                "A row of `mails` leads by `to` to the row of `accounts` with that `email`, upper and lower case alike, and is the person's"
                " whose row of `accounts` that is."
            ),
        ),
        (
            "messages",
            "tagged",
            (
                "A row of `messages` is not the person's own, but names the person whose `id` in `accounts` stands among the"
                " elements of `tags`."
            ),
        ),
        (
            "messages",
            "named",
            (
                "A row of `messages` is not the person's own, but names the person whose `id` in `accounts` stands in the JSON of"
                " `settings` at `$.members[*].id`."
            ),
        ),
    ],
)
def test_ways_are_told_hop_by_hop(read: tuple[StoreMap, Policy], table: str, link: str, way: str) -> None:
    """Each hop with its columns and conditions, and where at its end the account id stands."""
    (found,) = (each for each in _tell(read, table).links if each.name == link)
    assert found.ways == (way,)


@pytest.mark.parametrize(
    ("table", "link", "erasure"),
    [
        ("groups", "members", "An erasure deletes such rows once nobody else has a part in them."),
        ("posts", "ingroup", "An erasure deletes such rows only with the row of several people on which they hang."),
        (
            "messages",
            "sent",
            "An erasure deletes such rows; one to which a row of `messages` refers that stays is anonymised instead.",
        ),
        ("messages", "received", "An erasure lets such rows stay and overwrites `recipient` (to null)."),
        ("messages", "tagged", "An erasure takes the person's id out of the value; the row and all else in it stay."),
    ],
)
def test_erasure_is_told_by_link(read: tuple[StoreMap, Policy], table: str, link: str, erasure: str) -> None:
    """What becomes of the rows of a link, with others who keep them."""
    (found,) = (each for each in _tell(read, table).links if each.name == link)
    assert found.erasure == erasure


def test_redacted_fields_are_told(read: tuple[StoreMap, Policy]) -> None:
    """Who only received a message does not see who sent it."""
    (found,) = (each for each in _tell(read, "messages").links if each.name == "received")
    assert found.export == "An export shows such rows; it leaves out `sender` (unless another link shows them)."


def test_references_are_told_with_the_database_word(read: tuple[StoreMap, Policy]) -> None:
    """A reference with the link that goes by it, with what the live foreign key does, and one that the map does not state."""
    told = _tell(
        read,
        "groups",
        ForeignKey("memberships", ("group_id",), "groups", ("id",), "cascade", "in_group"),
        ForeignKey("badges", ("group_id",), "groups", ("id",), "set null", "for_group"),
    )
    assert told.references == (
        (
            "Rows of `memberships` refer by `group_id` to a row of `groups`: by it the link `members` of that row finds its owners;"
            " the foreign key `in_group` (ON DELETE CASCADE) would delete them with it."
        ),
        (
            "Rows of `posts` refer by `group_id` to a row of `groups`: when that row goes, they go with it, since it is several people's;"
            " no foreign key enforces it."
        ),
        (
            "Rows of `badges` refer by `group_id` to a row of `groups`: the foreign key `for_group` (ON DELETE SET NULL) has them let go of"
            " it; the map does not state this reference."
        ),
    )
