"""`habeas datamap`: draft a data map from a live database, and compare one with it. Reads the catalogue, never a row."""

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from habeas.datamap.live import LiveSchema
    from habeas.datamap.source import Problem

DSN = click.option("--dsn", envvar="PLATFORM_DSN", help="Database to look at; without it, only the files are checked.")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


@click.group(name="datamap")
def datamap() -> None:
    """Draft and check the data map."""


@datamap.command()
@DSN
@click.option("--map", "directory", type=click.Path(exists=True, path_type=Path), default="datamap", show_default=True)
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="HABEAS_POLICY",
    default="policy.yaml",
    show_default=True,
)
@click.option("--store", help="Which store the DSN belongs to, where the map has several.")
@AS_JSON
def check(dsn: str | None, directory: Path, policy_file: Path, store: str | None, *, as_json: bool) -> None:
    """Say whether map, policy and live schema agree: 0 yes, 1 no, with file, line and what to write."""
    problems = _problems(dsn, directory, policy_file, store)
    if as_json:
        plain = [{**problem._asdict(), "file": str(problem.file)} for problem in problems]
        _write_json({"ok": not problems, "compared_with_database": dsn is not None, "problems": plain})
    elif problems:
        _explain(problems)
    else:
        _say(f"{directory}: the data map is in order" + ("" if dsn else " (no database was looked at)"))
    raise SystemExit(1 if problems else 0)


@datamap.command()
@click.option("--dsn", envvar="PLATFORM_DSN", required=True, help="Database to look at.")
@click.option("--schema", default="public", show_default=True, help="Schema to describe.")
@click.option("--store", default="platform", show_default=True, help="Name of the store.")
@click.option("--connection", help="Environment variable that will hold the DSN; default STORE_DSN.")
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="HABEAS_POLICY",
    help="Policy whose categories are to be guessed.",
)
@AS_JSON
def draft(  # one argument per option
    dsn: str, schema: str, store: str, connection: str | None, policy_file: Path | None, *, as_json: bool
) -> None:
    """Write a first map to standard output; what a person must decide says REVIEW."""
    from habeas.datamap.draft import draft_dataset
    from habeas.datamap.errors import StoreError
    from habeas.datamap.policy import load_policy
    from habeas.datamap.source import ConfigurationError

    try:
        policy = load_policy(policy_file) if policy_file else None
        live = asyncio.run(_live(store, dsn, schema))
    except ConfigurationError as error:
        _explain(error.problems)
        raise SystemExit(1) from None
    except StoreError as error:
        raise click.ClickException(str(error)) from None
    variable = connection or f"{store.upper().replace('-', '_').replace('.', '_')}_DSN"
    drafted = draft_dataset(live, store=store, connection=variable, schema=schema, policy=policy)
    if as_json:
        _write_json({"tables": len(live.tables), "reviews": drafted.reviews, "yaml": drafted.text})
    else:
        click.echo(drafted.text, nl=False)
        click.echo(f"{len(live.tables)} tables; {drafted.reviews} places to decide", err=True)


def _problems(dsn: str | None, directory: Path, policy_file: Path, store: str | None) -> "tuple[Problem, ...]":
    """Everything that is wrong, of files and database."""
    from habeas.datamap.check import compare
    from habeas.datamap.errors import StoreError
    from habeas.datamap.loading import load_datamap
    from habeas.datamap.policy import load_policy
    from habeas.datamap.source import ConfigurationError

    try:
        loaded = load_datamap(directory, load_policy(policy_file))
    except ConfigurationError as error:
        return error.problems
    if dsn is None:
        return ()
    if store is None and len(loaded.stores) > 1:
        raise click.UsageError(f"the map has several stores; choose one with --store: {', '.join(loaded.stores)}")
    chosen = loaded.stores.get(store or next(iter(loaded.stores)))
    if chosen is None:
        raise click.UsageError(f"the map has no store {store}: {', '.join(loaded.stores)}")
    try:
        return compare(chosen, asyncio.run(_live(chosen.name, dsn, chosen.schema)))
    except StoreError as error:
        raise click.ClickException(str(error)) from None


async def _live(store: str, dsn: str, schema: str) -> "LiveSchema":
    from habeas.datamap.postgres import read_live_schema

    return await read_live_schema(store, dsn, schema)


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
