"""The date that a person is told is the last on which the kept rows are there, in a real PostgreSQL."""

from datetime import UTC, date, datetime, time, timedelta

import pytest

from habeas.datamap.policy.retention import cutoff
from habeas.datamap.postgres import PostgresStore
from tests.integration.datamap.conftest import PEOPLE, Shop
from tests.support.shop import DATAMAP, read_map

ONE, OTHER = PEOPLE[7], PEOPLE[8]


async def told(store: PostgresStore, table: str = "invoices") -> date | None:
    """Erase one person, and give the end that is told of a table."""
    outcomes = (await store.erase([ONE]))[ONE]
    (kept,) = [outcome for outcome in outcomes if outcome.table == table]
    assert kept.rows
    return kept.until


async def sweep(shop: Shop, store: PostgresStore, day: date) -> None:
    """Carry out every rule of the class, children first, as the last tick of a day does."""
    as_of = datetime.combine(day, time.max, shop.policy.zone)
    for rule in await store.purge_rules():
        if rule.retention == "invoices":
            await store.purge(rule, cutoff(shop.policy.retention["invoices"], as_of, shop.policy.zone), 10_000)


async def left(shop: Shop, table: str = "invoices") -> int:
    """How many kept rows of the erased person are there."""
    found: int = await shop.owner.fetchval(f"SELECT count(*) FROM {table} WHERE account_id IS NULL")
    return found


@pytest.mark.parametrize("issued", ["2020-01-01", "2026-03-15", "2026-12-31", "2028-02-29"])
async def test_rows_go_on_the_day_after_the_one_that_was_told(shop: Shop, issued: str) -> None:
    """With the last tick of the told day the rows are there, with that of the next they are gone."""
    await shop.owner.execute("UPDATE invoices SET issued_on = $1::text::date", issued)
    end = await told(shop.store)
    assert end == date(int(issued[:4]) + 10, 12, 31)  # ten years from the end of the year, section 147(3) and (4) AO
    await sweep(shop, shop.store, end)
    assert await left(shop) == 1
    await sweep(shop, shop.store, end + timedelta(days=1))
    assert await left(shop) == 0


@pytest.mark.parametrize("age", ["NULL", "'infinity'"])
async def test_no_date_is_told_where_a_row_has_no_end(shop: Shop, age: str) -> None:
    """A row whose age is not known, or lies at the end of time, is never swept: any date would be false."""
    await shop.owner.execute("ALTER TABLE invoices ALTER COLUMN issued_on DROP NOT NULL")
    await shop.owner.execute(
        f"INSERT INTO invoices (account_id, billing_name, cents, issued_on) VALUES ($1, 'Name', 1, {age})", ONE
    )
    assert await told(shop.store) is None
    await sweep(shop, shop.store, date(2999, 12, 31))
    assert await left(shop) == 1


PAYMENTS = """      - name: payments
        habeas:
          category: payment
          retention: invoices
          age: paid_on
          on_erasure: {keep: legal_obligation, anonymise: [account_id]}
        fields:
          - {name: id, data_categories: [system.operations], fides_meta: {primary_key: true}}
          - {name: account_id, data_categories: [user.unique_id], fides_meta: {identity: account_id}}
          - name: invoice_id
            data_categories: [user.financial]
            fides_meta: {references: [{dataset: shop, field: invoices.id, direction: from}]}
          - {name: paid_on, data_categories: [user.financial]}
      - name: models
"""


async def test_what_others_refer_to_stays_as_long_as_they_do(shop: Shop, empty_database: str) -> None:
    """An invoice that was paid in the next year is there until the payment goes, and that is the date that is told."""
    await shop.owner.execute(
        "CREATE TABLE payments (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account_id text,"
        " invoice_id bigint NOT NULL REFERENCES invoices (id), paid_on date)"
    )
    await shop.owner.execute(
        "INSERT INTO payments (account_id, invoice_id, paid_on) SELECT account_id, id, '2027-01-03' FROM invoices"
    )
    path = shop.map.place.located.file.parent / "second"
    path.mkdir()
    store_map, policy = read_map(path, DATAMAP.replace("      - name: models\n", PAYMENTS))
    async with PostgresStore(store_map, policy, empty_database) as store:
        await shop.owner.execute("UPDATE payments SET paid_on = NULL WHERE account_id = $1", OTHER)
        unpaid = (await store.erase([OTHER]))[OTHER]
        assert {each.table: each.until for each in unpaid if each.ground} == {"invoices": None, "payments": None}
        assert await told(store) == date(2037, 12, 31)
        await sweep(shop, store, date(2036, 12, 31) + timedelta(days=40))
        assert await left(shop) == 2
        await sweep(shop, store, date(2038, 1, 1))
        assert await left(shop) == await left(shop, "payments") == 1  # those without a date


async def test_a_time_without_a_zone_is_utc_in_both(shop: Shop) -> None:
    """A row of New Year's Eve, 23:30 UTC, is one of the next year in Berlin: for the told date and for the sweep."""
    await shop.owner.execute("ALTER TABLE invoices ALTER COLUMN issued_on TYPE timestamp")
    late = datetime(2026, 12, 31, 23, 30, tzinfo=UTC).replace(tzinfo=None)
    await shop.owner.execute("UPDATE invoices SET issued_on = $1", late)
    end = await told(shop.store)
    assert end == date(2037, 12, 31)
    await sweep(shop, shop.store, end)
    assert await left(shop) == 1
    await sweep(shop, shop.store, end + timedelta(days=1))
    assert await left(shop) == 0
