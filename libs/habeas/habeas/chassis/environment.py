"""From environment variables to settings: which variable feeds which field, and what to tell who got one wrong.

A field `lease_s` of the service `erasure-executor` is read from `ERASURE_EXECUTOR_LEASE_S`, else from the fleet-wide
`HABEAS_LEASE_S`. Fields that are themselves models are groups: their fields are read by the same rule, without the
group's name. A variable with the service's prefix that no field knows is an error, and so is a fleet-wide one that only
just misses a known name (other programs share the fleet-wide prefix). Values never appear in errors.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

S = TypeVar("S", bound=BaseModel)

_SHARED: Final = "HABEAS_"
_CLOSE: Final = 0.9  # LEASE_MS is close to LEASE_S; names that mean different things are not

# Kubernetes writes such variables for each Service object, under the name that a service of the fleet has too.
_OF_KUBERNETES: Final = re.compile(
    r"SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?"
)

_UNITS: Final = {
    "_s": "seconds",
    "_ms": "milliseconds",
    "_rows_max": "rows",
    "_bytes_max": "bytes",
    "_connections_min": "connections",
    "_connections_max": "connections",
    "_days": "days",
    "_ratio": "a share of 1",
}


class SettingsError(ValueError):
    """Settings are missing, wrong or unknown.

    Says for each variable what it means, its unit and what to write; never what was written.
    """

    def __init__(self, complaints: Sequence[str]) -> None:
        super().__init__("\n  ".join(("settings are not usable:", *complaints)))
        self.complaints = tuple(complaints)


@dataclass(frozen=True, slots=True)
class _Variable:
    path: tuple[str, ...]
    field: FieldInfo
    own: str
    shared: str


def read(model: type[S], service: str, env: Mapping[str, str], *, whole: bool) -> S:
    """Build `model` for `service` from `env`, or raise SettingsError that explains every wrong variable at once.

    `whole` says that `model` holds all settings of the service, so that any other variable with its prefix is an error.
    """
    prefix = f"{service.upper().replace('-', '_')}_"
    variables = list(_variables(model, prefix, ()))
    values = _values(model, ())
    for variable in variables:
        text = env.get(variable.own, env.get(variable.shared))
        if text is not None:
            _put(values, variable, text.strip())
    complaints = list(_unknown(variables, prefix, env, whole=whole))
    settings = None
    try:
        settings = model.model_validate(values)
    except ValidationError as error:
        complaints.extend(_complaint(each, variables) for each in error.errors(include_url=False, include_input=False))
    if complaints or settings is None:  # raised here and not in `except`: the cause would show the values
        raise SettingsError(complaints)
    return settings


def _variables(model: type[BaseModel], prefix: str, path: tuple[str, ...]) -> Iterator[_Variable]:
    for name, field in model.model_fields.items():
        group = _as_group(field)
        if group is not None:
            yield from _variables(group, prefix, (*path, name))
        else:
            yield _Variable((*path, name), field, prefix + name.upper(), _SHARED + name.upper())


def _values(model: type[BaseModel], path: tuple[str, ...]) -> dict[str, Any]:
    """Give the empty nest of groups, so that a group is complained about by its fields and not as missing."""
    groups = ((name, _as_group(field)) for name, field in model.model_fields.items())
    return {name: _values(group, (*path, name)) for name, group in groups if group is not None}


def _as_group(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _put(values: dict[str, Any], variable: _Variable, text: str) -> None:
    *groups, name = variable.path
    for group in groups:
        values = values[group]
    kinds = _kinds(variable.field)
    if not text and type(None) in kinds:
        values[name] = None  # an empty variable switches an optional setting off
    elif any(get_origin(kind) in (tuple, list, frozenset) for kind in kinds):
        values[name] = [part.strip() for part in text.split(",") if part.strip()]
    else:
        values[name] = text


def _kinds(field: FieldInfo) -> tuple[Any, ...]:
    """Give the members of a union, or the one type."""
    kind = field.annotation
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return tuple(get_args(each)[0] if get_origin(each) is Annotated else each for each in kinds)


def _unknown(variables: Sequence[_Variable], prefix: str, env: Mapping[str, str], *, whole: bool) -> Iterator[str]:
    own = {variable.own for variable in variables}
    shared = {variable.shared for variable in variables}
    for name in sorted(env):
        if name.startswith(prefix) and name not in own:
            if _OF_KUBERNETES.fullmatch(name.removeprefix(prefix)):
                continue
            near = get_close_matches(name, own, 1, _CLOSE)
            if near:
                yield f"{name} is unknown. Did you mean {near[0]}? Rename or remove it."
            elif whole:
                yield f"{name} is unknown. Remove it."
        elif name.startswith(_SHARED) and name not in shared:
            near = get_close_matches(name, shared, 1, _CLOSE)
            if near:
                yield f"{name} is unknown but close to {near[0]}. Rename or remove it."


def _complaint(error: ErrorDetails, variables: Sequence[_Variable]) -> str:
    path = tuple(str(part) for part in error["loc"])
    for variable in variables:
        if path[: len(variable.path)] == variable.path:
            state = "is missing" if error["type"] == "missing" else "is wrong"
            meaning = variable.field.description or "no description"
            return f"{variable.own} (or {variable.shared}) {state}: {meaning}. Write {_what_to_write(variable)}."
    if error["type"] == "value_error":  # of a whole model, whose validator names variables and no values
        return error["msg"].removeprefix("Value error, ")
    return "settings contradict each other"


def _what_to_write(variable: _Variable) -> str:
    kinds = [kind for kind in _kinds(variable.field) if kind is not type(None)]
    kind = kinds[0]
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(str(choice) for choice in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "one of " + ", ".join(str(member.value) for member in kind)
    if kind is bool:
        return "true or false"
    if kind in (int, float):
        unit = next((unit for suffix, unit in _UNITS.items() if variable.path[-1].endswith(suffix)), "")
        number = "a whole number" if kind is int else "a number"
        return f"{number}{f' of {unit}' if unit else ''}{_bounds(variable.field)}"
    if get_origin(kind) in (tuple, list, frozenset):
        return "values with commas between them"
    if isinstance(kind, type) and issubclass(kind, Path):
        return "a path, as the meaning says; what is to be read must exist"
    return "the secret itself" if kind is SecretStr else "a text as the meaning says"


def _bounds(field: FieldInfo) -> str:
    words = ""
    for bound in field.metadata:
        match bound:
            case Ge(ge=limit):
                words += f" from {limit}"
            case Gt(gt=limit):
                words += f" above {limit}"
            case Le(le=limit):
                words += f" up to {limit}"
            case Lt(lt=limit):
                words += f" below {limit}"
            case _:
                pass
    return words
