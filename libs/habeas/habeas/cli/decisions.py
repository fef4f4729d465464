"""`habeas parked retry` and `resolve`: what a person decides about messages that wait for one. On record, in the same transaction."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import click

from habeas.cli.connection import SUPERVISOR_DSN, run
from habeas.cli.output import AS_JSON, say, write_json

_BECAUSE: Final = {
    "sent_again": "the producer has mended it and sent it anew",
    "done_by_hand": "a person has done what it asked for",
    "duplicate": "another message stands for it",
    "superseded": "what it says no longer holds",
    "forged": "nobody who may send it has sent it",
    "unreadable": "nobody can say what it was",
}  # a test compares it with the contract's; help must not import it
_WHY_NOT: Final = {
    "pending": "it is not parked: it waits to be handled",
    "resolved": "it is not parked: it was resolved",
    "unreadable": "nothing in it can be read, however often it is tried: resolve it",
    "id_conflict": "another message came first with its id, and stands: resolve it",
}
_GONE: Final = "there is no such message: it was handled, or there never was one"
_LIMIT: Final = 1_000

_Verdicts = Mapping[str, Mapping[int, str]]


@click.command(name="retry")
@click.argument("messages", metavar="[ID]...", nargs=-1)
@click.option("--service", help="All of this service.")
@click.option("--reason", help="All that are parked for this reason.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=_LIMIT, show_default=True, help="Per service, oldest.")
@SUPERVISOR_DSN
@AS_JSON
def retry(
    messages: tuple[str, ...], service: str | None, reason: str | None, limit: int, dsn: str, *, as_json: bool
) -> None:
    """Handle parked messages once more: those of the IDs, or those of a service, of a reason, or of both.

    Each is handled before what waits behind it. Exit code 1 when a message that was named is not parked, or could never be read.
    """
    if bool(messages) is bool(service or reason):
        raise click.UsageError("name messages by their IDs, or give --service or --reason")
    ids = parse(messages) if messages else run(_select(dsn, _service(service), _reason(reason), limit))
    _tell(run(_decide(dsn, ids, None)), ids, "retried", named=bool(messages), as_json=as_json)


@click.command(
    name="resolve", epilog="Reasons: " + "; ".join(f"{word}: {text}" for word, text in _BECAUSE.items()) + "."
)
@click.argument("messages", metavar="ID...", nargs=-1, required=True)
@click.option("--because", type=click.Choice(tuple(_BECAUSE)), required=True, help="Why; it goes into the audit log.")
@SUPERVISOR_DSN
@AS_JSON
def resolve(messages: tuple[str, ...], because: str, dsn: str, *, as_json: bool) -> None:
    """Let parked messages never take effect, forget what they say, and let go on what waits behind them.

    Exit code 1 when one of them is not parked.
    """
    ids = parse(messages)
    _tell(run(_decide(dsn, ids, because)), ids, "resolved", named=True, as_json=as_json)


def parse(messages: Iterable[str]) -> dict[str, list[int]]:
    """Read IDs as the list shows them, such as request-intake/42; numbers by service. Raises UsageError."""
    from habeas.cli import store

    ids: dict[str, list[int]] = {}
    for message in dict.fromkeys(messages):
        service, _, number = message.rpartition("/")
        if service not in store.SERVICES or not number.isdigit() or int(number) >= 1 << 63:
            raise click.UsageError("an ID is SERVICE/NUMBER, such as request-intake/42")
        ids.setdefault(service, []).append(int(number))
    return ids


def _service(service: str | None) -> tuple[str, ...]:
    from habeas.cli import store

    if service is not None and service not in store.SERVICES:
        raise click.UsageError(f"services are {', '.join(store.SERVICES)}")
    return store.SERVICES if service is None else (service,)


def _reason(reason: str | None) -> str | None:
    from habeas.contracts.vocabulary import ParkReason

    if reason is not None and reason not in set(ParkReason):
        raise click.UsageError(f"reasons are {', '.join(ParkReason)}")
    return reason


async def _select(dsn: str, services: tuple[str, ...], reason: str | None, limit: int) -> dict[str, list[int]]:
    from habeas.cli import store
    from habeas.cli.connection import connected

    async with connected(dsn) as conn:
        found = {name: await store.find_parked_ids(conn, name, reason, limit) for name in services}
    return {name: ids for name, ids in found.items() if ids}


async def _decide(dsn: str, ids: Mapping[str, list[int]], because: str | None) -> dict[str, dict[int, str]]:
    """Decide, one transaction a service; gives what became of each message that there is."""
    from habeas.chassis.clock import SystemClock
    from habeas.chassis.ids import uuid7
    from habeas.cli import store
    from habeas.cli.connection import connected

    clock = SystemClock()
    verdicts = {}
    for service, numbers in ids.items():
        facts = [uuid7(clock) for _ in numbers]
        async with connected(dsn, store.schema_of(service), writes=True) as conn:
            verdicts[service] = await store.decide_parked(conn, service, numbers, facts, because)
    return verdicts


def _tell(verdicts: _Verdicts, ids: Mapping[str, list[int]], done: str, *, named: bool, as_json: bool) -> None:
    """Say what was decided and what was refused; a refusal of a message that somebody named is a failure."""
    decided: list[str] = []
    refused: list[dict[str, Any]] = []
    for service, numbers in ids.items():
        for number in numbers:
            verdict = verdicts[service].get(number)
            if verdict == "decided":
                decided.append(f"{service}/{number}")
            else:
                refused.append({"id": f"{service}/{number}", "why": _GONE if verdict is None else _WHY_NOT[verdict]})
    if as_json:
        write_json({done: decided, "refused": refused})
    else:
        for message in decided:
            say(f"{message} is {done}")
        for each in refused:
            say(f"{each['id']} is not {done}: {each['why']}")
        if not decided and not refused:
            say("nothing is parked there")
    if named and refused:
        raise SystemExit(1)
