"""What can go wrong with a store while it runs.

::

    StoreError
    ├── StoreUnavailable   no answer, too slow, too busy, locked: later it may work
    ├── StoreRefused       it answered no: a permission, a constraint, a row-level rule
    ├── SchemaMismatch     the live schema and the data map differ: nothing was touched
    ├── NotErased          rows are still there after the erasure
    └── OthersTouched      rows that the map does not name would have changed: nothing was touched

Each names stores, tables and counts, never a value: the driver's own messages quote rows, so they are dropped.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from typing_extensions import override

from habeas.contracts.vocabulary import StuckReason
from habeas.datamap.source import Problem


class Unavailability(StrEnum):
    """Why a store gave no answer."""

    NO_CONNECTION = "no_connection"
    LOGIN_REFUSED = "login_refused"
    TOO_SLOW = "too_slow"
    BUSY = "busy"
    CLOSED = "closed"
    MISCONFIGURED = "misconfigured"


class Rule(NamedTuple):
    """A constraint of the store, with the table that it belongs to; names of the schema, so they may be shown."""

    table: str
    constraint: str
    is_foreign_key: bool

    @override
    def __str__(self) -> str:
        """Return what a person looks for in the schema."""
        kind = "foreign key" if self.is_foreign_key else "constraint"
        return f"{kind} {self.constraint} of the table {self.table}"


class StoreError(Exception):
    """A store did not do what was asked; the transaction, where there was one, is rolled back unless said otherwise."""

    because: StuckReason
    is_shared: bool = False
    """Whether the error speaks of the store, and perhaps of nobody in it: to try people one by one would help only if it was theirs."""

    def __init__(self, store: str, message: str, table: str | None = None) -> None:
        self.store = store
        self.table = table
        super().__init__(message)


class StoreUnavailable(StoreError):
    """The store gave no answer; to be tried again. `why` says it to a person, where there is more to say than the reason."""

    because = StuckReason.STORE_UNAVAILABLE

    def __init__(self, store: str, reason: Unavailability, table: str | None = None, why: str | None = None) -> None:
        self.reason = reason
        self.is_shared = reason not in {Unavailability.TOO_SLOW, Unavailability.BUSY}
        super().__init__(store, f"store {store} is unavailable: {why or reason}", table)


class StoreRefused(StoreError):
    """The store answered that it will not; somebody must look.

    `code` is the SQLSTATE (PostgreSQL, appendix A). `rule` is the constraint that refused, with its table: for a foreign key that is the
    table that still refers to rows of `table`, or to rows of another one that was to go with it.
    """

    because = StuckReason.STORE_REFUSED

    def __init__(self, store: str, table: str | None, code: str, rule: Rule | None = None) -> None:
        self.code = code
        self.rule = rule
        by = f", by the {rule}" if rule is not None else ""
        super().__init__(store, f"store {store} refused (table {table or 'unknown'}, SQLSTATE {code}{by})", table)


def table_behind(error: StoreError) -> str | None:
    """Give the table whose rows are in the way, where the store named it: that of a foreign key which refused, else the error's own."""
    rule = error.rule if isinstance(error, StoreRefused) else None
    return rule.table if rule is not None and rule.is_foreign_key else error.table


class SchemaMismatch(StoreError):
    """The live schema and the data map differ, so nothing is erased or exported before somebody has looked."""

    because = StuckReason.SCHEMA_MISMATCH
    is_shared = True

    def __init__(self, store: str, problems: Sequence[Problem], table: str | None = None) -> None:
        self.problems = tuple(problems)
        listed = "\n".join(str(problem) for problem in problems)
        super().__init__(store, f"store {store} differs from its data map\n{listed}".rstrip(), table)


class NotErased(StoreError):
    """Reading again found rows that should be gone. `committed`: the erasure of the others stands; it may be run again."""

    because = StuckReason.NOT_ERASED

    def __init__(self, store: str, table: str, rows: int, *, committed: bool) -> None:
        self.rows = rows
        self.committed = committed
        super().__init__(store, f"store {store}: {rows} rows of {table} are still there", table)


class OthersTouched(StoreError):
    """Beside the rows that the map names, others of `table` would have been inserted, updated or deleted: by a cascade, a trigger, a rule.

    `uncounted`: the database counted less than the statements gave back, so it cannot be seen what else they do.
    """

    because = StuckReason.OTHERS_TOUCHED

    def __init__(
        self, store: str, table: str, inserted: int = 0, updated: int = 0, deleted: int = 0, *, uncounted: bool = False
    ) -> None:
        self.inserted, self.updated, self.deleted = inserted, updated, deleted
        if uncounted:
            message = (
                f"store {store} does not count the changes of the table {table} (track_counts is off, or its rows are in another database),"
                " so nobody could see what else would change"
            )
        else:
            counts = {"insert": inserted, "update": updated, "delete": deleted}
            would = ", ".join(f"{verb} {count} rows" for verb, count in counts.items() if count)
            message = (
                f"store {store} would also {would} of the table {table}, which the data map does not name: look for foreign keys with"
                " ON DELETE, triggers and rules of the tables that an erasure or purge changes"
            )
        super().__init__(store, message, table)
