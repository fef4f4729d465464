"""Everything in which a store's map and its live schema differ, all findings together."""

from collections.abc import Iterator

from habeas.datamap.catalogue.schema import LiveSchema
from habeas.datamap.check.acting import acting
from habeas.datamap.check.constants import unfit_constants
from habeas.datamap.check.copies import copies
from habeas.datamap.check.listed import unlisted
from habeas.datamap.check.references import unsafe_references
from habeas.datamap.map.model import StoreMap, Table, names
from habeas.datamap.planner import PlanError, compile_store
from habeas.datamap.source import Problem


def compare(store: StoreMap, live: LiveSchema) -> tuple[Problem, ...]:
    """Everything in which map and live schema differ so that an erasure or export could miss or hurt something.

    Empty when they agree. Pure: `live` is what one catalogue query told.
    """
    problems = [
        *unlisted(store, live),
        *unfit_constants(store, live),
        *(problem for table in store.tables.values() for problem in _droppable(table, live)),
        *_unsafe(store, live),
        *acting(store, live),
        *copies(store, live),
    ]
    if not problems:
        try:
            compile_store(store, live)
        except PlanError as error:
            problems += error.problems
    return tuple(
        sorted(set(problems), key=lambda problem: (str(problem.file), problem.line, problem.path, problem.what))
    )


def _unsafe(store: StoreMap, live: LiveSchema) -> list[Problem]:
    try:
        return list(unsafe_references(store, live))
    except PlanError as error:  # of references in a circle, which leave no order
        return list(error.problems)


def _droppable(table: Table, live: LiveSchema) -> Iterator[Problem]:
    found = live.tables.get(table.name)
    if found is None or not table.partitioned or table.age is None or table.age.table != table.name:
        return
    if found.partitioned_by != (table.age.column,):
        by = names(found.partitioned_by) if found.partitioned_by else "no range of a column"
        what = f"`{table.name}` is partitioned by {by}, not by its age `{table.age.column}`"
        yield table.place.problem(
            what, "no `partitioned` here, or the partitioned column as `age`", "habeas", "partitioned"
        )
