from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from habeas.datamap import source
from habeas.datamap.explain import misfit
from habeas.datamap.source import ConfigurationError, Problem, load_yaml, validate


class Colour(StrEnum):
    """A closed vocabulary."""

    RED = "red"
    GREEN = "green"


class Leaf(BaseModel):
    """A model inside lists and unions."""

    model_config = ConfigDict(extra="forbid")
    colour: Colour
    veins: int = Field(default=1, ge=0)


class Bud(BaseModel):
    """A key that is a word of Python."""

    model_config = ConfigDict(extra="forbid")
    closed_for: int = Field(alias="for")


Growth = Annotated[
    Annotated[Bud, Tag("a bud")] | Annotated[Leaf, Tag("a leaf")],
    Discriminator(lambda value: "a bud" if "for" in value else "a leaf"),
]


class Tree(BaseModel):
    """A file of made-up configuration."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(examples=["oak"])
    kind: Literal["broad", "needle"] = "broad"
    leaves: tuple[Leaf, ...] = ()
    growths: Mapping[str, Growth] = {}


ROOT = Path(__file__).parents[3]


def written(directory: Path, text: str) -> Path:
    """Write a file."""
    file = directory / "tree.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def problems(directory: Path, text: str) -> list[Problem]:
    """Read a file that is no Tree and say why."""
    with pytest.raises(ConfigurationError) as caught:
        validate(Tree, load_yaml(written(directory, text)))
    return list(caught.value.problems)


def test_every_place_has_its_line(tmp_path: Path) -> None:
    """Keys, list items and places that don't exist are found on the line where a person would look."""
    located = load_yaml(written(tmp_path, "a:\n  b:\n    - x\n    - y: 1\n\nc: {d: 1,\n  e: 2}\n"))
    assert located.value == {"a": {"b": ["x", {"y": 1}]}, "c": {"d": 1, "e": 2}}
    assert located.line(()) == 1
    assert located.line(("a", "b")) == 2
    assert located.line(("a", "b", 0)) == 3
    assert located.line(("a", "b", 1, "y")) == 4
    assert located.line(("c", "e")) == 7
    assert located.line(("c", "e", "nothing", 3)) == 7
    assert located.line(("z",)) == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("off", "off"),
        ("2026-03-20", "2026-03-20"),
        ("12:30", "12:30"),
        ("010", 10),
        ("1_000", "1_000"),
        ("true", True),
        ("NULL", None),
        ("", None),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("'1'", "1"),
    ],
)
def test_words_mean_what_yaml_1_2_says(tmp_path: Path, text: str, value: object) -> None:
    """Country NO, dates and times stay text; YAML 1.2.2 section 10.3.2 decides the rest."""
    assert load_yaml(written(tmp_path, f"key: {text}\n")).value == {"key": value}


def test_other_users_of_pyyaml_keep_their_words(tmp_path: Path) -> None:
    """Our resolvers are our own: PyYAML's safe loader still reads YAML 1.1."""
    load_yaml(written(tmp_path, "key: no\n"))
    assert yaml.safe_load("key: no") == {"key": False}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(value=JSON)
