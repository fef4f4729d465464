"""What the planner makes: statements with what they mean. `$1` is always an array of account ids as text, unless said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from habeas.contracts.vocabulary import KeepGround, TableResult
from habeas.datamap.map.dataset import Contact
from habeas.datamap.source import Problem


class PlanError(Exception):
    """A store's map cannot be compiled for its live schema; `problems` says where and why."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in problems))


class AgeKind(StrEnum):
    """How the database holds the time from which a retention runs."""

    INSTANT = "timestamp with time zone"
    UTC = "timestamp without time zone"
    DAY = "date"


@dataclass(frozen=True)
class RootPlan:
    """Where a person begins; usable also while other tables differ from the map, so that a request is never turned away.

    `contact` gives `account_id` and one column for each of `parts`, `exists` gives `account_id`, both only for accounts that
    have a row; `lock` holds those rows until the transaction ends. `first_page` (`$1` rows) and `next_page` (`$1` an account
    id, `$2` rows) give `account_id` in the order of the identity column.
    """

    table: str
    identity_type: str
    contact: str
    parts: tuple[Contact, ...]
    exists: str
    lock: str
    first_page: str
    next_page: str


@dataclass(frozen=True)
class ExportPlan:
    """What a person is shown of one table.

    `sql` gives the account id and then each of `columns` as text, written by the type's own output function, so that its input function
    reads the same value back; instants and days in ISO 8601. `types` are the columns' declared types, `bases` those below domains.
    `named` are columns that are said to exist and never read.
    """

    table: str
    category: str
    sql: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    bases: tuple[str, ...]
    named: tuple[str, ...]


@dataclass(frozen=True)
class TablePlan:
    """One table in an erasure.

    `locate` counts (`account_id`, `rows`, and `newest` where rows may be kept). `erase` deletes or overwrites and gives
    (`account_id`, `rows`); None where rows simply stay. `erase_one` does the same for one account, counting by the command
    tag alone, which spares a large account a second copy of every id. `verify` counts what should not be there any more, None where
    nothing changes; `again` are the counts that can be asked when everything else is gone. Nothing of these where rows are looked for
    first (`is_collected`, see CollectPlan). `gone` is `erase` giving one `account_id` for each row, to be counted in a larger statement.
    `mentions` overwrite this person's id in rows of others, `unmentioned` counts what is left of it. `stays_for` are tables whose rows
    stay and refer to rows of this one, so that these stay as long.
    """

    table: str
    category: str
    result: TableResult | None
    is_collected: bool
    locate: str
    erase: str | None
    erase_one: str | None
    verify: str | None
    gone: str | None = None
    again: tuple[str, ...] = ()
    mentions: tuple[str, ...] = ()
    unmentioned: tuple[str, ...] = ()
    ground: KeepGround | None = None
    until: str | None = None
    newest: AgeKind | None = None
    stays_for: tuple[str, ...] = ()
    export: ExportPlan | None = None
    portable: ExportPlan | None = None


@dataclass(frozen=True)
class LinkPlan:
    """What one link does to the rows that are looked for first; `rank` is its number among those of the table.

    `owns` says that it makes people owners, alone or with others; `goes` that rows go because of it, `is_shared` only when nobody else is
    left. `change` overwrites rows, `left` counts those that
    should have been; None where rows simply stay. Both take the rows' keys, an array of texts for each column.
    """

    rank: int
    owns: bool
    goes: bool
    is_shared: bool
    result: TableResult | None
    change: str | None
    left: str | None


@dataclass(frozen=True)
class FollowPlan:
    """Rows that go because the row goes that they refer to.

    `sql` takes the values of the parent's columns `of` (by number) and gives (`n`, and the row's columns).
    """

    parent: str
    of: tuple[int, ...]
    sql: str


class Holding(StrEnum):
    """What a row that refers keeps: any row, anonymised; a shared row, as one that makes somebody its owner; a shared row, as its user."""

    ANYWAY = "anyway"
    OWNER = "owner"
    USER = "user"


