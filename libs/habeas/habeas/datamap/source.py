"""YAML configuration with a line number for everything in it.

People write `policy.yaml` and the data map by hand, so whatever is wrong with a file is told as file, line, dotted
path and what to write instead. Values of a configuration file may be shown: they are no personal data.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from typing_extensions import override

from habeas.datamap.explain import PathPart, dotted, explain

M = TypeVar("M", bound=BaseModel)

FILE_BYTES_MAX: Final = 8 * 1024 * 1024
PLACES_MAX: Final = 500_000
"""Aliases can repeat a block exponentially often; the map of a large company stays far below this."""


class Problem(NamedTuple):
    """One thing that is wrong in a configuration file, and how to mend it."""

    file: Path
    line: int
    path: str
    what: str
    write: str

    @override
    def __str__(self) -> str:
        """`file:line: what; write …`, the form that editors and terminals make clickable."""
        return f"{self.file}:{self.line}: {self.what}; write {self.write}"


class ConfigurationError(Exception):
    """A configuration file can't be used; `problems` (never empty) says everything that was found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda each: (str(each.file), each.line, each.path)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(frozen=True)
class Located:
    """The plain value of a YAML file together with the line on which each part of it stands."""

    file: Path
    value: Any
    lines: Mapping[tuple[PathPart, ...], int] = field(repr=False)

    def line(self, path: Sequence[PathPart]) -> int:
        """Line (from 1) of the part at `path`; of its nearest enclosing part where it doesn't exist."""
        for length in range(len(path), -1, -1):
            line = self.lines.get(tuple(path[:length]))
            if line is not None:
                return line
        return 1

    def problem(self, path: Sequence[PathPart], what: str, write: str) -> Problem:
        """Make a problem at `path`, with its line looked up."""
        return Problem(self.file, self.line(path), dotted(path), what, write)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the words of YAML 1.2 core (section 10.3.2).

    YAML 1.1 reads `no` as false, `2026-03-20` as a date, `12:30` as 750 and `010` as 8; here each stays what a person
    meant by it.
    """

    # Rebound, not changed: the dictionary of the base class is shared by every other user of PyYAML.
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own protocol


_WORDS: Final = (  # in this order: a whole number also looks like a float
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?[0-9]+$", list("-+0123456789")),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", list("-+.0123456789")),
    ("merge", r"^<<$", ["<"]),
)


class _QuickLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # which of the two is known at run time
    """The same by libyaml, where PyYAML was built with it: several times faster, with fewer words for what is no YAML."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own protocol


for _one in (_Loader, _QuickLoader):
    for _name, _pattern, _starts in _WORDS:
        _one.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(_pattern), _starts)
    _one.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))


def load_yaml(path: Path) -> Located:
    """Read one YAML document.

    Raises ConfigurationError for a file that can't be read, is no UTF-8 or no YAML, repeats a key, refers to itself or
    is larger than FILE_BYTES_MAX. An empty file has the value None.
    """
    path = Path(path)
    text = _read(path)
    try:
        return _located(path, _QuickLoader(text))
    except (yaml.YAMLError, RecursionError):
        return _slowly(path, text)


def _slowly(path: Path, text: str) -> Located:
    """Read what the quick loader did not, for the words that say what is wrong with it."""
    try:
        return _located(path, _loader(path, text))
    except yaml.MarkedYAMLError as error:
        raise ConfigurationError([_syntax_problem(path, error)]) from error
    except RecursionError as error:
        what = "the file is nested too deeply"
        raise ConfigurationError([Problem(path, 1, "", what, "fewer levels")]) from error


def _located(path: Path, loader: "_Loader | _QuickLoader") -> Located:
    try:
        root = loader.get_single_node()
        if root is None:
            return Located(path, None, {(): 1})
        reading = _Reading(path, loader)
        value = reading.value_of(root, ())
    finally:
        loader.dispose()
    if reading.problems:
        raise ConfigurationError(reading.problems)
    return Located(path, value, reading.lines)


