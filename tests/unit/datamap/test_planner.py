"""The planner: statements from names alone, quoted, in an order that hurts no foreign key; and the comparison before it."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from habeas.contracts.vocabulary import KeepGround, TableResult
from habeas.datamap.catalogue.schema import ForeignKey, LiveColumn, LiveSchema, LiveTable
from habeas.datamap.check import compare
from habeas.datamap.map.model import StoreMap
from habeas.datamap.planner import PlanError, StorePlan, compile_store
from habeas.datamap.planner.plan import AgeKind
from habeas.datamap.planner.sql import literal, quoted
from habeas.datamap.postgres.ids import AskedIds
from habeas.datamap.postgres.purge import upper_bound
from tests.support.shop import DATAMAP, read_map

INSTANT = "timestamp with time zone"
TYPES = {"closed_at": INSTANT, "created_at": INSTANT, "logged_at": INSTANT, "issued_on": "date"}
KEYS = {"profiles": ("account_id",), "logs": ("id", "logged_at")}


def live_of(store: StoreMap) -> LiveSchema:
    """A live schema that has exactly what the map lists."""
    tables = {}
    for table in store.tables.values():
        columns = {c.name: LiveColumn(c.name, TYPES.get(c.name, "text")) for c in table.columns}
        ranged = ("logged_at",) if table.name == "logs" else ()
        tables[table.name] = LiveTable(table.name, columns, key=KEYS.get(table.name, ("id",)), partitioned_by=ranged)
    keys = tuple(
        ForeignKey(e.table, e.columns, e.to_table, e.to_columns, "set null" if e.table == "invoices" else "no action")
        for e in store.references
    )
    return LiveSchema(tables, keys)


@pytest.fixture
def store(tmp_path: Path) -> StoreMap:
    """The shop's map."""
    return read_map(tmp_path)[0]


@pytest.fixture
def plan(store: StoreMap) -> StorePlan:
    """Its plan."""
    return compile_store(store, live_of(store))


def test_map_and_its_own_schema_agree(store: StoreMap) -> None:
    """Nothing is told where nothing differs."""
    assert compare(store, live_of(store)) == ()


def test_tables_stand_children_first(plan: StorePlan) -> None:
    """Contents before steps before tasks before accounts; whoever refers to accounts before them."""
    order = [table.table for table in plan.tables]
    assert order.index("contents") < order.index("steps") < order.index("tasks") < order.index("accounts")
    assert order.index("invoices") < order.index("accounts")
    assert "models" not in order


def test_statement_over_three_hops(plan: StorePlan) -> None:
    """One DELETE for any number of people, joined over the tables between, counting per person."""
    (contents,) = [table for table in plan.tables if table.table == "contents"]
    assert contents.erase == (
        'WITH gone AS ( DELETE FROM "public"."contents" AS t0 USING "public"."steps" AS t1, "public"."tasks" AS t2'
        ' WHERE "t0"."step_id" = "t1"."id" AND "t1"."task_id" = "t2"."id" AND "t2"."account_id" IN (SELECT unnest($1::text[]))'
        ' RETURNING "t2"."account_id"::text AS account_id ) SELECT account_id, count(*) AS rows FROM gone GROUP BY account_id'
    )
    assert contents.again == ()


def test_kept_rows_are_counted_and_blanked(plan: StorePlan) -> None:
    """Kept rows keep ground and end; only the columns named lose the person."""
    (invoices,) = [table for table in plan.tables if table.table == "invoices"]
    assert (invoices.result, invoices.ground, invoices.until) == (
        TableResult.KEPT,
        KeepGround.LEGAL_OBLIGATION,
        "invoices",
    )
    assert invoices.erase is not None
    assert (
        'SET "account_id" = NULL, "billing_name" = \'erased\' FROM unnest($1::text[]) AS asked (account_id)'
        in invoices.erase
    )
    assert "DELETE" not in invoices.erase


def test_layers_hold_no_table_with_its_parent(store: StoreMap, plan: StorePlan) -> None:
    """Tables of one statement do not refer to one another; what each has left is counted by the next, the last one's too."""
    layers = [{table.table for table in layer.tables} for layer in plan.layers]
    assert [table.table for layer in plan.layers for table in layer.tables] == [table.table for table in plan.tables]
    assert not any(
        e.table in layer and e.to_table in layer for e in store.references if e.table != e.to_table for layer in layers
    )
    erasing = [{table.table for table in layer.tables if table.erase is not None} for layer in plan.layers]
    for layer, after in zip(erasing, plan.layers[1:], strict=False):
        for table in layer:
            assert f"SELECT '{table}' AS name, NULL::text AS account_id" in after.sql
    assert plan.layers[-1].tables == ()
    assert "DELETE" not in plan.layers[-1].sql


def test_statements_hold_names_and_no_placeholders_for_values(plan: StorePlan) -> None:
    """Every statement takes its people as a parameter and none is built from a person's value."""
    for table in plan.tables:
        for sql in filter(None, (table.locate, table.erase, table.verify)):
            assert "$1::text[]" in sql
            assert sql.count("'") % 2 == 0


def test_secrets_are_never_read(plan: StorePlan) -> None:
    """No statement but the erasing ones touches a secret or a column that is named only."""
    for table in plan.tables:
        for export in filter(None, (table.export, table.portable)):
            assert '"secret"' not in export.sql
            assert '"region"' not in export.sql


