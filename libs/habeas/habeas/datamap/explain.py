"""Turn pydantic's errors into sentences that say what to write in a YAML file."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Final, NamedTuple, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

PathPart = str | int

VALUE_CHARACTERS_MAX: Final = 60
ALLOWED_MAX: Final = 12


class Explanation(NamedTuple):
    """What is wrong at one place of a document, and what to write there."""

    path: tuple[PathPart, ...]
    what: str
    write: str


def dotted(path: Sequence[PathPart]) -> str:
    """`("dataset", 0, "name")` as `dataset.0.name`."""
    return ".".join(str(part) for part in path)


def misfit(what: str, write: str, *below: PathPart) -> PydanticCustomError:
    """Error for a validator to raise, with its own words.

    `what` and `write` complete the sentence "WHAT; write WRITE". `below` names the part at fault, when it lies inside
    what is validated.
    """
    return PydanticCustomError("misfit", "{what}; write {write}", {"what": what, "write": write, "below": below})


def explain(model: type[BaseModel], value: object, error: ValidationError) -> list[Explanation]:
    """One explanation per place; what several branches of a union say about a place is joined."""
    by_path: dict[tuple[PathPart, ...], Explanation] = {}
    for details in error.errors(include_url=False):
        if _is_echo(details):
            continue
        found = _explain_one(model, value, details)
        earlier = by_path.get(found.path)
        if earlier is None:
            by_path[found.path] = found
        elif found.write not in earlier.write.split(", or "):
            by_path[found.path] = earlier._replace(write=f"{earlier.write}, or {found.write}")
    return list(by_path.values())


def _is_echo(details: ErrorDetails) -> bool:
    """Whether a list is called too short only because pydantic does not count those of its items that have errors of their own."""
    given = details["input"]
    return details["type"] == "too_short" and isinstance(given, list) and len(given) >= details["ctx"]["min_length"]


def shown(value: object) -> str:
    """Show a value of a configuration file in a message, shortened."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= VALUE_CHARACTERS_MAX else text[: VALUE_CHARACTERS_MAX - 1] + "…"


def nearest(word: str, allowed: Iterable[str]) -> str | None:
    """Give the allowed word that `word` was probably meant to be."""
    matches = difflib.get_close_matches(word, list(allowed), n=1, cutoff=0.6)
    return matches[0] if matches else None


def one_of(word: object, allowed: Iterable[str]) -> str:
    """Say what to write in place of `word`: the nearest allowed word first, then all of them."""
    words = list(allowed)
    listed = ", ".join(f"`{each}`" for each in words[:ALLOWED_MAX]) + (", …" if len(words) > ALLOWED_MAX else "")
    if not words:
        return "nothing here: there is none to choose from"
    guess = nearest(str(word), words)
    if guess is not None:
        return f"`{guess}`" if len(words) == 1 else f"`{guess}` (allowed: {listed})"
    return listed if len(words) == 1 else f"one of {listed}"


def _explain_one(model: type[BaseModel], value: object, details: ErrorDetails) -> Explanation:
    kind, context, given = details["type"], details.get("ctx", {}), details["input"]
    path = _real_path(value, details["loc"], missing=kind == "missing")
    here = f"`{dotted(path)}`" if path else "the file"
    if kind == "misfit":
        return Explanation((*path, *context["below"]), context["what"], context["write"])
    if kind == "missing":
        return Explanation(path, f"{here} is missing", _example(model, details["loc"], path))
    if kind == "extra_forbidden":
        allowed = sorted(_keys_at(model, details["loc"][:-1]))
        return Explanation(path, f"{here} is no key that is known here", one_of(path[-1], allowed))
    if kind in {"enum", "literal_error"}:
        allowed = _allowed_words(context["expected"])
        return Explanation(path, f"{here} can't be {shown(given)}", one_of(given, allowed))
    if kind == "value_error":
        what, _, write = str(context["error"]).partition("; write ")
        return Explanation(path, f"{here} can't be {_named(given)}: {what}", write or "it as this asks")
    if kind in _WRITE:
        return Explanation(path, f"{here} can't be {_named(given)}", _WRITE[kind].format(**context))
    return Explanation(path, f"{here} can't be {shown(given)}: {details['msg']}", "a value that fits")


