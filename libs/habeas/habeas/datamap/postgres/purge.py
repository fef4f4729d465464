"""The sweep of one rule: whole partitions first, then rows, up to a cutoff and never past it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Final
from zoneinfo import ZoneInfo

from habeas.chassis import crash
from habeas.chassis.crash import Point
from habeas.datamap.planner import AgeKind, PartitionPlan, PurgeRule, StorePlan
from habeas.datamap.planner.sql import quoted, words
from habeas.datamap.postgres.connection import Connection, StoreOptions
from habeas.datamap.postgres.ids import AskedIds
from habeas.datamap.postgres.tally import Tally

RANGE: Final = re.compile(r"^FOR VALUES FROM \((?:'([^']+)'|MINVALUE)\) TO \('([^']+)'\)$")
"""pg_get_expr of a range partition with one finite upper bound; anything else is never dropped."""


@dataclass(frozen=True)
class PurgeResult:
    """What one call let go.

    `rows` counts rows deleted one by one; rows of dropped partitions are not counted (that would mean reading them
    all). `oldest_left` is the age of the oldest row that is left, for whatever reason; None when the table is empty or
    when `more` rows wait for the next call.
    """

    rows: int
    partitions_dropped: int
    oldest_left: datetime | None
    more: bool


@dataclass(frozen=True)
class Portion:
    """What one call may let go: what is older than `cutoff`, at most `limit` rows, of these `buckets` only where there are any."""

    cutoff: datetime
    limit: int
    buckets: Sequence[int] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for what is no portion."""
        if self.cutoff.tzinfo is None:
            raise ValueError("the cutoff needs a time zone")
        if self.limit < 1:
            raise ValueError("the limit must be at least one row")


async def purge(
    conn: Connection,
    plan: StorePlan,
    rule: PurgeRule,
    portion: Portion,
    held: AskedIds,
    zone: ZoneInfo,
    options: StoreOptions,
) -> PurgeResult:
    """Let go what is older than the cutoff; see PostgresStore.purge."""
    edge = edge_of(rule.kind, portion.cutoff, zone)
    dropped = 0
    if portion.buckets is None:
        dropped = await _drop_partitions(conn, rule, edge, held, options)
        rows = await _delete(conn, plan, rule, rule.delete, edge, portion.limit, held.parameter)
    else:
        some = list(portion.buckets)
        rows = await _delete(conn, plan, rule, rule.delete_some, edge, portion.limit, held.parameter, some)
    more = rows == portion.limit
    oldest = None if more else await _oldest(conn, rule)
    return PurgeResult(rows, dropped, _instant(oldest, zone), more)


async def _delete(conn: Connection, plan: StorePlan, rule: PurgeRule, sql: str, *args: object) -> int:
    """Run one statement that deletes rows of the rule's table and gives their number; nothing else may change with them."""
    async with conn.transaction():
        tally = await Tally.begin(conn, plan)
        rows: int = await conn.fetchval(sql, *args)
        tally.deleted(rule.table, rows)
        await tally.require_nothing_else(conn)
    crash.at(Point.ROWS_PURGED)
    return rows


async def _oldest(conn: Connection, rule: PurgeRule) -> datetime | date | None:
    """Return the least age of all rows left; of partitions only as many are read as it takes, in the order of their bounds."""
    plan = rule.partitions
    if plan is None:
        oldest: datetime | date | None = await conn.fetchval(rule.oldest)
        return oldest
    in_order: list[tuple[datetime | date, str]] = []
    open_ones: list[str] = []  # nobody knows where they stand in the order
    for schema, name, bound in await conn.fetch(plan.bounds, plan.schema, plan.table):
        limits = upper_bound(rule.kind, bound or "")
        if limits is None:
            open_ones.append(quoted(schema, name))
        else:
            in_order.append((limits[1], quoted(schema, name)))
    found = [age for each in open_ones if (age := await _least(conn, plan, each)) is not None]
    for _, each in sorted(in_order):
        age = await _least(conn, plan, each)
        if age is not None:
            found.append(age)
            break
    return min(found, default=None)


