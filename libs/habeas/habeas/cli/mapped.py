"""What commands share that work with the stores of a data map: their options, the files, the way to each database."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from habeas.cli.connection import private, require_private

if TYPE_CHECKING:
    from habeas.datamap.map.model import StoreMap
    from habeas.datamap.policy.model import Policy
    from habeas.datamap.source import Problem

_Command = TypeVar("_Command", bound=Callable[..., Any])

DSN: Final = click.option(
    "--dsn", callback=private, help="Database to look at, instead of the one that the map's variable holds."
)
MAP: Final = click.option(
    "--map", "directory", type=click.Path(exists=True, path_type=Path), default="datamap", show_default=True
)
POLICY: Final = click.option(
    "--policy",
    "policy_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="HABEAS_POLICY",
    default="policy.yaml",
    show_default=True,
)
STORE: Final = click.option("--store", help="Only this store of the map.")


def of_stores(command: _Command) -> _Command:
    """Give a command the options by which stores are chosen and reached."""
    for option in (STORE, POLICY, MAP, DSN):
        command = option(command)
    return command


def chosen(
    directory: Path, policy_file: Path, store: str | None, dsn: str | None
) -> "tuple[tuple[StoreMap, ...], Policy]":
    """Read map and policy, and give the stores that are meant; raises ConfigurationError for what is wrong in the files."""
    from habeas.datamap.map.loading import load_datamap
    from habeas.datamap.policy.model import load_policy

    policy = load_policy(policy_file)
    stores = load_datamap(directory, policy).stores
    if store is not None and store not in stores:
        raise click.UsageError(f"the map has no store {store}: {', '.join(stores)}")
    found = tuple(each for name, each in stores.items() if store in {None, name})
    if dsn is not None and len(found) > 1:
        raise click.UsageError(f"the map has several stores; choose one with --store: {', '.join(stores)}")
    return found, policy


def address_problems(stores: "tuple[StoreMap, ...]", dsn: str | None) -> "tuple[Problem, ...]":
    """Say which variables are missing."""
    from habeas.datamap.postgres import find_address_problems

    if dsn is not None:
        return ()
    return tuple(problem for store in stores for problem in find_address_problems(store, os.environ, production=False))


def address(store: "StoreMap", dsn: str | None) -> tuple[str, str]:
    """Give the DSN of a store, and what a person wrote it to; raises UsageError for a connection that others could read."""
    if dsn is not None:
        return dsn, "--dsn"
    found = os.environ[store.connection]
    require_private(found, store.connection)
    return found, store.connection


def explain(problems: "tuple[Problem, ...]") -> None:
    """One line each, so that a terminal makes `file:line` clickable and `grep` finds it whole."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, soft_wrap=True)
    for problem in problems:
        parts: list[Any] = [
            (f"{problem.file}:{problem.line}", "bold"),
            f": {problem.what}; write ",
            (problem.write, "green"),
        ]
        console.print(Text.assemble(*parts))
    console.print(Text(f"{len(problems)} to mend", style="red"))