@dataclass(frozen=True)
class HolderPlan:
    """Rows of `child` for which a row stays that would go.

    `sql` takes the rows' keys, then the account ids, and gives (`n`, and the child's key where it is looked for first too).
    """

    child: str
    sql: str
    holding: Holding


@dataclass(frozen=True)
class DetachPlan:
    """Rows of `child` that let go of rows which are deleted.

    `sql` takes the values of the parent's columns `of` (by number); it gives the key of each row where the child is looked for first too.
    """

    child: str
    of: tuple[int, ...]
    sql: str


@dataclass(frozen=True)
class CollectPlan:
    """A table whose rows are looked for before any is changed.

    `found` takes the account ids and gives (`account_id`, `ranks`, `held`, `newest`, and `columns` as texts, of which the first `key` are
    the key), locking the rows. `held`: an owner beside those asked for is left. `kept` is how rows are anonymised that others keep.
    """

    table: str
    columns: tuple[str, ...]
    key: int
    found: str | None
    links: tuple[LinkPlan, ...]
    follows: tuple[FollowPlan, ...]
    holders: tuple[HolderPlan, ...]
    detaches: tuple[DetachPlan, ...]
    delete: str
    kept: LinkPlan | None


@dataclass(frozen=True)
class PartitionPlan:
    """How to drop whole partitions of a table.

    `bounds` lists (`schema`, `name`, `bound`) of its partitions. `age` is the column of that age, quoted. `held` tells whether rows of the
    accounts in `$3` lie in `[$1, $2)`; None where rows lead to nobody.
    """

    schema: str
    table: str
    bounds: str
    age: str
    held: str | None


@dataclass(frozen=True)
class PurgeRule:
    """Rows of one table that go once they are older than a retention class allows.

    `delete` removes at most `$2` rows with an age before `$1`, except those of accounts in `$3`, and those that other
    rows still refer to; it gives their number. `delete_some` does the same with those whose key falls into a bucket in `$4`.
    `oldest` is the least age of all rows left.
    """

    store: str
    table: str
    category: str
    retention: str
    age: str
    kind: AgeKind
    delete: str
    delete_some: str
    oldest: str
    partitions: PartitionPlan | None


@dataclass(frozen=True)
class LayerPlan:
    """Tables that do not refer to one another, erased by one statement.

    `sql` erases them and gives (`name`, `account_id`, `rows`); in the same statement it counts what is left in the layer before, while
    the rows by which its people are found still exist: those rows of the answer have no `account_id`. Empty when there is nothing to do.
    """

    tables: tuple[TablePlan, ...]
    sql: str


@dataclass(frozen=True)
class StorePlan:
    """Every statement for one store. `tables`, `layers` and `purges` stand children first.

    `identity_type` is that of the columns that hold the account id; `root` is None in a store that has no table of people.

    `located` gives (`name`, `account_id`, `rows`) of every table at once. The last of `layers` erases nothing, it only counts.
    `collected` are the tables of which rows are looked for first. `ghosts` are account ids that stand for nobody.

    `nobodys` are the tables that hold nobody's data, `loosened` those whose references the database sets null (or to their default) when a
    row goes that they lead to, `foreign` those whose rows another server holds; all by schema and name, with a point between.

    `refreshes` are materialised views to be filled anew, each after those that it reads, with their statements.

    `read_again` gives (`name`, `rows`) for every table whose rows carry the account id themselves: what should not be there
    after an erasure.
    """

    store: str
    schema: str
    identity_type: str
    root: RootPlan | None
    located: str
    read_again: str | None
    layers: tuple[LayerPlan, ...]
    tables: tuple[TablePlan, ...]
    collected: Mapping[str, CollectPlan]
    purges: tuple[PurgeRule, ...]
    ghosts: frozenset[str]
    nobodys: frozenset[str]
    loosened: frozenset[str]
    foreign: frozenset[str]
    fingerprint: str
    refreshes: tuple[tuple[str, str], ...] = ()