def test_reads_what_another_library_wrote(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    """Whatever PyYAML writes is read back, and each part of it has a line inside the file."""
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    # Quoted and tagged throughout: PyYAML leaves bare what is text in YAML 1.1 and a number in 1.2, such as 0E0.
    file.write_text(yaml.safe_dump(value, default_style='"'), encoding="utf-8")
    located = load_yaml(file)
    assert located.value == value
    assert set(located.lines.values()) <= set(range(1, file.read_text(encoding="utf-8").count("\n") + 2))


def test_a_repeated_key_is_an_error(tmp_path: Path) -> None:
    """YAML libraries keep the last silently; here the second one is shown with the line of the first."""
    (problem,) = problems(tmp_path, "name: oak\nleaves: []\nname: elm\n")
    assert (problem.line, problem.path) == (3, "name")
    assert "line 1" in problem.what


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("a: [1\nb: 2\n", 2, "flow sequence"),
        ("a: 1\n\tb: 2\n", 2, "\\t"),
        ("a: 1\n---\nb: 2\n", 2, "another document"),
        ("a: &x [*x]\n", 1, "contains itself"),
        ("a:\n  b: *nobody\n", 2, "undefined alias"),
        ("a: 1\nb: !!python/name:os.system x\n", 2, "not understood"),
        ("a: 1\n? [1, 2]\n: 3\n", 2, "key can't be a list"),
        ("a: 1\n<<: 3\n", 2, "takes a mapping"),
        ("a: 1\nb: \x00\n", 2, "U+0000"),
        ("[" * 5000, 1, "nested too deeply"),
    ],
)
def test_no_yaml_is_told_with_its_line(tmp_path: Path, text: str, line: int, word: str) -> None:
    """Whatever is wrong with the syntax, the error names a line and is no stack trace."""
    (problem,) = problems(tmp_path, text)
    assert problem.line == line
    assert word in problem.what


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a directory and other encodings are configuration errors too."""
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"a: 1\nb: \xfc\n")
    for path, line in ((tmp_path / "none.yaml", 1), (tmp_path, 1), (latin, 2)):
        with pytest.raises(ConfigurationError) as caught:
            load_yaml(path)
        assert [problem.line for problem in caught.value.problems] == [line]


def test_aliases_cannot_blow_up_the_memory(tmp_path: Path) -> None:
    """Nine levels of nine aliases (the billion laughs) end in a problem instead of a full memory."""
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 9)]
    with pytest.raises(ConfigurationError, match="fewer aliases"):
        load_yaml(written(tmp_path, "\n".join(levels)))


def test_merge_keys_bring_what_is_not_there(tmp_path: Path) -> None:
    """`<<` adds the keys of one or more mappings; what stands beside it wins, as PyYAML has it."""
    text = "a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc:\n  <<: [*a, *b]\n  x: 9\n"
    located = load_yaml(written(tmp_path, text))
    assert located.value == yaml.safe_load(text)
    assert located.line(("c", "z")) == 2


@pytest.mark.parametrize(
    ("text", "line", "path", "write"),
    [
        ("name: oak\nleafs: []\n", 2, "leafs", "`leaves`"),
        ("leaves: []\n", 1, "name", "`name: oak`"),
        ("name: oak\nkind: neddle\n", 2, "kind", "`needle`"),
        ("name: oak\nkind: zzz\n", 2, "kind", "one of `broad`, `needle`"),
        ("name: 3\n", 1, "name", "text"),
        ("name:\n", 1, "name", "text"),
        ("name: oak\nleaves: red\n", 2, "leaves", "a list"),
        ("name: oak\nleaves:\n  - {colour: redd}\n", 3, "leaves.0.colour", "`red`"),
        ("name: oak\nleaves:\n  - colour: red\n    vains: 3\n", 4, "leaves.0.vains", "`veins`"),
        ("name: oak\nleaves:\n  - colour: red\n    veins: -1\n", 4, "leaves.0.veins", "not below 0"),
        ("name: oak\nleaves:\n  - colour: red\n    veins: many\n", 4, "leaves.0.veins", "a whole number"),
        ("name: oak\ngrowths:\n  top: {for: long}\n", 3, "growths.top.for", "a whole number"),
        ("name: oak\ngrowths:\n  top: {for: 1, colr: x}\n", 3, "growths.top.colr", "`colour`"),
        ("name: oak\ngrowths:\n  top:\n    veins: 1\n", 3, "growths.top.colour", "`colour: …`"),
        ("- oak\n", 1, "", "a mapping"),
        ("", 1, "", "a mapping"),
    ],
)
def test_each_mistake_says_what_to_write(tmp_path: Path, text: str, line: int, path: str, write: str) -> None:
    """Unknown and missing keys, wrong types and words: line, path and remedy are those of the place itself."""
    (problem,) = problems(tmp_path, text)
    assert (problem.line, problem.path) == (line, path)
    assert write in problem.write


def test_all_mistakes_are_told_at_once_in_order(tmp_path: Path) -> None:
    """The text of the error has one line per problem, `file:line: what; write …`, from top to bottom."""
    file = written(tmp_path, "kind: zzz\nleaves: 3\nname: 1\n")
    with pytest.raises(ConfigurationError) as caught:
        validate(Tree, load_yaml(file))
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{file}:1", f"{file}:2", f"{file}:3"]
    assert all("; write " in line for line in lines)


def test_a_validator_chooses_its_words_and_place(tmp_path: Path) -> None:
    """`misfit` carries a validator's own sentences, and points below what it validates."""

    class Even(BaseModel):
        numbers: dict[str, int]

        @model_validator(mode="after")
        def _are_even(self) -> "Even":
            for name, number in self.numbers.items():
                if number % 2:
                    raise misfit(f"{number} is odd", "an even number", "numbers", name)
            return self

    with pytest.raises(ConfigurationError) as caught:
        validate(Even, load_yaml(written(tmp_path, "numbers:\n  a: 2\n  b: 3\n")))
    (problem,) = caught.value.problems
    assert (problem.line, problem.path, problem.what, problem.write) == (3, "numbers.b", "3 is odd", "an even number")


@pytest.mark.parametrize(
    "path", sorted([*ROOT.glob("deploy/**/*.yaml"), *ROOT.glob("tests/schemas/*/*.yaml")]), ids=lambda path: path.name
)
def test_libyaml_reads_the_same(path: Path) -> None:
    """Values and lines of real files are the same by libyaml and by PyYAML's own parser, which has the words for what is wrong."""
    text = path.read_text()
    try:
        slow = source._located(path, source._Loader(text))
    except (ConfigurationError, yaml.YAMLError):
        with pytest.raises((ConfigurationError, yaml.YAMLError)):
            source._located(path, source._QuickLoader(text))
        return
    quick = source._located(path, source._QuickLoader(text))
    assert (quick.value, quick.lines) == (slow.value, slow.lines)
