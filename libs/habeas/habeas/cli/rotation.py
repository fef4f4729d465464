"""`habeas keys rotate`: a new key takes over from the one that wraps all others, while the fleet runs."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from habeas.cli.connection import ADMIN_DSN, Connection, run
from habeas.cli.output import AS_JSON, say, write_json

if TYPE_CHECKING:
    from habeas.sealing.kek import KeyRing, RingTokens

_KEYS_MAX: Final = 1_000
_PAUSE_S: Final = 0.2
_WAITS_MAX: Final = 300
_OWNER: Final = "erasure-executor"  # which alone may destroy keys, and has the rotation in its part of the log


@click.command(name="rotate")
@click.option(
    "--kek-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="HABEAS_KEK_FILE",
    show_envvar=True,
    required=True,
    help="The fleet's key ring, which is written anew.",
)
@ADMIN_DSN
@click.option(
    "--step", is_flag=True, help="Only the next of the three steps, for services that have copies of the ring."
)
@AS_JSON
def rotate(kek_file: Path, dsn: str, *, step: bool, as_json: bool) -> None:
    """Let a new key wrap all others, wrap anew what the old one wrapped, and take the old one out of the ring.

    Services that share the file follow by themselves; none has to stop. Run it again when it was interrupted. Where services have
    copies of the ring, or read it from a variable, give --step, hand the ring out after each step (and restart services that read
    a variable), and run it again. The old key is kept in KEK_FILE.retired, for backups that were made before.
    """
    done = run(_rotate(dsn, kek_file, one_step=step, tell=(lambda _: None) if as_json else say))
    if as_json:
        write_json(done)


async def _rotate(dsn: str, file: Path, *, one_step: bool, tell: Callable[[str], None]) -> dict[str, Any]:
    from habeas.cli import store
    from habeas.cli.connection import connected
    from habeas.sealing.kek import KeyRing
    from habeas.sealing.rotation import Stage, announce, promote, retire, stage_of

    moved = 0
    async with connected(dsn, store.schema_of(_OWNER), writes=True) as conn:
        if not await store.take_rotation(conn):
            raise click.ClickException("somebody else is rotating keys")
        while True:
            ring = _read(file)
            stage = stage_of(ring)
            match stage:
                case Stage.AT_REST:
                    _write(file, announce(ring))
                    tell("step 1 of 3: the ring holds a new key, which only unwraps yet")
                case Stage.ANNOUNCED:
                    await _refuse_unknown(conn, KeyRing(ring.text()))
                    _write(file, promote(ring))
                    tell("step 2 of 3: the new key wraps, the old one only unwraps")
                case Stage.CHANGING:
                    moved = await _change(conn, KeyRing(ring.text()))
                    _keep(file, ring)
                    _write(file, retire(ring))
                    tell(f"step 3 of 3: {moved} keys are wrapped anew, and nothing by the old key, which left the ring")
                    tell(
                        f"{_retired(file)} has the old key, for backups of before: move it offline, delete it with them"
                    )
            if one_step or stage is Stage.CHANGING:
                break
    if one_step and stage is not Stage.CHANGING:
        tell("hand the ring out to every service, then run this again")
    after = _read(file)
    return {"stage": stage_of(after), "kek_id": KeyRing(after.text()).kek_id, "moved": moved}


async def _refuse_unknown(conn: Connection, kek: "KeyRing") -> None:
    """Raise ClickException when something is wrapped by a key that the ring does not have: it could never be wrapped anew."""
    from habeas.sealing.rotation import SUBJECT_KEYS

    for keys in (SUBJECT_KEYS, _campaign_keys()):
        lost = {row["kek_id"]: row["keys"] for row in await conn.fetch(keys.tally) if row["kek_id"] not in kek.kek_ids}
        if lost:
            raise click.ClickException(
                f"{sum(lost.values())} keys in {keys.table} are wrapped by KEK {', '.join(sorted(lost))}, which is not in"
                " this ring: bring the ring that has it"
            )


async def _change(conn: Connection, kek: "KeyRing") -> int:
    """Wrap everything by the first key and retire the others, in a transaction that no writer of wrapped keys can overlap."""
    from habeas.sealing.rotation import SUBJECT_KEYS

    await _refuse_unknown(conn, kek)
    moved = 0
    for _ in range(_WAITS_MAX):
        broken = 0
        for keys in (SUBJECT_KEYS, _campaign_keys()):
            wrapped, left = await _rewrap_all(conn, kek, keys)
            moved, broken = moved + wrapped, broken + left
        if broken:
            raise click.ClickException(
                f"{broken} wrapped keys do not unwrap, they were altered; {moved} others are wrapped anew, and the old key stays"
            )
        if await _retire(conn, kek, moved):
            return moved
        await asyncio.sleep(_PAUSE_S)
    raise click.ClickException(
        f"{moved} keys are wrapped anew, but somebody still writes keys by the old one: hand the ring out, then run this again"
    )


async def _rewrap_all(conn: Connection, kek: "KeyRing", keys: Any) -> tuple[int, int]:  # noqa: ANN401 -- imported late
    """Go once over all keys, a page in a transaction; gives how many were moved, and how many do not unwrap."""
    from habeas.sealing.rotation import FIRST, rewrap

    moved = broken = 0
    place = FIRST
    while True:
        async with conn.transaction():
            page = await rewrap(conn, keys, kek, kek.kek_id, place, _KEYS_MAX)
        moved, broken = moved + page.moved, broken + page.broken
        if page.last is None:
            return moved, broken
        place = page.last


async def _retire(conn: Connection, kek: "KeyRing", moved: int) -> bool:
    """Retire all KEKs but the first, on record; False when somebody wrote by one of them meanwhile, or is at it."""
    import asyncpg

    from habeas.cli import store
    from habeas.cli.audited import add
    from habeas.contracts.audit import Action, AuditFact
    from habeas.sealing.rotation import retire_keks

    try:
        async with conn.transaction():
            await store.shut_out_wrapping(conn)
            if await store.has_keys_of_others(conn, kek.kek_id):
                return False
            await retire_keks(conn, kek.kek_ids[1:])
            await add(conn, AuditFact(Action.KEYS_ROTATED, count=moved))
    except asyncpg.LockNotAvailableError:
        return False
    return True


def _campaign_keys() -> Any:  # noqa: ANN401 -- imported late
    from habeas.cli import store
    from habeas.sealing.rotation import WrappedKeys

    return WrappedKeys(
        "notification_mailer.campaigns",
        store.LOCK_CAMPAIGN_KEYS,
        store.REWRAP_CAMPAIGN_KEYS,
        store.COUNT_CAMPAIGN_KEYS,
    )


def _read(file: Path) -> "RingTokens":
    from habeas.sealing.errors import KekMissing
    from habeas.sealing.kek import RingTokens, read_ring

    try:
        return RingTokens.parse(read_ring(file))
    except KekMissing as error:
        raise click.UsageError(f"{file}: {error}") from None


def _write(file: Path, ring: "RingTokens") -> None:
    from habeas.sealing.kek import replace_ring

    try:
        replace_ring(file, ring.text())
    except OSError as error:
        raise click.ClickException(f"{file} cannot be replaced: {error.strerror}") from None


def _keep(file: Path, ring: "RingTokens") -> None:
    """Put the keys that leave the ring into a file beside it, each once."""
    from habeas.sealing.private_file import open_private

    target = _retired(file)
    kept = target.read_text(encoding="ascii").split() if target.exists() else []
    leaving = [f"wrap={key}" for key in ring.wrap[1:] if f"wrap={key}" not in kept]
    try:
        with open(target, "a", encoding="ascii", opener=open_private) as out:
            out.writelines(f"{line}\n" for line in leaving)
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise click.ClickException(f"{target} cannot be written: {error.strerror}; nothing left the ring") from None


def _retired(file: Path) -> Path:
    return file.with_name(f"{file.name}.retired")
