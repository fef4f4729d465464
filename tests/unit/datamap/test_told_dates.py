"""When kept rows go is told to people: it is always a rule that the retention sweep carries out."""

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from habeas.datamap.catalogue.schema import ForeignKey, LiveColumn, LiveSchema, LiveTable
from habeas.datamap.map.dataset import Action
from habeas.datamap.map.loading import load_datamap
from habeas.datamap.map.model import DataMap, Kept, StoreMap
from habeas.datamap.planner import compile_store
from habeas.datamap.policy.model import Policy, load_policy
from habeas.datamap.policy.retention import Fixed
from habeas.datamap.source import ConfigurationError, Problem
from tests.simulation.life import shop as simulated
from tests.support.shop import DATAMAP, POLICY, write_map

ROOT = Path(__file__).parents[3]
DEMO = ROOT / "deploy" / "demo"
KEPT = "on_erasure: {keep: legal_obligation, until: invoices, anonymise: [account_id, billing_name]}"
INVOICES = f"retention: invoices\n          age: issued_on\n          {KEPT}"


def live_of(store: StoreMap) -> LiveSchema:
    """A live schema that has exactly what the map lists, times and dates by the usual endings of their names."""
    kinds = {"_at": "timestamp with time zone", "_on": "date"}
    tables = {}
    for table in store.tables.values():
        columns = {c.name: LiveColumn(c.name, kinds.get(c.name[-3:], "text")) for c in table.columns}
        tables[table.name] = LiveTable(table.name, columns, key=table.key or ("id",))
    keys = tuple(ForeignKey(e.table, e.columns, e.to_table, e.to_columns, "set null") for e in store.references)
    return LiveSchema(tables, keys)


def broken_words(datamap: DataMap, policy: Policy) -> Iterator[str]:
    """Tables of which people are told something that no rule carries out: another class or ground, or an end that never comes."""
    for store in datamap.stores.values():
        plan = compile_store(store, live_of(store))
        rules = {(rule.table, rule.retention) for rule in plan.purges}
        gone = {table.name for table in store.tables.values() if table.erasure is Action.DELETE}
        for table in plan.tables:
            if table.ground is None:
                continue
            mapped = store.tables[table.table]
            said = policy.retention[table.until or ""]
            runs = (table.table, table.until) in rules and isinstance(said, Fixed) and mapped.age is not None
            reachable = mapped.age is not None and (mapped.age.table == mapped.name or mapped.age.table not in gone)
            if not (runs and reachable and said.ground in {None, table.ground}):
                yield table.table


def documented(directory: Path) -> tuple[Path, Policy]:
    """The example of the documentation, with the demonstration's policy."""
    text = (ROOT / "docs" / "data-map.md").read_text(encoding="utf-8")
    path = directory / "map.yaml"
    path.write_text(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[0], encoding="utf-8")
    return path, load_policy(DEMO / "policy.yaml")


@pytest.mark.parametrize("which", ["demonstration", "tests", "simulation", "documentation"])
def test_every_told_date_is_that_of_a_rule(tmp_path: Path, which: str) -> None:
    """In each data map that there is, every collection that is kept goes by the class whose end people are told."""
    match which:
        case "demonstration":
            path, policy = DEMO / "datamap", load_policy(DEMO / "policy.yaml")
        case "documentation":
            path, policy = documented(tmp_path)
        case "simulation":
            path, policy = write_map(tmp_path, simulated.DATAMAP, simulated.POLICY)
        case _:
            path, policy = write_map(tmp_path)
    datamap = load_datamap(path, policy)
    assert any(isinstance(table.erasure, Kept) for store in datamap.stores.values() for table in store.tables.values())
    assert list(broken_words(datamap, policy)) == []


RETENTIONS = (None, "invoices", "execution", "account", "books")
AGES = (None, "issued_on", "accounts.closed_at")
UNTILS = (None, "invoices", "execution", "account", "books")
GROUNDS = ("legal_obligation", "legal_claims")


