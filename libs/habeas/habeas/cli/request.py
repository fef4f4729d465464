"""`habeas request`: a request of a data subject, sent as a platform service would send it."""

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import click

from habeas.cli.connection import private, run
from habeas.cli.local_fleet import FleetOption
from habeas.cli.output import AS_JSON, say, write_json
from habeas.contracts.vocabulary import ErasureGround, Right

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from habeas.kit import Issuer

_KEY_BYTES: Final = 32
_LOOK_S: Final = 0.25


@click.group(name="request")
def request() -> None:
    """Send requests of data subjects."""


@request.command(name="submit")
@click.argument("right", type=click.Choice([right.value for right in Right]))
@click.option("--account", required=True, help="The platform's own opaque id of the account.")
@click.option("--id", "request_id", type=click.UUID, help="The request's id; sending the same again changes nothing.")
@click.option("--country", help="Where the person lives, ISO 3166-1, such as DE: decides which law applies.")
@click.option("--language", help="Language of answers, BCP 47, such as de; at most 75 characters.")
@click.option("--regime", help="The law to apply, instead of the country's.")
@click.option("--channel", default="command-line", show_default=True, help="Where the person asked.")
@click.option(
    "--ground", type=click.Choice([ground.value for ground in ErasureGround]), help="Of an erasure, Art. 17(1)."
)
@click.option("--category", multiple=True, help="Only these categories of the policy, at most 64; others are parked.")
@click.option("--purpose", multiple=True, help="Of an objection or a withdrawal: purposes of the policy, at most 64.")
@click.option("--details", help="The details as JSON, instead of the three before.")
@click.option("--issuer", help="Name of the platform service that vouches, as registered in the policy.")
@click.option("--key-id", help="Id of its key.")
@click.option(
    "--key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Its private Ed25519 key: PKCS #8 PEM, or 32 bytes in base64.",
)
@click.option("--wait", is_flag=True, help="Follow it until it is accepted or parked; needs --dsn.")
@click.option(
    "--wait-s",
    type=click.FloatRange(1, 86_400),
    default=60.0,
    show_default=True,
    help="How long --wait waits, in seconds.",
)
@click.option(
    "--dsn",
    cls=FleetOption,
    callback=private,
    envvar="HABEAS_OPERATOR_DATABASE_DSN",
    show_envvar=True,
    help="For --wait: the fleet's database, as a role that may read it (habeas_operator).",
)
@AS_JSON
def submit(  # noqa: PLR0913 -- one argument per option
    *,
    right: str,
    account: str,
    request_id: UUID | None,
    country: str | None,
    language: str | None,
    regime: str | None,
    channel: str,
    ground: str | None,
    category: tuple[str, ...],
    purpose: tuple[str, ...],
    details: str | None,
    issuer: str | None,
    key_id: str | None,
    key_file: Path | None,
    wait: bool,
    wait_s: float,
    dsn: str | None,
    as_json: bool,
) -> None:
    """Send a request to the fleet (HABEAS_KAFKA_…) and give its id.

    Without an issuer nobody vouches for the person: the request is accepted and waits for identity proof. With --wait, exit code 1 when it
    was parked, or nobody took it in time.
    """
    if wait and dsn is None:
        raise click.UsageError("--wait looks into the fleet's database: give --dsn or HABEAS_OPERATOR_DATABASE_DSN")
    vouching = _issuer(issuer, key_id, key_file)
    parts = {
        "account_id": account,
        "request_id": request_id,
        "country": country,
        "language": language,
        "regime": regime,
        "channel": channel,
        "details": _details(Right(right), ground, category, purpose, details),
    }
    sent, place = run(_send(Right(right), vouching, parts))
    if not as_json:
        say(str(sent))
    became = run(_follow(dsn, sent, place, wait_s)) if wait and dsn is not None else None
    if as_json:
        write_json({"request_id": sent} | (became or {}))
    elif became is not None:
        say(_said(became))
    if became is not None and became["submission"] != "accepted":
        raise SystemExit(1)