def validate(model: type[M], located: Located) -> M:
    """Turn what `load_yaml` read into `model`.

    Raises ConfigurationError with one problem for each place that doesn't fit.
    """
    try:
        return model.model_validate(located.value)
    except ValidationError as error:
        problems = [located.problem(*each) for each in explain(model, located.value, error)]
        raise ConfigurationError(problems) from error


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        what = f"the file can't be read ({error.strerror})"
        raise ConfigurationError(
            [Problem(path, 1, "", what, "the path of a file that exists and is readable")]
        ) from error
    if len(content) > FILE_BYTES_MAX:
        what = f"the file is larger than {FILE_BYTES_MAX} bytes"
        raise ConfigurationError([Problem(path, 1, "", what, "several smaller files")])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError([Problem(path, line, "", "this line is no UTF-8", "the file in UTF-8")]) from error


def _loader(path: Path, text: str) -> _Loader:
    try:
        return _Loader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = f"this line holds the character U+{ord(text[error.position]):04X}, which no YAML may"
        raise ConfigurationError([Problem(path, line, "", what, "the line without it")]) from error


def _syntax_problem(path: Path, error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    words = ", ".join(part for part in (error.context, error.problem) if part)
    if error.context == "expected a single document in the stream":
        write = "one document in a file, without a second `---`"
    else:
        write = "valid YAML: spaces and no tabs for depth, `key: value`, and quotes around a text with `: ` or `#`"
    return Problem(path, mark.line + 1 if mark else 1, "", f"this is no YAML ({words})", write)


class _Reading:
    """One walk over the node tree, which collects value, lines and problems together."""

    def __init__(self, file: Path, loader: "_Loader | _QuickLoader") -> None:
        self.file = file
        self.loader = loader
        self.lines: dict[tuple[PathPart, ...], int] = {}
        self.problems: list[Problem] = []
        self._open: set[int] = set()

    def value_of(self, node: yaml.Node, path: tuple[PathPart, ...]) -> object:
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        if len(self.lines) > PLACES_MAX:
            what = f"with its aliases written out, the file has more than {PLACES_MAX} places"
            raise ConfigurationError([Problem(self.file, line, dotted(path), what, "fewer aliases")])
        if id(node) in self._open:
            raise ConfigurationError([self._problem(node, path, "this alias contains itself", "the value itself")])
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self.value_of(child, (*path, index)) for index, child in enumerate(node.value)]
            return self._scalar(node, path)
        finally:
            self._open.discard(id(node))

    def _scalar(self, node: yaml.Node, path: tuple[PathPart, ...]) -> object:
        try:
            return self.loader.construct_object(node)
        except (yaml.YAMLError, ValueError):
            self.problems.append(self._problem(node, path, f"`{node.tag}` is not understood here", "a plain value"))
            return None

    def _mapping(self, node: yaml.MappingNode, path: tuple[PathPart, ...]) -> dict[object, object]:
        own: dict[object, object] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                merged += value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(
                    self._problem(key_node, path, "a key can't be a list or a mapping", "a word as the key")
                )
                continue
            key = self._scalar(key_node, path)
            place = (*path, key if isinstance(key, str | int) else str(key))
            if key in own:
                what = f"the key `{key}` stands here a second time (first in line {self.lines[place]})"
                self.problems.append(self._problem(key_node, place, what, "each key once"))
                continue
            # The key's line, not the value's: a block begins a line below its name.
            self.lines[place] = key_node.start_mark.line + 1
            own[key] = self.value_of(value_node, place)
        for source in merged:
            self._merge(source, path, own)
        return own

    def _merge(self, source: yaml.Node, path: tuple[PathPart, ...], own: dict[object, object]) -> None:
        """Add what `<<` brings; a key that stands already wins (YAML merge key type, 1.1)."""
        if not isinstance(source, yaml.MappingNode):
            self.problems.append(self._problem(source, path, "`<<` takes a mapping", "`<<: *name` of a mapping"))
            return
        nested = _Reading(self.file, self.loader)
        nested._open = self._open  # a merge may contain itself too
        brought = nested.value_of(source, path)
        self.problems += nested.problems
        for key, value in brought.items() if isinstance(brought, dict) else ():
            own.setdefault(key, value)
        for place, line in nested.lines.items():
            self.lines.setdefault(place, line)

    def _problem(self, node: yaml.Node, path: Sequence[PathPart], what: str, write: str) -> Problem:
        return Problem(self.file, node.start_mark.line + 1, dotted(path), what, write)