@pytest.mark.parametrize(("retention", "age", "until", "ground"), list(product(RETENTIONS, AGES, UNTILS, GROUNDS)))
def test_any_map_is_refused_or_its_word_is_kept(
    tmp_path: Path, retention: str | None, age: str | None, until: str | None, ground: str
) -> None:
    """Every way to write down a kept table, all 150: those that are taken tell people what a rule carries out."""
    lines = [f"retention: {retention}"] if retention else []
    lines += [f"age: {age}"] if age else []
    lines.append(f"on_erasure: {{keep: {ground}{f', until: {until}' if until else ''}, anonymise: [account_id]}}")
    policy_text = POLICY + "  books: {for: 30y}\n"
    path, policy = write_map(tmp_path, DATAMAP.replace(INVOICES, "\n          ".join(lines)), policy_text)
    is_right = retention in {"invoices", "execution", "books"} and age == "issued_on" and until in {None, retention}
    is_right = is_right and not (retention == "invoices" and ground == "legal_claims")
    if not is_right:
        with pytest.raises(ConfigurationError) as caught:
            load_datamap(path, policy)
        assert all(problem.line and problem.write for problem in caught.value.problems)
        return
    assert list(broken_words(load_datamap(path, policy), policy)) == []


def refused(directory: Path, *changes: tuple[str, str]) -> list[Problem]:
    """What is wrong with the map of the tests after some changes."""
    text = DATAMAP
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    path, policy = write_map(directory, text)
    with pytest.raises(ConfigurationError) as caught:
        load_datamap(path, policy)
    return list(caught.value.problems)


LINE_OF_KEEP = DATAMAP[: DATAMAP.index(KEPT)].count("\n") + 1


@pytest.mark.parametrize(
    ("old", "new", "line", "what", "write"),
    [
        ("until: invoices,", "until: execution,", LINE_OF_KEEP, "the end of `execution`, but the rows", "`until: invoices`"),
        (INVOICES, KEPT, LINE_OF_KEEP - 2, "the end of `invoices`, but no rule", "`retention: invoices` and `age: COLUMN`"),
        (INVOICES, KEPT.replace("until: invoices, ", ""), LINE_OF_KEEP - 2, "kept rows have no end", "`retention: CLASS`"),
        ("          age: issued_on\n", "", LINE_OF_KEEP - 1, "nothing says from when `invoices` runs", "`age: COLUMN`"),
        ("keep: legal_obligation", "keep: legal_claims", LINE_OF_KEEP, "is kept under `legal_obligation`", "`keep: legal_obligation`"),
    ],
)  # fmt: skip
def test_what_would_not_happen_is_told_where_it_stands(
    tmp_path: Path, old: str, new: str, line: int, what: str, write: str
) -> None:
    """The line on which people would be promised something that no rule does, why, and what to write."""
    problems = refused(tmp_path, (old, new))
    matching = [problem for problem in problems if what in problem.what and write in problem.write]
    assert [problem.line for problem in matching] == [line], problems


def test_an_age_to_which_no_way_is_left_is_refused(tmp_path: Path) -> None:
    """Kept steps that age with tasks which are erased would stay for ever; so would those whose reference is anonymised."""
    old = "{category: usage, retention: execution, age: parent.created_at, on_erasure: delete}"
    kept = old.replace("on_erasure: delete", "on_erasure: {keep: legal_claims}")
    assert any("leaves no way" in problem.what for problem in refused(tmp_path, (old, kept)))
    blanked = old.replace("on_erasure: delete", "on_erasure: {keep: legal_claims, anonymise: [task_id]}")
    tasks = "age: created_at, on_erasure: delete, path: account_id"
    stays = tasks.replace("delete", "{keep: legal_claims, anonymise: [account_id]}")
    assert any("leaves no way" in problem.what for problem in refused(tmp_path, (old, blanked), (tasks, stays)))
