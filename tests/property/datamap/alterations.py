"""Schemas that somebody changed after the map was written, so that it is not right any more."""

from collections.abc import Callable, Iterator
from random import Random
from typing import Final, NamedTuple, TypeAlias

from tests.property.datamap.model import Table
from tests.property.datamap.sabotage import Spoiling
from tests.property.datamap.trial import Case

TRIED: Final = 2
"""So many are tried for each seed."""


class Altered(NamedTuple):
    """Statements that change a schema, and that change it back."""

    there: str
    back: str


Alter: TypeAlias = Callable[[Spoiling], Altered | None]


def _goers(spoiling: Spoiling) -> list[Table]:
    """Tables whose rows are deleted with their one owner, whatever else they are."""
    return [
        table
        for table in spoiling.schema.tables.values()
        if spoiling.goes(table.name) and not table.co_owned and (table.ways or table.name == spoiling.schema.root)
    ]


def column_added(spoiling: Spoiling) -> Altered | None:
    """A table of people has a column more."""
    name = spoiling.rng.choice(
        [table.sql for table in spoiling.schema.tables.values() if spoiling.is_personal(table.name)]
    )
    return Altered(f"ALTER TABLE {name} ADD COLUMN diary text", f"ALTER TABLE {name} DROP COLUMN diary")


def column_of_an_heir_added(spoiling: Spoiling) -> Altered | None:
    """A table that inherits from one of people has a column of its own."""
    for table in spoiling.schema.tables.values():
        if table.has_heir and spoiling.is_personal(table.name):
            heir = f'"{table.schema}"."{table.bare}_heir"'
            return Altered(f"ALTER TABLE {heir} ADD COLUMN diary text", f"ALTER TABLE {heir} DROP COLUMN diary")
    return None


def table_named_like_people_added(spoiling: Spoiling) -> Altered | None:
    """A table of another schema has a column that is named like an account's id."""
    kind = spoiling.schema.tables[spoiling.schema.root].columns[spoiling.schema.identity].type
    return Altered(
        f"CREATE SCHEMA other CREATE TABLE sightings (account_id {kind}, note text)", "DROP SCHEMA other CASCADE"
    )


def cascade_added(spoiling: Spoiling) -> Altered | None:
    """Rows that nobody knows of go with those of people."""
    found = [table for table in _goers(spoiling) if len(table.key) == 1 and not table.has_heir]
    if not found:
        return None
    parent = spoiling.rng.choice(found)
    action = spoiling.rng.choice(("CASCADE", "NO ACTION"))
    refers = f'REFERENCES {parent.sql} ("{parent.key[0]}") ON DELETE {action}'
    sql = f"CREATE SCHEMA other CREATE TABLE sightings (what {parent.columns[parent.key[0]].type} {refers})"
    return Altered(sql, "DROP SCHEMA other CASCADE")


def copy_added(spoiling: Spoiling) -> Altered | None:
    """A trigger copies what is deleted."""
    found = [table for table in _goers(spoiling) if table.partition is None]
    if not found:
        return None
    table = spoiling.rng.choice(found)
    there = f"""
        CREATE SCHEMA other;
        CREATE TABLE other.copies (was jsonb);
        CREATE FUNCTION other.copy() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN INSERT INTO other.copies VALUES (to_jsonb(OLD)); RETURN NULL; END $$;
        CREATE TRIGGER copied AFTER DELETE ON {table.sql} FOR EACH ROW EXECUTE FUNCTION other.copy()
    """
    return Altered(there, f"DROP TRIGGER copied ON {table.sql}; DROP SCHEMA other CASCADE")


def check_added(spoiling: Spoiling) -> Altered | None:
    """The database refuses the text that stands for what is erased."""
    for table, column, constant in _constants(spoiling):
        there = f"ALTER TABLE {table.sql} ADD CONSTRAINT fits CHECK (\"{column}\" <> '{constant}') NOT VALID"
        return Altered(there, f"ALTER TABLE {table.sql} DROP CONSTRAINT fits")
    return None


def column_shortened(spoiling: Spoiling) -> Altered | None:
    """The text that stands for what is erased is too long."""
    for table, column, _ in _constants(spoiling):
        there = f'ALTER TABLE {table.sql} ALTER COLUMN "{column}" TYPE varchar(3) USING left("{column}", 3)'
        return Altered(there, f'ALTER TABLE {table.sql} ALTER COLUMN "{column}" TYPE text')
    return None


def _constants(spoiling: Spoiling) -> Iterator[tuple[Table, str, str]]:
    for table in spoiling.schema.tables.values():
        if (
            spoiling.is_personal(table.name)
            and spoiling.notes(table.name).get("on_erasure") == "anonymise"
            and not table.has_heir
        ):
            for name in ("body", "kind"):
                if name in table.columns and name not in table.key:
                    constant = (spoiling.field(table.name, name).get("habeas") or {}).get("anonymise")
                    if isinstance(constant, str):
                        yield table, name, constant.replace("'", "''")


def key_dropped(spoiling: Spoiling) -> Altered | None:
    """What the map refers to is not unique any more."""
    for reference in spoiling.schema.references:
        parent, child = spoiling.schema.tables[reference.to_table], spoiling.schema.tables[reference.table]
        is_way = any(way.columns == reference.columns and way.role == "owner" for way in child.ways)
        is_firm = any(each.enforced for each in spoiling.schema.to(parent.name))
        if is_firm or not is_way or parent.name == spoiling.schema.root or not spoiling.is_personal(parent.name):
            continue
        if parent.partition is None:
            columns = ", ".join(f'"{name}"' for name in parent.key)
            there = f'ALTER TABLE {parent.sql} DROP CONSTRAINT "{parent.bare}_pkey"'
            return Altered(there, f"ALTER TABLE {parent.sql} ADD PRIMARY KEY ({columns})")
    return None


ALTERATIONS: Final[tuple[Alter, ...]] = (
    column_added,
    column_of_an_heir_added,
    table_named_like_people_added,
    cascade_added,
    copy_added,
    check_added,
    column_shortened,
    key_dropped,
)


def alterations(case: Case, rng: Random) -> Iterator[tuple[str, Altered]]:
    """Return some changes that a schema allows, each with its name."""
    made = 0
    for alter in rng.sample(ALTERATIONS, len(ALTERATIONS)):
        altered = alter(Spoiling(case.schema, case.document, rng))
        if altered is not None:
            yield alter.__name__, altered
            made += 1
            if made == TRIED:
                return
