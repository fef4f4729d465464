"""`habeas datamap`: draft a data map from a live database, compare one with it, explain it, and rehearse with real people."""

import asyncio
import difflib
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from habeas.cli.connection import named, private
from habeas.cli.mapped import address, address_problems, chosen, explain, of_stores
from habeas.cli.output import say, visible, write_table

if TYPE_CHECKING:
    from habeas.datamap.catalogue.schema import LiveSchema
    from habeas.datamap.map.model import StoreMap
    from habeas.datamap.planner.telling import Told
    from habeas.datamap.policy.model import Policy
    from habeas.datamap.postgres import Examination, Tried
    from habeas.datamap.source import Problem

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


@click.group(name="datamap")
def datamap() -> None:
    """Draft and check the data map."""


@datamap.command()
@of_stores
@click.option("--offline", is_flag=True, help="Look at the files alone; nothing is said about databases then.")
@click.option(
    "--sample",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="Also erase and export N people chosen at random, and purge once by each rule, and take all of it back.",
)
@AS_JSON
def check(  # one argument per option
    dsn: str | None,
    directory: Path,
    policy_file: Path,
    store: str | None,
    sample: int | None,
    *,
    offline: bool,
    as_json: bool,
) -> None:
    """Say whether map, policy and live schema agree: 0 yes, 1 no, with file, line and what to write.

    Each store is looked at over the variable that its `connection` names. A database that cannot be looked at is no agreement.

    With --sample the store's own work runs in transactions that are rolled back, and a refusal is no agreement either. Rows are locked
    for that moment, as by an erasure. The DSN is that of the role that erases. People are numbered, never named.
    """
    if offline and dsn:
        raise click.UsageError("--dsn and --offline contradict each other")
    found = _find(dsn, directory, policy_file, store, offline=offline)
    sampled = [_sampled(each, found, dsn, sample) for each in found.stores] if sample and found.is_compared else []
    is_fine = not found.problems and all(each["people"] and not each["refused"] for each in sampled)
    if as_json:
        plain = [{**problem._asdict(), "file": str(problem.file)} for problem in found.problems]
        document: dict[str, object] = {
            "ok": is_fine, "compared_with_database": found.is_compared, "problems": plain, "notices": found.notices,
        }  # fmt: skip
        _write_json({**document, "sample": sampled} if sample else document)
    elif found.problems:
        explain(found.problems)
    else:
        _say(f"{directory}: the data map is in order" + (" (no database was looked at)" if offline else ""))
    if not as_json:
        for notice in found.notices:
            _say(notice)
        for each in sampled:
            _tell_sample(each)
    raise SystemExit(0 if is_fine else 1)


@datamap.command(name="explain")
@click.argument("table")
@of_stores
@click.option("--offline", is_flag=True, help="Look at the files alone; foreign keys are not told then.")
@AS_JSON
def explain_table(  # one argument per option
    table: str, dsn: str | None, directory: Path, policy_file: Path, store: str | None, *, offline: bool, as_json: bool
) -> None:
    """Say in plain words whose the rows of TABLE are and why, and what an erasure, an export and their age do with them.

    A table of another schema than the root's is `schema.table`. Reads files and the catalogue, never a row.
    """
    from habeas.datamap.errors import StoreError
    from habeas.datamap.planner.telling import tell
    from habeas.datamap.source import ConfigurationError

    if offline and dsn:
        raise click.UsageError("--dsn and --offline contradict each other")
    try:
        stores, policy = chosen(directory, policy_file, store, dsn)
    except ConfigurationError as error:
        explain(error.problems)
        raise SystemExit(1) from None
    having = tuple(each for each in stores if table in each.tables)
    if not having:
        _refuse_unknown(table, stores)
    missing = () if offline else address_problems(having, dsn)
    if missing:
        explain(missing)
        raise SystemExit(1)
    told: list[Told] = []
    for each in having:
        try:
            live = None if offline else _live_of(each, dsn)
        except StoreError as error:
            raise click.ClickException(str(error)) from None
        told.append(tell(each, each.tables[table], policy, live))
    if as_json:
        _write_json([asdict(each) for each in told])
    else:
        for one in told:
            _tell_table(one)


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
        explain(error.problems)
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


@dataclass(frozen=True)
class _Found:
    """What is wrong, of files and databases; what is worth knowing; whether every database was looked at."""

    problems: "tuple[Problem, ...]"
    notices: tuple[str, ...] = ()
    is_compared: bool = False
    stores: "tuple[StoreMap, ...]" = ()
    policy: "Policy | None" = None


