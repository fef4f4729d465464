"""One store in PostgreSQL: found, erased, read again, exported and purged through its data map."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time
from types import TracebackType
from typing import Self

from habeas.chassis import crash
from habeas.chassis.crash import Point
from habeas.contracts.outcomes import TableOutcome
from habeas.contracts.vocabulary import TableResult
from habeas.datamap.catalogue.schema import LiveSchema
from habeas.datamap.check import compare
from habeas.datamap.errors import NotErased, SchemaMismatch, StoreRefused
from habeas.datamap.map.dataset import Contact
from habeas.datamap.map.model import StoreMap
from habeas.datamap.planner import (
    AgeKind,
    ExportPlan,
    PlanError,
    PurgeRule,
    RootPlan,
    StorePlan,
    TablePlan,
    compile_root,
    compile_store,
)
from habeas.datamap.policy.model import Policy
from habeas.datamap.policy.retention import expires_on
from habeas.datamap.postgres.collecting import Collection
from habeas.datamap.postgres.connection import Connection, Link, StoreOptions, read_catalogue
from habeas.datamap.postgres.erasing import Done, Erasing, Held
from habeas.datamap.postgres.export import ExportedRows, read_out
from habeas.datamap.postgres.ids import AskedIds
from habeas.datamap.postgres.purge import Portion, PurgeResult, purge
from habeas.datamap.postgres.refresh import refresh_views
from habeas.datamap.postgres.rehearsal import Rehearsed, choose, taken_back, written_down
from habeas.datamap.postgres.tally import Tally
from habeas.datamap.postgres.trial import try_values


@dataclass(frozen=True)
class ContactDetails:
    """What a mail to a person needs; absent parts are None."""

    address: str | None = field(default=None, repr=False)
    name: str | None = field(default=None, repr=False)
    language: str | None = None


class PostgresStore:
    """Connector of one store.

    Cheap to make: nothing is connected before the first use. Every call may raise StoreUnavailable, StoreRefused or
    SchemaMismatch; a call that changes rows leaves them untouched then, unless NotErased says `committed`.
    """

    def __init__(self, store: StoreMap, policy: Policy, dsn: str, options: StoreOptions | None = None) -> None:
        self.map = store
        self.policy = policy
        self._link = Link(store.name, dsn, store.schema, options or StoreOptions(), store.connection)
        self._plan: StorePlan | None = None
        self._root: RootPlan | None = None

    @property
    def name(self) -> str:
        """Name of the store in outcomes, events and alarms."""
        return self.map.name

    @property
    def root(self) -> str | None:
        """The table in which people begin; None where only other stores know them."""
        return self.map.root or None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._link.close()

    async def check(self) -> None:
        """Compare the live schema with the map, by one catalogue query; raises SchemaMismatch where they differ."""
        async with self._link.connection() as conn:
            await self._checked(conn)

    async def plan(self) -> StorePlan:
        """Give the compiled plan, checking first where that has not happened yet."""
        if self._plan is None:
            await self.check()
        assert self._plan is not None, "check() compiles or raises"  # noqa: S101 - for mypy
        return self._plan

    async def _checked(self, conn: Connection) -> StorePlan:
        """Compile again when, and only when, the schema is another one than last time."""
        live = await self._live(conn, self._plan.fingerprint if self._plan else None)
        if live is None:
            assert self._plan is not None, "the fingerprint of a plan was asked for"  # noqa: S101 - for mypy
            return self._plan
        problems = compare(self.map, live) or await try_values(conn, self.map, live)
        if problems:
            self._plan = None
            raise SchemaMismatch(self.name, problems)
        self._plan = compile_store(self.map, live)
        return self._plan

    async def _live(self, conn: Connection, known: str | None) -> LiveSchema | None:
        """Read the live schema; None when it still has the fingerprint `known`."""
        with self._link.told():
            return await read_catalogue(conn, self.map.schema, known)

    async def _root_plan(self, conn: Connection) -> RootPlan:
        """What concerns the root alone; asks the catalogue once."""
        if self._root is None:
            try:
                self._root = compile_root(self.map, await self._live(conn, None) or LiveSchema({}))
            except PlanError as error:
                raise SchemaMismatch(self.name, error.problems, self.map.root) from None
        return self._root

    async def contacts(self, account_ids: Iterable[str]) -> Mapping[str, ContactDetails]:
        """Address, name and language of those accounts that exist, by one statement; nothing of a store without a root.

        Works also while other tables differ from the map: a request is accepted whatever the schema looks like.
        """
        if not self.map.has_root:
            return {}
        async with self._link.connection() as conn:
            root = await self._root_plan(conn)
            asked = AskedIds(account_ids, root.identity_type)
            with self._link.told(root.table):
                rows = await conn.fetch(root.contact, asked.parameter)
        found: dict[str, ContactDetails] = {}
        for row in rows:
            parts = {part: row[part.value] for part in root.parts}
            details = ContactDetails(parts.get(Contact.ADDRESS), parts.get(Contact.NAME), parts.get(Contact.LANGUAGE))
            found.update(dict.fromkeys(asked.given(row["account_id"]), details))
        return found

    async def identity_type(self) -> str:
        """Type of the columns that hold the account id, as the database names it; works like `contacts` where there is a root."""
        if not self.map.has_root:
            return (await self.plan()).identity_type
        if self._root is not None:
            return self._root.identity_type
        async with self._link.connection() as conn:
            return (await self._root_plan(conn)).identity_type

    async def existing(self, account_ids: Iterable[str]) -> frozenset[str]:
        """Those of the accounts that the root has a row for; works like `contacts`."""
        if not self.map.has_root:
            return frozenset()
        async with self._link.connection() as conn:
            root = await self._root_plan(conn)
            asked = AskedIds(account_ids, root.identity_type)
            with self._link.told(root.table):
                rows = await conn.fetch(root.exists, asked.parameter)
        return frozenset(given for row in rows for given in asked.given(row["account_id"]))

    async def account_ids(self, after: str | None, limit: int) -> list[str]:
        """Account ids in the order of the identity column, from behind `after` on; fewer than `limit` means the end.

        Works like `contacts`. An account that is made while somebody pages may come before the place reached.
        """
        if not self.map.has_root:
            return []
        async with self._link.connection() as conn:
            root = await self._root_plan(conn)
            with self._link.told(root.table):
                if after is None:
                    rows = await conn.fetch(root.first_page, limit)
                else:
                    rows = await conn.fetch(root.next_page, after, limit)
        return [row["account_id"] for row in rows]

    async def locate(self, account_ids: Iterable[str]) -> Mapping[str, Mapping[str, int]]:
        """Rows per table per account, zeros included, in one snapshot and one statement.

        Counts by the plan that is known: whether the live schema is still that of the map is asked by what acts on it.
        """
        async with self._link.connection() as conn:
            plan = self._plan or await self._checked(conn)
            asked = AskedIds(account_ids, plan.identity_type, plan.ghosts)
            tables = [table for table in plan.tables if table.locate]
            held = {account_id: {table.table: 0 for table in tables} for account_id in asked.asked}
            try:
                with self._link.told():
                    rows = await conn.fetch(plan.located, asked.parameter)
            except StoreRefused:
                for table in tables:  # the one that refuses is to be named
                    await self._counts(conn, table, table.locate, asked)
                raise
        for row in rows:
            for account_id in asked.given(row["account_id"]):
                held[account_id][row["name"]] += row["rows"]
        return held

    async def planned(self, account_ids: Iterable[str]) -> Mapping[str, tuple[TableOutcome, ...]]:
        """What an erasure would do to rows of the accounts now; tables without any are left out. Nothing is changed.

        Rows of others that would let go are not counted; those that would go with a row of the account are.
        """
        located = await self.locate(account_ids)
        plan = await self.plan()
        done = Done()
        if plan.collected:
            asked = AskedIds(located, plan.identity_type, plan.ghosts)
            async with self._link.connection() as conn:
                with self._link.told():
                    collection = await Collection.collect(conn, plan, asked)
            for name in plan.collected:
                for account_id, result, _ in collection.results(name):
                    done.add(name, account_id, result, Held(1))
        for account_id, rows in located.items():
            for table in plan.tables:
                if not table.is_collected:
                    held = Held(rows.get(table.table, 0))
                    done.add(table.table, account_id, table.result or TableResult.NOTHING_HELD, held)
        return {
            account_id: tuple(
                self._outcome(table, result, held.rows)
                for table in plan.tables
                if table.category
                for result, held in done.of(table.table, account_id).items()
            )
            for account_id in located
        }

    def _outcome(self, table: TablePlan, result: TableResult, rows: int, until: date | None = None) -> TableOutcome:
        return TableOutcome(
            store=self.name,
            table=table.table,
            category=table.category,
            result=result,
            rows=rows,
            ground=table.ground if result is TableResult.KEPT else None,
            until=until,
        )

    async def erase(
        self, account_ids: Iterable[str], guard: Callable[[], Awaitable[None]] | None = None
    ) -> Mapping[str, tuple[TableOutcome, ...]]:
        """Erase all that the map says of these accounts, in one transaction, and read again.

        Tables that do not refer to one another go in one statement. What that does not accept is done over, table by table, which then
        has the last word and names the table.

        Per account one outcome for each table, in the order of the work. Running it again finds nothing, and says so.
        Raises NotErased when a row is still there: before the commit nothing has changed; after it (`committed`), rows
        that somebody wrote meanwhile go with the next run. `guard` is asked before the commit; what it raises rolls back.
        The server ends a transaction that then stands still for longer than the option `idle_timeout_s`.
        """
        wanted = tuple(account_ids)
        async with self._link.connection() as conn:
            try:
                plan, asked, done = await self._erase(conn, wanted, Erasing.by_layers, guard)
            except (StoreRefused, NotErased):
                plan, asked, done = await self._erase(conn, wanted, Erasing.by_tables, guard)
            await self._read_again(conn, plan, asked)
        return {account_id: tuple(self._outcomes(plan, done, account_id)) for account_id in asked.asked}

    async def rehearse(self, account_ids: Iterable[str]) -> Rehearsed:
        """Do the whole transaction of an erasure, and roll it back: nothing is changed, and rows are locked until then.

        Raises what the erasure would raise before its commit.
        """
        wanted = tuple(account_ids)
        async with self._link.connection() as conn:
            try:
                return await self._rehearsed(conn, wanted, Erasing.by_layers)
            except (StoreRefused, NotErased):
                return await self._rehearsed(conn, wanted, Erasing.by_tables)

    async def _rehearsed(
        self, conn: Connection, wanted: Sequence[str], work: Callable[[Erasing], Awaitable[Done]]
    ) -> Rehearsed:
        statements: list[str] = []
        async with taken_back(conn):
            plan, asked, done = await self._erase(conn, wanted, written_down(conn, work, statements), None)
        outcomes = {account_id: tuple(self._outcomes(plan, done, account_id)) for account_id in asked.asked}
        refreshed = (sql for _, sql in plan.refreshes)
        locks = (plan.root.lock,) if plan.root is not None else ()
        return Rehearsed(outcomes, (*locks, *statements, *refreshed))

    async def rehearse_purge(self, table: str, retention: str, cutoff: datetime, limit: int) -> int:
        """Give how many rows one call of `purge` would delete, at most `limit`; they are there again afterwards. Drops no partition.

        Raises what the purge would raise.
        """
        async with self._link.connection() as conn:
            plan = await self._checked(conn)
            rule = next((each for each in plan.purges if (each.table, each.retention) == (table, retention)), None)
            if rule is None:
                raise SchemaMismatch(self.name, (), table)
            nobody = AskedIds((), plan.identity_type)
            with self._link.told(table):
                async with taken_back(conn):
                    whole = replace(rule, partitions=None)
                    done = await purge(
                        conn, plan, whole, Portion(cutoff, limit), nobody, self.policy.zone, self._link.options
                    )
        return done.rows

    async def sample(self, limit: int) -> list[str]:
        """Account ids of people chosen at random, at most `limit`; none in a store without a table of people."""
        if not self.map.has_root:
            return []
        async with self._link.connection() as conn:
            plan = await self._checked(conn)
            with self._link.told(self.map.root):
                return await choose(conn, self.map, sorted(plan.ghosts), limit)

    async def _erase(
        self,
        conn: Connection,
        wanted: Sequence[str],
        work: Callable[[Erasing], Awaitable[Done]],
        guard: Callable[[], Awaitable[None]] | None,
    ) -> tuple[StorePlan, AskedIds, Done]:
        """One transaction: check, lock, work, ask the guard. Everything that it raises, it raises before the commit."""
        async with conn.transaction():
            plan = await self._checked(conn)
            asked = AskedIds(wanted, plan.identity_type, plan.ghosts)
            tally = await Tally.begin(conn, plan)
            if plan.root is not None:
                with self._link.told(plan.root.table):
                    await conn.fetch(plan.root.lock, asked.parameter)
            done = await work(Erasing(self._link, conn, plan, asked, tally))
            await refresh_views(conn, self._link, plan)
            await tally.require_nothing_else(conn)
            crash.at(Point.STORE_ERASED)
            if guard is not None:
                await guard()
        crash.at(Point.STORE_COMMITTED)
        return plan, asked, done

    async def _read_again(self, conn: Connection, plan: StorePlan, asked: AskedIds) -> None:
        """After the commit, everything that carries the account id itself: a row written meanwhile would be there."""
        if plan.read_again is None:
            return
        with self._link.told():
            for row in await conn.fetch(plan.read_again, asked.parameter):
                if row["rows"]:
                    raise NotErased(self.name, row["name"], row["rows"], committed=True)

    async def _counts(self, conn: Connection, table: TablePlan, sql: str, asked: AskedIds) -> dict[str, int]:
        with self._link.told(table.table):
            return {row["account_id"]: row["rows"] for row in await conn.fetch(sql, asked.parameter)}

    def _outcomes(self, plan: StorePlan, done: Done, account_id: str) -> Iterator[TableOutcome]:
        tables = {table.table: table for table in plan.tables}

        def end_of(table: TablePlan) -> date | None:
            """Last day of the rows of this table and of those that stay for them; None where nobody can know it."""
            held = done.of(table.table, account_id).get(TableResult.KEPT)
            ends = [None if held is None else self._until(table, held)]
            for name in table.stays_for:
                child = tables.get(name)
                if child is None or child.ground is None:
                    return None
                if TableResult.KEPT in done.of(name, account_id):
                    ends.append(end_of(child))
            known = [end for end in ends if end is not None]
            return max(known) if len(known) == len(ends) else None

        for table in plan.tables:
            if not table.category:
                continue
            found = done.of(table.table, account_id)
            if table.result is not None and all(result.is_of_others for result in found):
                found = {TableResult.NOTHING_HELD: Held(0), **found}
            for result, held in found.items():
                until = end_of(table) if result is TableResult.KEPT else None
                yield self._outcome(table, result, held.rows, until)

    def _until(self, table: TablePlan, held: Held) -> date | None:
        """Last day on which the newest of the kept rows stays; None where the rows carry no age."""
        if table.until is None or held.newest is None:
            return None
        zone = self.policy.zone
        newest = held.newest
        if not isinstance(newest, datetime):
            newest = datetime.combine(newest, time.max, zone)  # anything dated so happened by the end of that day
        elif table.newest is AgeKind.UTC:
            newest = newest.replace(tzinfo=UTC)
        try:
            return expires_on(self.policy.retention[table.until], newest, zone)
        except (OverflowError, ValueError):  # `infinity`, or a year behind the last that a date can hold
            return None

    async def sources(self, *, portable_only: bool = False) -> tuple[ExportPlan, ...]:
        """Every table that an export of this kind reads, also those that turn out to hold nothing."""
        return _sources(await self.plan(), portable_only=portable_only)

    async def export(
        self, account_ids: Iterable[str], *, portable_only: bool = False
    ) -> AsyncGenerator[ExportedRows, None]:
        """Return all rows of many accounts, in one snapshot and one statement per table, some rows at a time.

        Each piece holds rows of one account and one table. The server ends the snapshot when nobody asks for the next piece for longer
        than the option `idle_timeout_s`. Close the iterator (contextlib.aclosing) when leaving early.
        """
        async with self._link.connection() as conn:
            plan = await self._checked(conn)
            asked = AskedIds(account_ids, plan.identity_type, plan.ghosts)
            async with conn.transaction(isolation="repeatable_read", readonly=True):
                for source in _sources(plan, portable_only=portable_only):
                    with self._link.told(source.table):
                        async for piece in read_out(conn, source, asked, self._link.options.rows_per_fetch):
                            yield piece

    async def purge_rules(self) -> tuple[PurgeRule, ...]:
        """What the retention sweep has to do here, children first."""
        return (await self.plan()).purges

    async def purge(
        self,
        rule: PurgeRule,
        cutoff: datetime,
        limit: int,
        held: Iterable[str] = (),
        buckets: Sequence[int] | None = None,
    ) -> PurgeResult:
        """Let go what is older than `cutoff`: whole partitions, then at most `limit` rows.

        With `buckets` (0 up to BUCKETS) only rows whose key falls into one of them, and no partitions: to get by a row that does not go.

        Never a row at or after the cutoff, never a row of an account in `held`, never a row that others still refer to. Raises
        OthersTouched, and the rows stay, when the database counts other changes than these: by a cascade, a trigger, a rule.
        Call again while `more`. Raises ValueError for a cutoff without a zone. The rule is looked up again in the plan
        of the live schema as it is now.
        """
        async with self._link.connection() as conn:
            plan = await self._checked(conn)
            asked = AskedIds(held, plan.identity_type)
            live = next((r for r in plan.purges if (r.table, r.retention) == (rule.table, rule.retention)), None)
            if live is None:
                raise SchemaMismatch(self.name, (), rule.table)
            with self._link.told(rule.table):
                portion = Portion(cutoff, limit, buckets)
                return await purge(conn, plan, live, portion, asked, self.policy.zone, self._link.options)


def _sources(plan: StorePlan, *, portable_only: bool) -> tuple[ExportPlan, ...]:
    wanted = (table.portable if portable_only else table.export for table in plan.tables)
    return tuple(source for source in wanted if source is not None)
