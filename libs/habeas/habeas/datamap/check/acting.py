"""What acts in the database by itself when an erasure or a purge changes a mapped table: triggers, rewrite rules, row level security."""

from collections.abc import Iterator, Mapping
from typing import Final

from habeas.datamap.catalogue.schema import LiveSchema, LiveTable, LiveTrigger
from habeas.datamap.check.constants import heirs
from habeas.datamap.check.plpgsql import read_effects
from habeas.datamap.explain import one_of
from habeas.datamap.map.model import StoreMap, Table, names
from habeas.datamap.planner.shape import LOOSENS
from habeas.datamap.source import Problem

OWN: Final = frozenset(
    {
        "pg_catalog.suppress_redundant_updates_trigger",
        "pg_catalog.tsvector_update_trigger",
        "pg_catalog.tsvector_update_trigger_column",
    }
)
"""Trigger functions of PostgreSQL itself, which write nothing elsewhere."""

LARGE_OBJECTS: Final = ".lo_manage"
"""The trigger function of the extension `lo`: it removes the large object of a row that goes or changes."""


def acting(store: StoreMap, live: LiveSchema) -> Iterator[Problem]:
    """Whatever could write a person's data elsewhere, keep a row, or hide one."""
    for table in store.tables.values():
        found = live.tables.get(table.name)
        if found is None:
            continue
        caused = _caused(table, live)
        triggers = [trigger for one in (found, *heirs(store, live, table.name)) for trigger in one.triggers]
        for trigger in triggers:
            if _is_fired(trigger, caused) and trigger.name not in table.triggers:
                yield from _judge(store, live, table, trigger)
        for index, name in enumerate(table.triggers):
            known = [*(trigger.name for trigger in triggers), *found.rule_names]
            if name not in known:
                what = f"the table `{table.name}` has no trigger or rule `{name}`"
                yield table.place.problem(
                    what, one_of(name, known) if known else "no `triggers`", "habeas", "triggers", index
                )
        yield from _hidden(table, found, caused)


def _caused(table: Table, live: LiveSchema) -> Mapping[str, frozenset[str]]:
    """Events that an erasure or a purge causes on a table, an update with its columns."""
    caused: dict[str, frozenset[str]] = {}
    if table.deletes or (table.retention is not None and table.age is not None):
        caused["delete"] = frozenset()
    changed = {column.name for column in (*table.blanked, *table.mentions)}
    changed |= {name for reference in table.references for name, _ in reference.detached}
    changed |= {path.subject_column for link in table.links for path in link.paths if path.within is not None}
    for key in live.foreign_keys if table.links else ():
        if key.table == table.name and key.on_delete in LOOSENS:
            changed |= set(key.set_columns or key.columns)
    if changed:
        caused["update"] = frozenset(changed)
    return caused


def _is_fired(trigger: LiveTrigger, caused: Mapping[str, frozenset[str]]) -> bool:
    if not trigger.enabled:
        return False
    by_update = "update" in trigger.events and "update" in caused
    # A trigger before the change may change any column; UPDATE OF looks at those that the statement names.
    by_update = by_update and (not trigger.columns or not caused["update"].isdisjoint(trigger.columns))
    return by_update or ("delete" in trigger.events and "delete" in caused)


def _judge(store: StoreMap, live: LiveSchema, table: Table, trigger: LiveTrigger) -> Iterator[Problem]:
    if trigger.function in OWN or (trigger.function.endswith(LARGE_OBJECTS) and trigger.language == "c"):
        return
    does = _does(store, live, trigger)
    if does is None:
        return
    what = f"the trigger `{trigger.name}` of `{table.name}` {does}"
    yield table.place.problem(what, _looked_at(table, trigger.name), "habeas")


def _looked_at(table: Table, name: str) -> str:
    looked_at = ", ".join((*table.triggers, name))
    return f"`triggers: [{looked_at}]` once somebody has looked at it and found it right, or change it in the database"


def _does(store: StoreMap, live: LiveSchema, trigger: LiveTrigger) -> str | None:
    """What speaks against a trigger; None where its function only looks, computes, refuses, or writes to tables that are nobody's."""
    if trigger.language != "plpgsql":
        return f"runs `{trigger.function}` ({trigger.language}), which may write elsewhere what an erasure deletes"
    effects = read_effects(trigger.source)
    written = [_table_name(store, live, parts, trigger.search_path) for parts in effects.writes]
    unmapped = [name for name in written if name not in store.tables]
    if unmapped:
        return (
            f"writes to {names(unmapped)}, which the data map does not have: what an erasure deletes could stay there"
        )
    people = [name for name in written if store.tables[name].personal]
    if people:
        return f"writes to {names(people)}, whose rows are people's: the erasure would be rolled back for it"
    if effects.doubts:
        return f"does what cannot be seen from here ({names(effects.doubts)}) and may write elsewhere what an erasure deletes"
    if (
        effects.gives_back_nothing
        and trigger.timing == "before"
        and trigger.for_each_row
        and "delete" in trigger.events
    ):
        return "returns NULL or NEW before a deletion, which keeps the row"
    return None


def _table_name(store: StoreMap, live: LiveSchema, parts: tuple[str, ...], search_path: str | None) -> str:
    """Name of a table as the map would have it; without a schema it is the first on the path, the function's own or the session's."""
    path = [store.schema, "public"]
    if len(parts) > 1:
        path = [parts[0]]
    elif search_path is not None:
        path = [each.strip().strip('"') for each in search_path.split(",")]
    named = [parts[-1] if schema == store.schema else f"{schema}.{parts[-1]}" for schema in path]
    return next((name for name in named if name in live.tables), named[0])


def _hidden(table: Table, found: LiveTable, caused: Mapping[str, frozenset[str]]) -> Iterator[Problem]:
    for rule in found.rule_names if caused else ():
        if rule not in table.triggers:
            what = f"the rule `{rule}` of `{table.name}` may do something else than an erasure says"
            yield table.place.problem(what, _looked_at(table, rule), "habeas")
    if found.row_security and table.links:
        what = f"row level security hides rows of `{table.name}` from the connected role, so an erasure or export could miss some"
        yield table.place.problem(
            what, "`ALTER ROLE … BYPASSRLS` in the database, for the roles of all services that work there", "habeas"
        )
