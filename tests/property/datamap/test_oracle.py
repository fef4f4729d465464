"""The oracle against cases worked out by hand, one for each part of the language."""

from typing import Any, Final

from tests.property.datamap.maps import written
from tests.property.datamap.model import SET_NULL, Column, Content, Document, Reference, Row, Schema, Table
from tests.property.datamap.oracle import Erased, Oracle
from tests.property.datamap.reading import read

ACCOUNTS: Final[Document] = {
    "name": "accounts",
    "habeas": {"on_erasure": "delete"},
    "fields": [{"name": "id", "fides_meta": {"primary_key": True, "identity": "account_id"}}],
}


def refers(name: str, target: str, **notes: Any) -> Document:
    """A field with a reference."""
    meta = {"references": [{"dataset": "platform", "field": target, "direction": "from"}]}
    return {"name": name, "fides_meta": meta, "habeas": notes}


def collection(name: str, fields: list[Document], **notes: Any) -> Document:
    """A table in the map, with its key."""
    return {"name": name, "habeas": {"on_erasure": "delete", **notes}, "fields": [{"name": "id"}, *fields]}


def told(*collections: Document, content: Content, references: tuple[Reference, ...] = ()) -> Oracle:
    """Return the oracle of a map over rows; the database enforces these references."""
    notes = {"store": "platform", "schema": "public", "root": "accounts"}
    document = {"dataset": [{"fides_key": "platform", "habeas": notes, "collections": [ACCOUNTS, *collections]}]}
    tables = {}
    for name, rows in content.items():
        columns = {column: Column(column, "text") for column in (rows[0] if rows else {"id": None})}
        tables[name] = Table(name, columns, ("id",))
    return Oracle(read(written(document)), Schema(tables, list(references)), content)


def people(*names: str) -> list[Row]:
    """Rows of the root."""
    return [{"id": name} for name in names]


def ids(erased: Erased, table: str) -> list[object]:
    """Keys of what is left."""
    return [row["id"] for row in erased.content[table]]


def test_a_row_goes_with_either_end_of_an_edge() -> None:
    """Two owner links: whoever of the two is erased, the row goes; that of two others stays."""
    oracle = told(
        collection(
            "follows",
            [refers("a_id", "accounts.id"), refers("b_id", "accounts.id")],
            links={"a": {"by": "a_id"}, "b": {"by": "b_id"}},
        ),
        content={
            "accounts": people("p", "q", "r"),
            "follows": [
                {"id": "1", "a_id": "p", "b_id": "q"},
                {"id": "2", "a_id": "q", "b_id": "p"},
                {"id": "3", "a_id": "q", "b_id": "r"},
            ],
        },
    )
    assert ids(oracle.erase({"p"}), "follows") == ["3"]
    assert ids(oracle.erase({"r"}), "follows") == ["1", "2"]


LETTERS: Final = collection(
    "letters",
    [refers("a_id", "accounts.id", anonymise=None), refers("b_id", "accounts.id", anonymise=None)],
    links={"a": {"by": "a_id", "role": "co_owner"}, "b": {"by": "b_id", "role": "co_owner"}},
)


def test_a_row_of_two_goes_with_the_second() -> None:
    """Who leaves a row of two is taken out of it; it goes with the last, with both at once, and where the other end is nobody."""
    content: Content = {
        "accounts": people("p", "q"),
        "letters": [
            {"id": "1", "a_id": "p", "b_id": "q"},
            {"id": "2", "a_id": "p", "b_id": None},
            {"id": "3", "a_id": "p", "b_id": "p"},
        ],
    }
    oracle = told(LETTERS, content=content)
    assert oracle.erase({"p"}).content["letters"] == [{"id": "1", "a_id": None, "b_id": "q"}]
    assert ids(oracle.erase({"p", "q"}), "letters") == []


def test_a_group_goes_with_its_last_member() -> None:
    """A group goes when nobody is in it any more, and what hangs on it goes with it."""
    oracle = told(
        collection("groups", [], links={"members": {"through": "members", "role": "co_owner"}}),
        collection(
            "members",
            [refers("group_id", "groups.id"), refers("who_id", "accounts.id")],
            links={"who": {"by": "who_id"}},
        ),
        collection("pages", [refers("group_id", "groups.id")]),
        content={
            "accounts": people("p", "q"),
            "groups": [{"id": "1"}, {"id": "2"}, {"id": "3"}],
            "members": [
                {"id": "1", "group_id": "1", "who_id": "p"},
                {"id": "2", "group_id": "2", "who_id": "p"},
                {"id": "3", "group_id": "2", "who_id": "q"},
            ],
            "pages": [{"id": "1", "group_id": "1"}, {"id": "2", "group_id": "2"}],
        },
    )
    erased = oracle.erase({"p"})
    assert (ids(erased, "groups"), ids(erased, "members"), ids(erased, "pages")) == (["2", "3"], ["3"], ["2"])
    assert oracle.export("q")["pages"] == [{"id": "2", "group_id": "2"}]