async def _follow(dsn: str, request_id: UUID, place: tuple[str, int, int], limit_s: float) -> dict[str, Any]:
    """Give what became of a submission at its place in Kafka: accepted, parked, or still waiting at the limit."""
    from habeas.chassis.clock import SystemClock
    from habeas.cli import store
    from habeas.cli.connection import connected

    clock = SystemClock()
    end = clock.monotonic() + limit_s
    async with connected(dsn) as conn:
        while True:
            found = await store.find_submission(conn, place)
            if found["state"] in {"parked", "resolved"}:
                named = {name: found[name] for name in ("reason", "field")}
                return {"submission": found["state"], "message": f"request-intake/{found['inbox_id']}", **named}
            request = await store.find_request(conn, request_id) if found["is_taken"] else None
            if request is not None and found["state"] is None:
                return {"submission": "accepted", **{name: request[name] for name in ("state", "regime", "due_on")}}
            if clock.monotonic() > end:
                return {"submission": "waiting"}
            await asyncio.sleep(_LOOK_S)


def _said(became: dict[str, Any]) -> str:
    """Say what became of it, and what to do next."""
    match became["submission"]:
        case "accepted":
            return f"accepted: {became['state']}, due on {became['due_on']}"
        case "waiting":
            return "nobody has taken it yet: look at `habeas status`"
        case _:
            why = " ".join(filter(None, (became["reason"], became["field"])))
            return f"{became['submission']}: {why}; see `habeas parked show {became['message']}`"


async def _send(right: Right, issuer: "Issuer | None", parts: dict[str, Any]) -> tuple[UUID, tuple[str, int, int]]:
    from aiokafka.errors import KafkaError
    from pydantic import ValidationError

    from habeas.cli.brokers import client_options, why
    from habeas.kit import Publisher

    options = client_options()
    bootstrap = options.pop("bootstrap_servers")
    source = "habeas-cli" if issuer is None else issuer.name
    publisher = Publisher(bootstrap, source=source, issuer=issuer, kafka=options)
    try:
        async with publisher:
            sent = await publisher.request(right, **parts)
    except ValidationError as error:
        wrong = sorted({".".join(str(part) for part in each["loc"]) or "details" for each in error.errors()})
        raise click.UsageError(f"the request is not right in: {', '.join(wrong)}") from None
    except (KafkaError, OSError, TimeoutError) as error:
        raise click.ClickException(f"Kafka did not take the request: {await why(error)}") from None
    finally:
        await publisher.__aexit__(None, None, None)  # entering may have failed half way, which leaves a producer open
    assert publisher.place is not None  # noqa: S101 -- for mypy: one was sent
    return sent, publisher.place


def _details(
    right: Right, ground: str | None, categories: tuple[str, ...], purposes: tuple[str, ...], given: str | None
) -> dict[str, Any] | None:
    """Give the details of the right, from JSON or from the options that belong to it."""
    if given is not None:
        if ground or categories or purposes:
            raise click.UsageError("give either --details or the single options")
        try:
            parsed = json.loads(given)
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            raise click.UsageError("--details is not a JSON object")
        return parsed
    if right is Right.ERASURE and ground is None:
        raise click.UsageError("an erasure needs its --ground")
    parts: dict[str, Any] = {}
    if ground:
        parts["ground"] = ground
    if categories:
        parts["categories"] = list(categories)
    if purposes:
        parts["purposes"] = list(purposes)
    return parts or None


def _issuer(name: str | None, key_id: str | None, key_file: Path | None) -> "Issuer | None":
    from habeas.kit import Issuer

    if name is None and key_id is None and key_file is None:
        return None
    if name is None or key_id is None or key_file is None:
        raise click.UsageError("--issuer, --key-id and --key-file go together")
    return Issuer(name, key_id, _private_key(key_file))


def _private_key(file: Path) -> "Ed25519PrivateKey":
    from base64 import b64decode

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    raw = file.read_bytes()
    try:
        if raw.lstrip().startswith(b"-----BEGIN"):
            key = load_pem_private_key(raw, None)
            if isinstance(key, Ed25519PrivateKey):
                return key
        else:
            seed = b64decode(raw.strip(), validate=True)
            if len(seed) == _KEY_BYTES:
                return Ed25519PrivateKey.from_private_bytes(seed)
    except (TypeError, ValueError):
        pass
    raise click.UsageError(f"{file} holds no Ed25519 private key")
