"""The file format: valid for Fides as it is, resolved against the policy, and refused with file, line and advice."""

import json
import re
from pathlib import Path

import fideslang.models
import pytest
import yaml
from pydantic import BaseModel

from habeas.contracts.vocabulary import KeepGround
from habeas.datamap.map.dataset import Action, CollectionNotes, DatasetNotes, Export, FieldNotes, LinkNotes, Portable
from habeas.datamap.map.loading import load_datamap
from habeas.datamap.map.model import Age, Kept
from habeas.datamap.source import ConfigurationError
from tests.support.shop import DATAMAP, read_map, write_map
from tests.support.two_stores import SUPPORT

REPOSITORY = Path(__file__).parents[3]


def _refused(directory: Path, old: str, new: str) -> list[tuple[int, str, str]]:
    assert DATAMAP.count(old) >= 1, "the example must contain what the test changes"
    path, policy = write_map(directory, DATAMAP.replace(old, new, 1))
    with pytest.raises(ConfigurationError) as caught:
        load_datamap(path, policy)
    return [(problem.line, problem.what, problem.write) for problem in caught.value.problems]


def _line(text: str) -> int:
    """Line of the first occurrence in the file, counted by hand from 1."""
    return DATAMAP[: DATAMAP.index(text)].count("\n") + 1


@pytest.mark.parametrize(
    "text", [DATAMAP, (REPOSITORY / "deploy/demo/datamap/platform.yaml").read_text(encoding="utf-8")]
)
def test_files_stay_valid_fides(text: str) -> None:
    """Fides' own models (fideslang 3.1) accept a file with Habeas' keys in it, read as Fides reads it."""
    for dataset in yaml.safe_load(text)["dataset"]:
        model = fideslang.models.Dataset.model_validate(dataset)
        assert {collection.name for collection in model.collections} == {
            each["name"] for each in dataset["collections"]
        }
        assert not hasattr(model, "habeas")


def test_example_of_the_documentation_loads(tmp_path: Path) -> None:
    """What docs/data-map.md shows is a data map."""
    page = (REPOSITORY / "docs/data-map.md").read_text(encoding="utf-8")
    example = page.split("```yaml\n", 1)[1].split("```", 1)[0]
    categories = "  provider_keys: {data: [user.authorization], source: person, portable: no}\n"
    path, policy = write_map(tmp_path, example)
    text = (
        (tmp_path / "policy.yaml").read_text(encoding="utf-8").replace("categories:\n", "categories:\n" + categories, 1)
    )
    text = text.replace("  content:", "  task_content:").replace("content,", "task_content, provider_keys,")
    path, policy = write_map(tmp_path, example, text)
    platform = load_datamap(path, policy).store("platform")
    assert platform.tables["task_steps"].age == Age("tasks", "created_at")
    assert not platform.tables["models"].personal
    for dataset in yaml.safe_load(example)["dataset"]:
        fideslang.models.Dataset.model_validate(dataset)