def _find(dsn: str | None, directory: Path, policy_file: Path, store: str | None, *, offline: bool) -> _Found:
    from habeas.datamap.source import ConfigurationError

    try:
        stores, policy = chosen(directory, policy_file, store, dsn)
    except ConfigurationError as error:
        return _Found(error.problems)
    if offline:
        return _Found(())
    missing = address_problems(stores, dsn)
    if missing:
        return _Found(missing)
    examined = [_examined(each, dsn) for each in stores]
    problems = tuple(problem for each in examined for problem in each.problems)
    notices = tuple(notice for each in examined for notice in each.notices)
    return _Found(problems, notices, is_compared=True, stores=stores, policy=policy)


def _examined(store: "StoreMap", dsn: str | None) -> "Examination":
    """Compare one store with its database, that of its variable unless ``dsn`` says another."""
    from habeas.datamap.errors import StoreError
    from habeas.datamap.postgres import examine

    try:
        return asyncio.run(examine(store, *address(store, dsn)))
    except StoreError as error:
        raise click.ClickException(str(error)) from None


def _sampled(store: "StoreMap", found: _Found, dsn: str | None, people: int) -> dict[str, Any]:
    """Rehearse in one store; where map and schema differ, nobody is looked at."""
    told: dict[str, Any] = {"store": store.name, "people": 0, "tables": [], "refused": []}
    if found.problems or found.policy is None:
        return told
    count, tried = asyncio.run(_rehearsed(store, found.policy, address(store, dsn)[0], people))
    rows: Counter[tuple[str, str]] = Counter()
    for each in tried:
        rows.update(each.rows)
    return {
        **told,
        "people": count,
        "tables": [{"table": table, "what": what, "rows": number} for (table, what), number in sorted(rows.items())],
        "refused": [
            {"work": each.work, "person": each.person, "table": each.table, "why": each.refused}
            for each in tried
            if each.refused is not None
        ],
    }


async def _rehearsed(store: "StoreMap", policy: "Policy", dsn: str, people: int) -> "tuple[int, tuple[Tried, ...]]":
    from habeas.chassis.clock import SystemClock
    from habeas.datamap.errors import StoreError
    from habeas.datamap.postgres import PostgresStore, StoreOptions, rehearse_people

    options = StoreOptions(application="habeas-cli", connections_max=1)
    async with PostgresStore(store, policy, dsn, options) as opened:
        try:
            return await rehearse_people(opened, people, SystemClock().now())
        except StoreError as error:
            raise click.ClickException(str(error)) from None


def _tell_sample(sampled: dict[str, Any]) -> None:
    if not sampled["people"]:
        _say(
            f"store {sampled['store']}: nobody was rehearsed with"
            + ("" if sampled["refused"] else "; that is no agreement")
        )
        return
    _say(f"store {sampled['store']}: rehearsed with {sampled['people']} people, and nothing was changed")
    write_table(
        "", ("table", "what", "rows"), [(each["table"], each["what"], each["rows"]) for each in sampled["tables"]]
    )
    for each in sampled["refused"]:
        whom = f" of person {each['person']}" if each["person"] is not None else f" of {each['table']}"
        _say(f"refused: {each['work']}{whom}: {each['why']}")


def _refuse_unknown(table: str, stores: "tuple[StoreMap, ...]") -> NoReturn:
    known = sorted({name for each in stores for name in each.tables})
    near = difflib.get_close_matches(table, known, n=3, cutoff=0.5)
    near += [name for name in known if name.rpartition(".")[2] == table and name not in near]
    raise click.ClickException(
        f"the map has no table {visible(table)}"
        + (f"; nearest: {', '.join(near)}" if near else f": {len(known)} others")
    )


def _tell_table(told: "Told") -> None:
    say(f"{told.table} (store {told.store})")
    paragraphs = list(told.facts)
    if told.reason is not None:
        paragraphs.append(f"Reason in the map: {told.reason}.")
    paragraphs += [
        f"{link.name} ({link.role}): {' '.join(link.ways)} {link.erasure} {link.export}" for link in told.links
    ]
    for paragraph in (*paragraphs, *told.references, told.retention):
        say("")
        say(paragraph)


def _variable() -> str:
    """Return what the person wrote the DSN to."""
    ctx = click.get_current_context()
    return named(ctx, next(each for each in ctx.command.params if each.name == "dsn"))


async def _live(store: str, dsn: str, schema: str, variable: str) -> "LiveSchema":
    from habeas.datamap.postgres import read_live_schema

    return await read_live_schema(store, dsn, schema, variable)


def _live_of(store: "StoreMap", dsn: str | None) -> "LiveSchema":
    found, variable = address(store, dsn)
    return asyncio.run(_live(store.name, found, store.schema, variable))


def _write_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _say(text: str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(soft_wrap=True).print(Text(text))
