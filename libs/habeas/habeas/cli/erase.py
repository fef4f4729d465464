"""`habeas erase`: what an erasure of an account would do to the stores, done and taken back."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from habeas.cli.mapped import address, address_problems, chosen, explain, of_stores
from habeas.cli.output import AS_JSON, say, write_json, write_table

if TYPE_CHECKING:
    from habeas.contracts.outcomes import TableOutcome
    from habeas.datamap.map.model import StoreMap
    from habeas.datamap.policy.model import Policy


@click.group(name="erase")
def erase() -> None:
    """Say what an erasure would do."""


@erase.command()
@click.option("--account", required=True, metavar="ID", help="The account; it is not written into the output.")
@click.option("--explain", "is_explained", is_flag=True, help="Also the links of the tables, and the SQL in its order.")
@of_stores
@AS_JSON
def plan(  # one argument per option
    account: str,
    dsn: str | None,
    directory: Path,
    policy_file: Path,
    store: str | None,
    *,
    is_explained: bool,
    as_json: bool,
) -> None:
    """Say what an erasure of an account would do to each table: 0 it would be done, 1 it would be refused.

    In each store the erasure's own transaction runs and is rolled back: nothing is changed. Until then, usually for less than a second,
    it locks the rows that an erasure locks, and others who would change them wait. What a database does not roll back stays: numbers of
    sequences, what a trigger does elsewhere.
    The DSN is that of the role that erases.
    """
    from habeas.datamap.source import ConfigurationError

    try:
        stores, policy = chosen(directory, policy_file, store, dsn)
    except ConfigurationError as error:
        explain(error.problems)
        raise SystemExit(1) from None
    missing = address_problems(stores, dsn)
    if missing:
        explain(missing)
        raise SystemExit(1)
    planned = [asyncio.run(_planned(each, policy, dsn, account, is_explained=is_explained)) for each in stores]
    is_refused = any(each["refused"] is not None for each in planned)
    if as_json:
        write_json({"ok": not is_refused, "stores": planned})
    else:
        for each in planned:
            _write(each)
    raise SystemExit(1 if is_refused else 0)


async def _planned(
    store: "StoreMap", policy: "Policy", dsn: str | None, account: str, *, is_explained: bool
) -> dict[str, Any]:
    from habeas.datamap.errors import StoreError, table_behind
    from habeas.datamap.postgres import PostgresStore, StoreOptions

    found, _ = address(store, dsn)
    told: dict[str, Any] = {"store": store.name, "refused": None, "table": None, "tables": []}
    options = StoreOptions(application="habeas-cli", connections_max=1)
    async with PostgresStore(store, policy, found, options) as opened:
        try:
            rehearsed = await opened.rehearse([account])
        except StoreError as error:
            return {**told, "refused": str(error), "table": table_behind(error)}
    told["tables"] = [_plain(each) for each in rehearsed.outcomes[account]]
    if is_explained:
        touched = {each["table"] for each in told["tables"] if each["rows"]}
        told["links"] = _links(store, policy, touched)
        told["statements"] = list(rehearsed.statements)
    return told


def _plain(outcome: "TableOutcome") -> dict[str, Any]:
    from habeas.contracts.vocabulary import TableResult

    return {
        "table": outcome.table,
        "result": str(outcome.result),
        "rows": outcome.rows,
        "of_others": outcome.result in {TableResult.DETACHED, TableResult.ERASED_WITH_PARENT},
        "ground": None if outcome.ground is None else str(outcome.ground),
        "until": None if outcome.until is None else outcome.until.isoformat(),
    }


def _links(store: "StoreMap", policy: "Policy", touched: set[str]) -> list[dict[str, Any]]:
    from habeas.datamap.planner.telling import tell

    return [
        {"table": name, "link": link.name, "role": link.role, "ways": list(link.ways), "erasure": link.erasure}
        for name in store.tables
        if name in touched
        for link in tell(store, store.tables[name], policy, None).links
    ]


def _write(planned: dict[str, Any]) -> None:
    say(f"store {planned['store']}, nothing was changed:")
    if planned["refused"] is not None:
        say(f"the erasure would be refused: {planned['refused']}")
        return
    rows = [
        (
            each["table"],
            f"{each['result']} (rows of others)" if each["of_others"] else each["result"],
            each["rows"],
            each["ground"] or "",
            each["until"] or "",
        )
        for each in planned["tables"]
    ]
    write_table("", ("table", "result", "rows", "ground", "until"), rows)
    for each in planned.get("links", ()):
        say(f"{each['table']}, {each['link']} ({each['role']}): {' '.join(each['ways'])} {each['erasure']}")
    for number, statement in enumerate(planned.get("statements", ()), start=1):
        say(f"{number}. {' '.join(statement.split())}")
