"""The time edge of retention-sweeper: plans are read, rows go."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from habeas.chassis import cause, metrics
from habeas.chassis.database import Database, Transaction
from habeas.chassis.gauges import show_stuck
from habeas.chassis.lease import leased
from habeas.chassis.redaction import Name
from habeas.chassis.sweep import Swept
from habeas.chassis.together import Failure, Limits, collect_together, try_together
from habeas.datamap.errors import OthersTouched, StoreRefused
from habeas.datamap.planner import BUCKETS
from habeas.datamap.policy.model import Policy
from retention_sweeper import lifecycle, store
from retention_sweeper.gateways import Purgeable
from retention_sweeper.lifecycle import Decision, Planned, Purged, Rule, State, Sweep, Tick

BATCH_TICKS_MAX: Final = 100

_PLAN: Final = Limits(130.0)  # a little more than a store lets one statement take
_PURGE: Final = Limits(130.0, round_s=600.0)


async def plan_due(db: Database, stores: Purgeable) -> Swept:
    """Find what ticks ask for: a sweep of every rule that each store's live plan has, in its order.

    Idempotent: the plan is read between two transactions, and whatever dies is taken up again after its lease. A store that does
    not answer leaves its ticks stuck, and those of the others go on.
    """
    async with db.transaction("ticks-begin") as tx:
        due = await store.lock_due_ticks(tx, BATCH_TICKS_MAX)
        tx.caused_by(*(tick.traceparent for tick in due))
        claimed = [lifecycle.begin_plan(tick, stores.root(tick.store), tx.now) for tick in due]
        await _save_planned(tx, claimed)
        begun = [each.tick for each in claimed if each.tick.state is State.SWEEPING]
    if not begun:
        return Swept(len(claimed))

    async def ask(names: Sequence[str]) -> dict[str, tuple[Rule, ...]]:
        return {name: await stores.rules(name) for name in names}

    plans: dict[str, tuple[Rule, ...] | Failure] = {}
    with cause.worked("stores.plan", [tick.traceparent for tick in begun], db.clock):
        for name in sorted(
            {tick.store for tick in begun}
        ):  # each by itself: what one store says is nothing about another
            found, failures = await collect_together([name], ask, _PLAN)
            plans |= {**found, **failures}
    async with db.transaction("ticks-finish") as tx:
        locked = await store.lock_ticks(tx, begun)
        planned = [
            _plan(tick, plans[tick.store], stores, tx)
            for before in begun
            if (tick := locked[before.tick_id, before.store]).version == before.version + 1
        ]
        await _save_planned(tx, planned)
    return Swept(len(claimed), more=len(claimed) == BATCH_TICKS_MAX)


async def sweep_due(db: Database, stores: Purgeable, policy: Policy, rows_max: int) -> Swept:
    """Let one batch of one rule go, children before parents, newest tick first; then ask to go on while sweeps are due.

    Idempotent: a batch that was deleted is found so. Whatever dies is taken up again after its lease; only the count of a batch
    whose report died with the process is lost.
    """
    async with db.transaction("sweep-begin") as tx:
        due = await store.lock_due_sweep(tx)
        if due is None:
            return Swept(0)
        tx.caused_by(due.traceparent)
        reached = await store.find_reached(tx, due)
        decision = lifecycle.begin_sweep(due, policy.retention.get(due.rule.retention), policy.zone, reached, tx.now)
        await _save(tx, decision)
    begun = decision.sweep
    if begun.state is not State.SWEEPING or begun.cutoff_at is None:
        return Swept(1, more=True)
    claimed = (begun.tick_id, begun.store, begun.rule.table, begun.rule.retention, begun.version + 1)
    async with leased(db, lifecycle.LEASE, store.KEEP_ATTEMPT, *claimed):
        with cause.worked("stores.purge", [begun.traceparent], db.clock):
            purged, failure = await _purge(stores, begun, begun.cutoff_at, lifecycle.rows_at_once(begun, rows_max))
    await _finish(db, begun, purged, failure)
    if purged.rows:
        metrics.RETENTION_PURGED_ROWS.add(purged.rows, rule=_label(begun.rule, begun.store))
    return Swept(1, more=True)


async def _purge(stores: Purgeable, sweep: Sweep, cutoff: datetime, rows_max: int) -> tuple[Purged, Failure | None]:
    """Let rows go; where some do not, all others: they are divided by a hash of their keys until those that stay are alone."""
    pieces: list[Purged] = []
    failures: list[Failure] = []
    away: list[Exception] = []

    async def work(buckets: Sequence[int]) -> Purged:
        if away:
            raise away[0]
        some = None if len(buckets) == BUCKETS else buckets
        try:
            return await stores.purge(sweep.store, sweep.rule, cutoff, rows_max, some)
        except (StoreRefused, OthersTouched):
            raise
        except Exception as error:
            away.append(error)  # no row's fault: nothing is tried again before the next attempt
            raise

    async def done(_: Sequence[int], purged: Purged) -> None:
        pieces.append(purged)

    async def failed(_: Sequence[int], failure: Failure) -> None:
        failures.append(failure)

    # Most buckets are empty: when three tries in a row fail, it is the whole rule.
    await try_together(range(BUCKETS), work, done, failed, _PURGE, is_shared=lambda _: True)
    return lifecycle.together(pieces), failures[0] if failures else None


def _plan(tick: Tick, rules: tuple[Rule, ...] | Failure, stores: Purgeable, tx: Transaction) -> Planned:
    if isinstance(rules, Failure):
        return lifecycle.fail_plan(tick, rules.reason, rules.table or stores.root(tick.store), tx.now)
    return lifecycle.plan(tick, rules, tx.now)


async def _save_planned(tx: Transaction, planned: Sequence[Planned]) -> None:
    await store.save_ticks(tx, [each.tick for each in planned])
    await store.add_sweeps(tx, [sweep for each in planned for sweep in each.sweeps])
    for each in planned:
        tx.emit(*each.events, trace=each.tick.traceparent)
        tx.record(*each.facts, trace=each.tick.traceparent)


async def _finish(db: Database, begun: Sweep, purged: Purged, failure: Failure | None) -> None:
    """Save what came of an attempt, unless the lease ran out and another replica took the sweep up meanwhile."""
    async with db.transaction("sweep-finish") as tx:
        sweep = await store.lock_sweep(tx, begun)
        if sweep.version != begun.version + 1:
            return
        if failure is not None:
            decision = lifecycle.advance_past(sweep, purged, failure.reason, tx.now)
        else:
            is_behind = await store.has_open_before(tx, sweep)
            decision = lifecycle.advance(sweep, purged, tx.now, is_behind=is_behind)
        await _save(tx, decision)


async def _save(tx: Transaction, decision: Decision) -> None:
    await store.save_sweep(tx, decision.sweep)
    if decision.sweep.state is State.COMPLETED:
        await store.note_reached(tx, decision.sweep)
    tx.emit(*decision.events, trace=decision.sweep.traceparent)
    tx.record(*decision.facts, trace=decision.sweep.traceparent)


async def measure_rules(db: Database) -> None:
    """Show since when each rule was last carried out to its end, and what waits for somebody to look."""
    now = db.clock.now()
    ages: dict[tuple[metrics.Label, ...], float] = {}
    for row in await db.read("measure-rules", store.FIND_RULES):
        ages[(_label(Rule(row["table_name"], row["retention"]), row["store"]),)] = (
            now - row["reached_at"]
        ).total_seconds()
    metrics.RETENTION_REACHED_AGE_S.show_all(ages)
    await show_stuck(db, store.COUNT_STUCK)


def _label(rule: Rule, store_name: str) -> Name:
    """Name a rule by words of the data map; one that is written in other letters is shown by its retention class alone."""
    try:
        return Name(f"{store_name}.{rule.table}.{rule.retention}".lower())
    except ValueError:
        return Name("rule")