def test_identity_type_is_that_of_the_database(store: StoreMap) -> None:
    """Ids are sent as text and cast to the column's own type, so that its index serves."""
    live = live_of(store)
    tables = dict(live.tables)
    tables["accounts"] = replace(
        tables["accounts"], columns={**tables["accounts"].columns, "id": LiveColumn("id", "uuid")}
    )
    plan = compile_store(store, replace(live, tables=tables))
    assert plan.root is not None
    assert '"t0"."id" IN (SELECT unnest($1::text[]::uuid[]))' in plan.root.exists
    tables["accounts"] = replace(
        tables["accounts"], columns={**tables["accounts"].columns, "id": LiveColumn("id", "jsonb")}
    )
    with pytest.raises(PlanError, match="can't hold an account id"):
        compile_store(store, replace(live, tables=tables))


def test_circle_of_foreign_keys_is_an_error_that_names_it(store: StoreMap) -> None:
    """A foreign key that only the database knows can close a circle; then no order of deleting exists."""
    live = live_of(store)
    circle = ForeignKey("tasks", ("id",), "contents", ("id",))
    with pytest.raises(PlanError, match=r"tasks.*contents|contents.*tasks"):
        compile_store(store, replace(live, foreign_keys=(*live.foreign_keys, circle)))


def test_names_are_quoted(tmp_path: Path) -> None:
    """Words of SQL and capitals are names like any other; a quote inside is doubled (PostgreSQL 4.1.1)."""
    assert quoted('a"b', "Order") == '"a""b"."Order"'
    assert [literal(each) for each in (None, True, 7, 1.5, "o'x")] == ["NULL", "TRUE", "7", "1.5", "'o''x'"]
    store, _ = read_map(tmp_path, re.sub(r"\bsteps\b", "Select", DATAMAP))
    plan = compile_store(store, live_of(store))
    assert any('DELETE FROM "public"."Select"' in (table.erase or "") for table in plan.tables)


def test_mention_without_treatment_is_told(tmp_path: Path) -> None:
    """A second reference to a person that nothing would clear is a difference; SET NULL in the database clears it."""
    untreated = DATAMAP.replace("            habeas: {anonymise: null}\n", "", 1)
    store, _ = read_map(tmp_path, untreated)
    live = live_of(store)
    assert ["`tasks.approved_by` can name another person" in problem.what for problem in compare(store, live)] == [True]
    loose = tuple(replace(k, on_delete="set null") if k.columns == ("approved_by",) else k for k in live.foreign_keys)
    assert compare(store, replace(live, foreign_keys=loose)) == ()


@pytest.mark.parametrize(
    ("kind", "asked", "sent"),
    [
        ("text", ["a", "a", "b"], ["a", "b"]),
        ("text", ["a\x00b"], []),
        ("uuid", ["0195C2F0-0000-7000-8000-000000000001", "nobody"], ["0195c2f0-0000-7000-8000-000000000001"]),
        ("integer", ["7", "007", "-7", "2147483647", "2147483648", "x", "", "٣"], ["7", "-7", "2147483647"]),
        ("uuid", ["0195c2f0000070008000000000000001"], ["0195c2f0-0000-7000-8000-000000000001"]),
        ("bigint", ["9223372036854775807", "9223372036854775808"], ["9223372036854775807"]),
    ],
)
def test_ids_that_the_type_cannot_hold_name_nobody(kind: str, asked: list[str], sent: list[str]) -> None:
    """An id of another form holds nothing, and does not spoil the batch; answers carry the caller's spelling."""
    ids = AskedIds(asked, kind)
    assert ids.parameter == sent
    assert all(given in asked for spelled in sent for given in ids.given(spelled))
    assert set(ids.asked) == set(asked)


@pytest.mark.parametrize(
    ("kind", "bound", "readable"),
    [
        (AgeKind.INSTANT, "FOR VALUES FROM ('2026-11-20 00:00:00+00') TO ('2026-11-21 00:00:00+00')", True),
        (AgeKind.INSTANT, "FOR VALUES FROM (MINVALUE) TO ('2026-11-21 00:00:00+00')", True),
        (AgeKind.INSTANT, "FOR VALUES FROM ('2026-11-20 00:00:00') TO ('2026-11-21 00:00:00')", False),
        (AgeKind.INSTANT, "FOR VALUES FROM ('2026-11-20 00:00:00+00') TO (MAXVALUE)", False),
        (AgeKind.INSTANT, "FOR VALUES FROM ('2026-11-20 00:00:00+00') TO ('infinity')", False),
        (AgeKind.INSTANT, "FOR VALUES FROM ('2026-11-20 00:00:00+00', 1) TO ('2026-11-21 00:00:00+00', 2)", False),
        (AgeKind.INSTANT, "FOR VALUES IN ('2026-11-20 00:00:00+00')", False),
        (AgeKind.INSTANT, "DEFAULT", False),
        (AgeKind.INSTANT, "", False),
        (AgeKind.DAY, "FOR VALUES FROM ('2026-11-20') TO ('2026-11-21')", True),
        (AgeKind.DAY, "FOR VALUES FROM ('0044-03-15 BC') TO ('0044-03-16 BC')", False),
        (AgeKind.UTC, "FOR VALUES FROM ('2026-11-20 00:00:00') TO ('2026-11-21 00:00:00')", True),
    ],
)
def test_only_plain_bounds_let_a_partition_go(kind: AgeKind, bound: str, *, readable: bool) -> None:
    """What can't be read as one finite upper bound of the right kind is never dropped."""
    assert (upper_bound(kind, bound) is not None) is readable