def thread(word: Any, *rows: Row, **notes: Any) -> Oracle:  # noqa: ANN401 -- what YAML holds
    """Return words below words, with one way of parting."""
    fields = [
        refers("who_id", "accounts.id", anonymise=None),
        refers("up_id", "words.id", when_parent_goes=word),
        {"name": "body", "habeas": {"anonymise": "gone"}},
    ]
    accounts = people("p", "q")
    return told(
        collection("words", fields, path="who_id", **notes), content={"accounts": accounts, "words": list(rows)}
    )


def said(key: str, who: str, up: str | None) -> Row:
    """Somebody's words below others."""
    return {"id": key, "who_id": who, "up_id": up, "body": "x"}


def test_others_let_go_of_a_parent() -> None:
    """`detach` sets what refers to null, or to the constant, whoever's the rows are."""
    rows = (said("1", "p", None), said("2", "q", "1"), said("3", "q", None))
    assert thread("detach", *rows).erase({"p"}).content["words"] == [said("2", "q", None), said("3", "q", None)]
    assert thread({"detach": {"to": 0}}, *rows).erase({"p"}).content["words"][0]["up_id"] == "0"


def test_others_go_with_a_parent() -> None:
    """`delete` takes what hangs on a row with it, over any number of steps."""
    rows = (said("1", "p", None), said("2", "q", "1"), said("3", "q", "2"), said("4", "q", "4"))
    assert ids(thread("delete", *rows).erase({"p"}), "words") == ["4"]


def test_a_parent_stays_for_others() -> None:
    """`keep_parent` anonymises what others hang on, and what that hangs on; what nobody else hangs on goes."""
    rows = (said("1", "p", None), said("2", "p", "1"), said("3", "q", "2"), said("4", "p", "3"))
    erased = thread("keep_parent", *rows).erase({"p"})
    kept = [
        {**said("1", "p", None), "who_id": None, "body": "gone"},
        {**said("2", "p", "1"), "who_id": None, "body": "gone"},
    ]
    assert erased.content["words"] == [*kept, said("3", "q", "2")]
    assert erased.kept == {("words", 0), ("words", 1)}


def test_every_column_of_a_reference_has_to_agree() -> None:
    """The same number in another tenant is another row, and NULL equals nothing."""
    fields = [{"name": "tenant"}, refers("who_id", "accounts.id")]
    step = [refers("tenant", "tasks.tenant"), refers("task_id", "tasks.id")]
    oracle = told(
        collection("tasks", fields),
        collection("steps", step),
        content={
            "accounts": people("p", "q"),
            "tasks": [{"id": "1", "tenant": "a", "who_id": "p"}, {"id": "1", "tenant": "b", "who_id": "q"}],
            "steps": [
                {"id": "1", "tenant": "a", "task_id": "1"},
                {"id": "2", "tenant": "b", "task_id": "1"},
                {"id": "3", "tenant": None, "task_id": "1"},
            ],
        },
    )
    assert ids(oracle.erase({"p"}), "steps") == ["2", "3"]


def test_ids_are_taken_out_of_arrays_and_documents() -> None:
    """The id goes, the others stay in their order; NULL stays NULL."""
    oracle = told(
        collection("boards", [{"name": "who"}, {"name": "notes"}], on_erasure="none", links={
            "who": {"in": "who", "role": "accessor"}, "notes": {"in": "notes", "at": "$.members[*]", "role": "accessor"}}),
        content={"accounts": people("7", "8"), "boards": [
            {"id": "1", "who": "{8,7,NULL,7}", "notes": '{"members": [7, 8]}'}, {"id": "2", "who": None, "notes": None}]},
    )  # fmt: skip
    assert oracle.erase({"7"}).content["boards"] == [
        {"id": "1", "who": "{8,NULL}", "notes": '{"members": [8]}'}, {"id": "2", "who": None, "notes": None},
    ]  # fmt: skip


def test_the_database_lets_go_by_itself() -> None:
    """ON DELETE SET NULL changes rows that the map says nothing of."""
    oracle = told(
        {"name": "prices", "habeas": {"personal": False}, "fields": []},
        content={"accounts": people("p", "q"), "prices": [{"id": "1", "who_id": "p"}, {"id": "2", "who_id": "q"}]},
        references=(Reference("prices", ("who_id",), "accounts", ("id",), on_delete=SET_NULL),),
    )
    assert [row["who_id"] for row in oracle.erase({"p"}).content["prices"]] == [None, "q"]


def test_an_export_leaves_out_what_every_link_leaves_out() -> None:
    """Who has a row by two links gets what either shows; who has none gets nothing."""
    fields = [refers("a_id", "accounts.id"), refers("b_id", "accounts.id"), {"name": "body"}]
    links = {
        "a": {"by": "a_id"},
        "b": {"by": "b_id", "role": "accessor", "on_erasure": "none", "on_export": {"redact": ["body"]}},
    }
    oracle = told(
        collection("posts", fields, links=links),
        content={
            "accounts": people("p", "q", "r"),
            "posts": [
                {"id": "1", "a_id": "p", "b_id": "q", "body": "x"},
                {"id": "2", "a_id": "p", "b_id": "p", "body": "y"},
            ],
        },
    )
    assert [row["body"] for row in oracle.export("p")["posts"]] == ["x", "y"]
    assert [row["body"] for row in oracle.export("q")["posts"]] == [None]
    assert "posts" not in oracle.export("r")