@pytest.mark.parametrize(
    ("heading", "notes"),
    [
        ("On the dataset", DatasetNotes),
        ("On a collection", CollectionNotes),
        ("Links", LinkNotes),
        ("On a field", FieldNotes),
    ],
)
def test_reference_explains_every_key(heading: str, notes: type[BaseModel]) -> None:
    """Each key that may stand under `habeas:` has its line in docs/data-map-reference.md, and each line its key."""
    page = (REPOSITORY / "docs/data-map-reference.md").read_text(encoding="utf-8")
    section = page.split(f"## {heading}", 1)[1].split("\n## ", 1)[0]
    keys = {field.alias or name for name, field in notes.model_fields.items()}
    table = section.split("| key | meaning |", 1)[1].split("\n\n", 1)[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == keys


def test_defaults_are_resolved(tmp_path: Path) -> None:
    """Categories come from the collection, portability from the policy's category, the age from an ancestor."""
    shop, _ = read_map(tmp_path)
    tasks = {column.name: column for column in shop.tables["tasks"].columns}
    assert (tasks["created_at"].category, tasks["created_at"].portable) == ("usage", Portable.OBSERVED)
    assert (tasks["prompt"].category, tasks["prompt"].portable) == ("content", Portable.GIVEN)
    assert (tasks["score"].category, tasks["score"].portable) == ("scores", Portable.NO)
    assert shop.tables["accounts"].column("secret").export is Export.NEVER  # type: ignore[union-attr]  # it is there
    assert shop.tables["steps"].age == Age("tasks", "created_at"), "`parent` is the next table on the path"
    assert shop.tables["contents"].age == Age("tasks", "created_at"), "same class, so it ages with its ancestor"
    assert shop.tables["contents"].erasure is Action.DELETE
    assert shop.tables["invoices"].erasure == Kept(KeepGround.LEGAL_OBLIGATION, "invoices")
    assert [(column.name, column.constant) for column in shop.tables["invoices"].blanked] == [
        ("account_id", None),
        ("billing_name", "erased"),
    ]
    assert [column.name for column in shop.tables["tasks"].mentions] == ["approved_by"]


def test_root_may_be_left_out(tmp_path: Path) -> None:
    """With one identity field in the file, that collection is the root; with several it must be said."""
    reference = "{references: [{dataset: shop, field: accounts.id}]}"
    one = DATAMAP.replace(", root: accounts", "").replace("{identity: account_id}", reference)
    one = one.replace(
        "{primary_key: true, identity: account_id}}\n          - {name: bio", reference + "}\n          - {name: bio"
    )
    shop, _ = read_map(tmp_path, one)
    assert (shop.root, shop.identity) == ("accounts", "id")
    assert any("the root can't be told" in what for _, what, _ in _refused(tmp_path, ", root: accounts", ""))


@pytest.mark.parametrize(
    ("old", "new", "what", "write"),
    [
        ("on_erasure: delete, partitioned", "on_erasure: remove, partitioned", "can't be 'remove'", "delete"),
        ("category: content, retention", "category: contents, retention", "no category `contents`", "`content`"),
        ("retention: execution, on_erasure", "retention: executions, on_erasure", "no retention class", "`execution`"),
        ("keep: legal_obligation", "keep: because", "can't be 'because'", "legal_obligation"),
        ("keep: legal_obligation", "keep: REVIEW", "nobody has decided", "a ground"),
        ("anonymise: [account_id, billing_name]", "anonymise: [acount_id]", "`acount_id` is no field", "`account_id`"),
        ("field: steps.id", "field: step.id", "`step`, which is no collection", "`steps`"),
        ("field: steps.id", "field: steps.ids", "which is no field of it", "`id`"),
        ("age: parent.created_at", "age: invoices.issued_on", "doesn't stand on the path", "tasks"),
        ("age: logged_at", "age: loged_at", "`logs` has no field `loged_at`", "`logged_at`"),
        ("age: closed_at", "ages: closed_at", "is no key that is known here", "`age`"),
        ("personal: false, reason: the price list", "personal: false", "without a reason", "`reason: …`"),
        ("on_erasure: anonymise}", "on_erasure: none}", "without a reason", "`reason: …`"),
        ("path: account_id}", "path: prompt}", "the field `prompt` doesn't lead", "account_id"),
        (", path: account_id}", "}", "several fields of `tasks` lead to a person", "`path: account_id`"),
        ("category: account, on_erasure: anonymise", "on_erasure: anonymise", "has no category", "`category: …`"),
        ("retention: account, age: closed_at, ", "age: closed_at, ", "without a retention class", "`retention: CLASS`"),
        ("retention: execution, age: logged_at", "retention: account, age: logged_at", "closing of the account", "accounts"),
        ("connection: SHOP_DSN", "connection: postgresql://x", "can't be", "text of the form"),
        ("- name: steps", "- name: tasks", "`tasks` is listed twice", "each table once"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_advice(tmp_path: Path, old: str, new: str, what: str, write: str) -> None:
    """Each mistake is told on its line, with what to write instead."""
    problems = _refused(tmp_path, old, new)
    matching = [line for line, said, advice in problems if what in said and write in advice]
    assert matching, problems


def test_problem_names_the_line(tmp_path: Path) -> None:
    """The line is the one on which the wrong word stands."""
    (problem,) = _refused(tmp_path, "age: logged_at", "age: loged_at")
    assert problem[0] == _line("age: logged_at")


def test_table_that_leads_to_nobody_is_refused(tmp_path: Path) -> None:
    """A personal table must say how its rows lead to a person."""
    problems = _refused(tmp_path, "fides_meta: {identity: account_id}", "fides_meta: {primary_key: false}")
    assert [what for _, what, _ in problems] == ["nothing leads from `logs` to a person"]


def test_a_column_may_have_any_name(tmp_path: Path) -> None:
    """PostgreSQL quotes whatever stands there, so a map may name it: blanks, letters beyond ASCII, quotes, reserved words."""
    odd = ["first name", "größe", '2nd "phone"', "select", "a'b;c", "=x"]
    fields = "".join(f"          - {{name: {json.dumps(name)}, data_categories: [user.name]}}\n" for name in odd)
    anchor = "          - {name: region, "
    path, policy = write_map(tmp_path, DATAMAP.replace(anchor, fields + anchor, 1))
    columns = {column.name for column in load_datamap(path, policy).store("shop").tables["profiles"].columns}
    assert columns > set(odd)


def test_only_what_is_wrong_is_told(tmp_path: Path) -> None:
    """An error in one table is not told as a fault of the lists around it."""
    (problem,) = _refused(tmp_path, "name: profiles", "name: my profiles")
    assert problem[1].endswith("can't be 'my profiles'")


def test_a_store_may_say_that_people_begin_elsewhere(tmp_path: Path) -> None:
    """With `root: none` no table is taken for one; the only identity field still makes a root where nothing is said."""
    path, policy = write_map(tmp_path, DATAMAP + SUPPORT)
    datamap = load_datamap(path, policy)
    support = datamap.store("support")
    assert (support.has_root, support.root, datamap.store("shop").has_root) == (False, "", True)
    assert support.tables["messages"].age == Age("tickets", "opened_at")
    assert support.contacts() == {}
    path, policy = write_map(tmp_path, DATAMAP + SUPPORT.replace(", root: none", ""))
    assert load_datamap(path, policy).store("support").root == "tickets"


@pytest.mark.parametrize(
    ("text", "what", "write"),
    [
        (
            "dataset:" + SUPPORT,
            "no store of this map has a root, so nobody could say who has an account",
            "`root: COLLECTION` on the store with the table of people",
        ),
        (
            DATAMAP + SUPPORT.split("      - name: tickets", maxsplit=1)[0]
            + "      - {name: prices, habeas: {personal: false, reason: a price list}, fields: []}\n",
            "nothing in this store leads to a person",
            "`identity: account_id` on a column that holds the account id, or no dataset for this store",
        ),
        *(
            (
                DATAMAP + SUPPORT.replace("retention: execution, age: opened_at", given),
                "rows of `tickets` would never go by `account`: only the store of the root knows when an account was closed",
                "a class of the form `{for: 90d}`, and `age: COLUMN`",
            )
            for given in ("retention: account, age: opened_at", "retention: account")
        ),
    ],
)  # fmt: skip
def test_a_map_without_people_is_refused(tmp_path: Path, text: str, what: str, write: str) -> None:
    """Some store has to know who exists, and a store without a root holds ids."""
    path, policy = write_map(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        load_datamap(path, policy)
    assert [(problem.what, problem.write) for problem in caught.value.problems] == [(what, write)]
