"""Paths from tables to people, and the order in which tables can be erased."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from habeas.datamap.map.paths import (
    CYCLE,
    NOTHING_LEADS,
    SEVERAL_LEAD,
    Join,
    NoPath,
    PathFinder,
    Reference,
    ReferenceCycleError,
    SubjectPath,
    Ways,
    children_first,
)


def edge(table: str, column: str, to_table: str, to_column: str) -> Reference:
    """A reference by one column."""
    return Reference(table, ((column, to_column),), to_table)


def hop(column: str, table: str, to_column: str) -> Join:
    """A hop by one column."""
    return Join(((column, to_column),), table)


def find_paths(tables: dict[str, Ways], root: str, identity: str) -> dict[str, SubjectPath | NoPath]:
    """The only path of each table, or why it has none."""
    finder = PathFinder(tables, root, identity, {})
    found = {table: finder.ways(table) for table in tables}
    assert all(isinstance(ways, NoPath) or len(ways) == 1 for ways in found.values())
    return {table: ways if isinstance(ways, NoPath) else ways[0] for table, ways in found.items()}


TASKS = edge("tasks", "account_id", "accounts", "id")
STEPS = edge("steps", "task_id", "tasks", "id")
CONTENTS = edge("contents", "step_id", "steps", "id")
CHAIN = {
    "contents": Ways(references=(CONTENTS,)),
    "steps": Ways(references=(STEPS,)),
    "tasks": Ways(references=(TASKS,)),
    "accounts": Ways(identities=("id",)),
}


@pytest.mark.parametrize("order", list(permutations(CHAIN)))
def test_path_over_three_hops(order: tuple[str, ...]) -> None:
    """Contents lead over steps and tasks to the account id, which tasks hold themselves; the file's order is no matter."""
    paths = find_paths({name: CHAIN[name] for name in order}, "accounts", "id")
    assert paths == {
        "accounts": SubjectPath("accounts", (), "id"),
        "tasks": SubjectPath("tasks", (), "account_id"),
        "steps": SubjectPath("steps", (hop("task_id", "tasks", "id"),), "account_id"),
        "contents": SubjectPath(
            "contents", (hop("step_id", "steps", "id"), hop("task_id", "tasks", "id")), "account_id"
        ),
    }


def test_root_is_joined_where_it_is_referred_to_by_another_column() -> None:
    """A reference to the root's inner number needs the root's row to know the account id."""
    paths = find_paths(
        {"accounts": Ways(identities=("public_id",)), "tasks": Ways(references=(TASKS,))}, "accounts", "public_id"
    )
    assert paths["tasks"] == SubjectPath("tasks", (hop("account_id", "accounts", "id"),), "public_id")


def test_own_column_is_preferred_to_a_join() -> None:
    """Rows that carry the account id are found also when their parents are gone."""
    logs = Ways(identities=("account_id",), references=(edge("logs", "task_id", "tasks", "id"),))
    assert find_paths({**CHAIN, "logs": logs}, "accounts", "id")["logs"] == SubjectPath("logs", (), "account_id")


def test_several_ways_must_be_chosen_from() -> None:
    """Sender and recipient: the map must say whose row it is; choosing decides."""
    edges = (edge("mails", "sender", "accounts", "id"), edge("mails", "recipient", "accounts", "id"))
    found = find_paths({**CHAIN, "mails": Ways(references=edges)}, "accounts", "id")["mails"]
    assert found == NoPath(SEVERAL_LEAD, ("sender", "recipient"))
    chosen = find_paths({**CHAIN, "mails": Ways(references=edges, choice="recipient")}, "accounts", "id")["mails"]
    assert chosen == SubjectPath("mails", (), "recipient")


def test_nothing_and_circles_lead_nowhere() -> None:
    """A table without references has no path; tables that only refer to each other go in a circle."""
    found = find_paths(
        {
            **CHAIN,
            "alone": Ways(),
            "a": Ways(references=(edge("a", "b_id", "b", "id"),)),
            "b": Ways(references=(edge("b", "a_id", "a", "id"),)),
        },
        "accounts",
        "id",
    )
    assert found["alone"] == NoPath(NOTHING_LEADS)
    assert found["a"] == NoPath(CYCLE, ("a", "b", "a"))
    assert isinstance(found["b"], NoPath)


def test_circle_with_a_way_out_has_a_path() -> None:
    """Two tables that refer to each other, one of which leads to a person, both do."""
    found = find_paths(
        {
            **CHAIN,
            "a": Ways(references=(edge("a", "b_id", "b", "id"),)),
            "b": Ways(references=(edge("b", "a_id", "a", "id"), edge("b", "task_id", "tasks", "id"))),
        },
        "accounts",
        "id",
    )
    assert found["a"] == SubjectPath("a", (hop("b_id", "b", "id"), hop("task_id", "tasks", "id")), "account_id")


def test_children_come_before_their_parents() -> None:
    """Whoever refers is erased before the referred."""
    assert children_first(CHAIN, [TASKS, STEPS, CONTENTS]) == (("contents",), ("steps",), ("tasks",), ("accounts",))


def test_row_that_refers_to_its_own_table_is_no_circle() -> None:
    """One statement erases all rows of a tree."""
    assert children_first(["tasks"], [edge("tasks", "parent_id", "tasks", "id")]) == (("tasks",),)


def test_circle_is_an_error_that_names_it() -> None:
    """No table of a circle can go first, and the error says which."""
    with pytest.raises(ReferenceCycleError) as caught:
        children_first(["a", "b"], [edge("a", "x", "b", "id"), edge("b", "y", "a", "id")])
    assert set(caught.value.tables) == {"a", "b"}


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20))
def test_order_never_puts_a_parent_before_its_child(pairs: list[tuple[int, int]]) -> None:
    """For any graph without circles (each refers only to lower numbers), every child stands before its parents."""
    edges = [edge(f"t{max(pair)}", "x", f"t{min(pair)}", "id") for pair in pairs]
    layers = children_first([f"t{number}" for number in range(8)], edges)
    order = {table: at for at, layer in enumerate(layers) for table in layer}
    assert sum(map(len, layers)) == len(order)
    assert sorted(order) == [f"t{number}" for number in range(8)]
    assert all(order[e.table] < order[e.to_table] for e in edges if e.table != e.to_table)