_WRITE: Final = {
    "string_type": "a text (in quotes if it looks like a number)",
    "string_pattern_mismatch": "a text of the form `{pattern}`",
    "string_too_short": "a text of at least {min_length} characters",
    "string_too_long": "a text of at most {max_length} characters",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "`true` or `false`",
    "bool_parsing": "`true` or `false`",
    "list_type": "a list, `[one, two]`",
    "tuple_type": "a list, `[one, two]`",
    "set_type": "a list, `[one, two]`",
    "frozen_set_type": "a list, `[one, two]`",
    "dict_type": "a mapping, `name: value`",
    "mapping_type": "a mapping, `name: value`",
    "model_type": "a mapping, `name: value`",
    "model_attributes_type": "a mapping, `name: value`",
    "date_from_datetime_parsing": "a date, `2026-03-20`",
    "date_parsing": "a date, `2026-03-20`",
    "date_type": "a date, `2026-03-20`",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number not below {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number not above {le}",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
}


def _named(given: object) -> str:
    if given is None:
        return "empty"
    if isinstance(given, Mapping):
        return "a mapping"
    if isinstance(given, list):
        return "a list" if given else "an empty list"
    return shown(given)


def _allowed_words(expected: str) -> list[str]:
    """Read pydantic's `'a', 'b' or 'c'` back into words."""
    return [word.strip().strip("'") for word in expected.replace(" or ", ", ").split(", ")]


def _real_path(value: object, loc: Sequence[PathPart], *, missing: bool) -> tuple[PathPart, ...]:
    """Keep those parts of pydantic's location that exist in the document; the others are names of union branches."""
    path: list[PathPart] = []
    for index, part in enumerate(loc):
        in_list = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if isinstance(value, Mapping | list) and (in_list or (isinstance(value, Mapping) and part in value)):
            path.append(part)
            value = value[part]  # type: ignore[index] # the condition paired the two
        elif missing and index == len(loc) - 1:
            path.append(part)
    return tuple(path)


def _flat(annotation: object) -> Iterator[object]:
    """Branches of a union, without Annotated and None."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _flat(get_args(annotation)[0])
    elif origin in {Union, UnionType}:
        for branch in get_args(annotation):
            yield from _flat(branch)
    elif annotation is not type(None):
        yield annotation


def _is_model(annotation: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _field(model: type[BaseModel], key: PathPart) -> FieldInfo | None:
    for name, info in model.model_fields.items():
        if key in {info.alias, name}:
            return info
    return None


def _step(annotations: list[object], part: PathPart) -> list[object]:
    """Types one level below; the same types when `part` names a branch of a union."""
    below: list[object] = []
    for annotation in annotations:
        if _is_model(annotation):
            info = _field(annotation, part)
            below += _flat(info.annotation) if info else []
            continue
        origin, arguments = get_origin(annotation), [each for each in get_args(annotation) if each is not Ellipsis]
        if not arguments or not isinstance(origin, type):
            continue
        if issubclass(origin, Mapping):
            below += _flat(arguments[-1])
        elif issubclass(origin, Sequence | set | frozenset) and isinstance(part, int):
            below += [branch for argument in arguments for branch in _flat(argument)]
    return below or annotations


def _types_at(model: type[BaseModel], loc: Sequence[PathPart]) -> list[object]:
    types: list[object] = [model]
    for part in loc:
        types = _step(types, part)
    return types


def _keys_at(model: type[BaseModel], loc: Sequence[PathPart]) -> set[str]:
    return {
        info.alias or name
        for annotation in _types_at(model, loc)
        if _is_model(annotation)
        for name, info in annotation.model_fields.items()
    }


def _example(model: type[BaseModel], loc: Sequence[PathPart], path: Sequence[PathPart]) -> str:
    """Example of a missing key, as its field declares it."""
    key = path[-1] if path else "…"
    for annotation in _types_at(model, loc[:-1]):
        info = _field(annotation, key) if _is_model(annotation) else None
        if info is not None and info.examples:
            return f"`{key}: {info.examples[0]}`"
        if info is not None and info.description:
            return f"`{key}: …` ({info.description})"
    return f"`{key}: …`"
