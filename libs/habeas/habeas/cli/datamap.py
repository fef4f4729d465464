"""`habeas datamap`: draft a data map from a live database, and compare one with it. Reads the catalogue, never a row."""

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from habeas.cli.connection import named, private, require_private

if TYPE_CHECKING:
    from habeas.datamap.catalogue.schema import LiveSchema
    from habeas.datamap.map.model import StoreMap
    from habeas.datamap.postgres import Examination
    from habeas.datamap.source import Problem

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


@click.group(name="datamap")
def datamap() -> None:
    """Draft and check the data map."""


@datamap.command()
@click.option("--dsn", callback=private, help="Database to look at, instead of the one that the map's variable holds.")
@click.option("--map", "directory", type=click.Path(exists=True, path_type=Path), default="datamap", show_default=True)
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="HABEAS_POLICY",
    default="policy.yaml",
    show_default=True,
)
@click.option("--store", help="Only this store of the map.")
@click.option("--offline", is_flag=True, help="Look at the files alone; nothing is said about databases then.")
@AS_JSON
def check(  # one argument per option
    dsn: str | None, directory: Path, policy_file: Path, store: str | None, *, offline: bool, as_json: bool
) -> None:
    """Say whether map, policy and live schema agree: 0 yes, 1 no, with file, line and what to write.

    Each store is looked at over the variable that its `connection` names. A database that cannot be looked at is no agreement.
    """
    if offline and dsn:
        raise click.UsageError("--dsn and --offline contradict each other")
    problems, told, is_compared = _problems(dsn, directory, policy_file, store, offline=offline)
    if as_json:
        plain = [{**problem._asdict(), "file": str(problem.file)} for problem in problems]
        _write_json({"ok": not problems, "compared_with_database": is_compared, "problems": plain, "notices": told})
    elif problems:
        _explain(problems)
    else:
        _say(f"{directory}: the data map is in order" + (" (no database was looked at)" if offline else ""))
    for notice in () if as_json else told:
        _say(notice)
    raise SystemExit(1 if problems else 0)


@datamap.command()
@click.option(
    "--dsn", envvar="PLATFORM_DSN", show_envvar=True, required=True, callback=private, help="Database to look at."
)
@click.option(
    "--schema",
    "schemas",
    multiple=True,
    default=("public",),
    show_default=True,
    help="Schema to describe; may be given several times, the one that holds the root first.",
)
@click.option("--store", default="platform", show_default=True, help="Name of the store.")
@click.option("--connection", help="Environment variable that will hold the DSN; default STORE_DSN.")
@click.option(
    "--root",
    help="Table in which a person begins; without it, the one that most hangs on among those whose last word is one for people.",
)
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="HABEAS_POLICY",
    help="Policy whose categories are to be guessed.",
)
@AS_JSON
def draft(  # one argument per option
    dsn: str,
    schemas: tuple[str, ...],
    store: str,
    connection: str | None,
    root: str | None,
    policy_file: Path | None,
    *,
    as_json: bool,
) -> None:
    """Write a first map to standard output; what a person must decide says REVIEW."""
    from habeas.datamap.errors import StoreError
    from habeas.datamap.map.draft import draft_dataset
    from habeas.datamap.policy.model import load_policy
    from habeas.datamap.source import ConfigurationError

    try:
        policy = load_policy(policy_file) if policy_file else None
        live = asyncio.run(_live(store, dsn, schemas[0], _variable())).only(*schemas)
    except ConfigurationError as error:
        _explain(error.problems)
        raise SystemExit(1) from None
    except StoreError as error:
        raise click.ClickException(str(error)) from None
    variable = connection or f"{store.upper().replace('-', '_').replace('.', '_')}_DSN"
    if root is not None and root not in live.tables:
        raise click.UsageError(
            f"{'the schema' if len(schemas) == 1 else 'none of the schemas'} {', '.join(schemas)} has"
            f" {'no' if len(schemas) == 1 else 'a'} table {root}: --root is one of {', '.join(sorted(live.tables)) or 'none'}"
        )
    drafted = draft_dataset(live, store=store, connection=variable, schema=schemas, policy=policy, root=root)
    if as_json:
        _write_json({"tables": len(live.tables), "reviews": drafted.reviews, "yaml": drafted.text})
    else:
        click.echo(drafted.text, nl=False)
        click.echo(f"{len(live.tables)} tables; {drafted.reviews} places to decide", err=True)


def _problems(
    dsn: str | None, directory: Path, policy_file: Path, store: str | None, *, offline: bool
) -> "tuple[tuple[Problem, ...], tuple[str, ...], bool]":
    """Everything that is wrong, of files and databases; what is worth knowing; and whether every database was looked at."""
    from habeas.datamap.map.loading import load_datamap
    from habeas.datamap.policy.model import load_policy
    from habeas.datamap.postgres import find_address_problems
    from habeas.datamap.source import ConfigurationError

    try:
        loaded = load_datamap(directory, load_policy(policy_file))
    except ConfigurationError as error:
        return error.problems, (), False
    if store is not None and store not in loaded.stores:
        raise click.UsageError(f"the map has no store {store}: {', '.join(loaded.stores)}")
    chosen = [each for name, each in loaded.stores.items() if store in {None, name}]
    if dsn is not None and len(chosen) > 1:
        raise click.UsageError(f"the map has several stores; choose one with --store: {', '.join(loaded.stores)}")
    if offline:
        return (), (), False
    missing = (
        []
        if dsn is not None
        else [each for one in chosen for each in find_address_problems(one, os.environ, production=False)]
    )
    if missing:
        return tuple(missing), (), False
    examined = [_examined(each, dsn) for each in chosen]
    problems = tuple(problem for each in examined for problem in each.problems)
    return problems, tuple(notice for each in examined for notice in each.notices), True


def _examined(store: "StoreMap", dsn: str | None) -> "Examination":
    """Compare one store with its database, that of its variable unless ``dsn`` says another."""
    from habeas.datamap.errors import StoreError
    from habeas.datamap.postgres import examine

    variable = "--dsn" if dsn else store.connection
    if dsn is None:
        dsn = os.environ[store.connection]
        require_private(dsn, variable)
    try:
        return asyncio.run(examine(store, dsn, variable))
    except StoreError as error:
        raise click.ClickException(str(error)) from None


def _variable() -> str:
    """Return what the person wrote the DSN to."""
    ctx = click.get_current_context()
    return named(ctx, next(each for each in ctx.command.params if each.name == "dsn"))


async def _live(store: str, dsn: str, schema: str, variable: str) -> "LiveSchema":
    from habeas.datamap.postgres import read_live_schema

    return await read_live_schema(store, dsn, schema, variable)


def _write_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _explain(problems: "tuple[Problem, ...]") -> None:
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


def _say(text: str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(soft_wrap=True).print(Text(text))