async def _least(conn: Connection, plan: PartitionPlan, partition: str) -> datetime | date | None:
    age: datetime | date | None = await conn.fetchval(words("SELECT", f"min({plan.age})", "FROM", partition))
    return age


def edge_of(kind: AgeKind, cutoff: datetime, zone: ZoneInfo) -> datetime | date:
    """The cutoff as the column's type: rows strictly before it are over.

    A date stands for its whole day in the controller's zone, so only days that ended by the cutoff count as before it.
    A timestamp without a zone is read as UTC.
    """
    if kind is AgeKind.DAY:
        return cutoff.astimezone(zone).date()
    if kind is AgeKind.UTC:
        return cutoff.astimezone(UTC).replace(tzinfo=None)
    return cutoff


def upper_bound(kind: AgeKind, bound: str) -> tuple[datetime | date | None, datetime | date] | None:
    """Lower and upper bound of a partition; None for what has no finite upper bound or can't be read: not droppable."""
    found = RANGE.match(bound)
    if found is None:
        return None
    try:
        lower = None if found[1] is None else _parsed(kind, found[1])
        return lower, _parsed(kind, found[2])
    except ValueError:
        return None


def _parsed(kind: AgeKind, text: str) -> datetime | date:
    if kind is AgeKind.DAY:
        return date.fromisoformat(text)
    parsed = datetime.fromisoformat(text)
    if (parsed.tzinfo is None) is (kind is AgeKind.INSTANT):
        raise ValueError("the bound's zone doesn't fit its type")
    return parsed


def _instant(oldest: datetime | date | None, zone: ZoneInfo) -> datetime | None:
    """Return an age as an instant; `infinity` and `-infinity`, which asyncpg gives as the ends of the calendar, stay there."""
    if oldest is None:
        return None
    if not isinstance(oldest, datetime):
        oldest = datetime.combine(oldest, time.min, UTC if oldest in {date.min, date.max} else zone)
    try:
        return oldest.replace(tzinfo=UTC) if oldest.tzinfo is None else oldest.astimezone(UTC)
    except OverflowError:
        return oldest.replace(tzinfo=UTC)


async def _drop_partitions(
    conn: Connection, rule: PurgeRule, edge: datetime | date, held: AskedIds, options: StoreOptions
) -> int:
    """Drop every partition that ends by the edge; each in its own transaction, waiting little for its lock."""
    plan = rule.partitions
    if plan is None:
        return 0
    dropped = 0
    for schema, name, bound in await conn.fetch(plan.bounds, plan.schema, plan.table):
        limits = upper_bound(rule.kind, bound or "")
        if limits is None or not _is_over(limits[1], edge):
            continue
        if await _holds(conn, plan, limits, held):
            continue
        async with conn.transaction():
            # Writers queue behind a waiting DROP, so it gives up soon and is tried with the next sweep.
            await conn.execute(words("SET LOCAL lock_timeout =", str(int(options.drop_lock_timeout_s * 1000))))
            await conn.execute(words("DROP TABLE", quoted(schema, name)))
        crash.at(Point.PARTITION_DROPPED)
        dropped += 1
    return dropped


def _is_over(upper: datetime | date, edge: datetime | date) -> bool:
    """Whether all that a partition can hold lies before the edge: its upper bound is exclusive (CREATE TABLE, PARTITION BY)."""
    if isinstance(upper, datetime) and isinstance(edge, datetime):
        return upper <= edge
    if isinstance(upper, datetime) or isinstance(edge, datetime):
        return False
    return upper <= edge


async def _holds(
    conn: Connection,
    plan: PartitionPlan,
    limits: tuple[datetime | date | None, datetime | date],
    held: AskedIds,
) -> bool:
    """Whether a partition has rows of accounts that must not be touched; then its other rows go one by one."""
    if not held.parameter or plan.held is None:
        return False
    lower, upper = limits
    if lower is None:
        return True  # open below: not worth a scan of everything; rows go one by one
    return bool(await conn.fetchval(plan.held, lower, upper, held.parameter))
