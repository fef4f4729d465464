"""What audit-ledger reaches outside of its database: the log's directory, its private key, and the sequencer's seat."""

import asyncio
import os
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import asyncpg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typing_extensions import override

from audit_ledger import store
from audit_ledger.errors import SigningKeyMissing
from habeas.auditlog.checkpoint import Checkpoint, open_checkpoint
from habeas.auditlog.errors import AuditLogError, BadNote, BadTile
from habeas.auditlog.notes import ED25519, KEY_BYTES, PRIVATE_KEY, Signer, Verifier, decode_base64, encode_private_key
from habeas.auditlog.publish import drop_partial_tiles, write_checkpoint, write_tiles
from habeas.auditlog.tiles import CHECKPOINT, TilePath
from habeas.chassis import crash, log
from habeas.chassis.crash import Point
from habeas.chassis.database import TRANSIENT, Database
from habeas.chassis.errors import Invariant
from habeas.chassis.settings import LogLevel
from habeas.sealing.private_file import open_private

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

VKEY: Final = "vkey"
_ACQUIRE_S: Final = 10.0


class LogDirectory:
    """The published log. Files appear whole; the checkpoint comes last, so a reader never meets one without its tiles."""

    def __init__(self, path: Path, verifier: Verifier) -> None:
        self._path = path
        self._verifier = verifier

    async def prepare(self, _: Database) -> None:
        """Make the directory and put the public key there. Raises ``Invariant`` when it belongs to a log of another key."""
        await asyncio.to_thread(self._prepare)

    async def checkpoint(self) -> Checkpoint | None:
        """Read what is published; None when nothing is. Raises ``Invariant`` when it is not ours."""
        return await asyncio.to_thread(self._checkpoint)

    async def write(self, files: Sequence[tuple[TilePath, bytes]]) -> None:
        """Write tiles and bundles. Raises ``Invariant`` when one is published with other bytes, ``OSError`` for a full disk."""
        try:
            await asyncio.to_thread(self._write, files)
        except BadTile as error:
            raise Invariant("what is published is not what the database holds; the log must not fork") from error

    async def finish(self, note: bytes, full: Iterable[TilePath]) -> None:
        """Put the checkpoint in place, then drop the partial versions of tiles that are full now.

        A larger one that another replica published while this one stood still stays.
        """
        if await asyncio.to_thread(self._is_due, note):
            await asyncio.to_thread(write_checkpoint, self._path, note)
        crash.at(Point.CHECKPOINT_WRITTEN)
        await asyncio.to_thread(drop_partial_tiles, self._path, full)
        crash.at(Point.LOG_PUBLISHED)

    def _write(self, files: Sequence[tuple[TilePath, bytes]]) -> None:
        for file in files:
            write_tiles(self._path, [file])
            crash.at(Point.TILE_WRITTEN)

    def _prepare(self) -> None:
        self._path.mkdir(parents=True, exist_ok=True)
        target = self._path / VKEY
        text = f"{self._verifier.vkey}\n"
        if target.exists():
            if target.read_text(encoding="utf-8") != text:
                raise Invariant("the log's directory belongs to another key; give the right one back")
            return
        draft = self._path / f".{VKEY}.{secrets.token_hex(8)}.draft"  # replicas may start together
        draft.write_text(text, encoding="utf-8")
        draft.chmod(0o644)
        draft.replace(target)

    def _is_due(self, note: bytes) -> bool:
        published = self._checkpoint()
        return published is None or published.size <= open_checkpoint(note, self._verifier).size

    def _checkpoint(self) -> Checkpoint | None:
        try:
            raw = (self._path / CHECKPOINT).read_bytes()
        except FileNotFoundError:
            return None
        try:
            return open_checkpoint(raw, self._verifier)
        except AuditLogError as error:
            raise Invariant(
                "the published checkpoint is not signed by this log's key; the log must not fork"
            ) from error


class Seat:
    """The one sequencer's place: a session-level advisory lock, on a connection that does nothing else.

    It keeps a second replica idle. What keeps two from forking the log is the head's row, which moves by compare and swap. The server ends
    the session of a sequencer that says nothing for as long as a lease, so one that stands still does not hold the log up.
    """

    def __init__(self, lease_s: float = 15.0) -> None:
        self._lease_s = lease_s
        self._connection: PoolConnectionProxy[asyncpg.Record] | None = None
        self._asking = asyncio.Lock()

    @property
    def held(self) -> bool:
        """Whether the seat was ours when we last asked."""
        try:
            return self._connection is not None and not self._connection.is_closed()
        except asyncpg.InterfaceError:  # the pool has taken back what is dead
            return False

    async def take(self, database: Database) -> bool:
        """Sit down, or stay seated; False while another replica sits there."""
        async with self._asking:
            if await self._still():
                return True
            connection = await database.pool.acquire(timeout=_ACQUIRE_S)
            try:
                if await connection.fetchval(store.TAKE_SEAT, store.SEAT):
                    await connection.fetchval(store.KEEP_SEAT, str(int(self._lease_s * 1000)))
                    self._connection = connection
                    log.event("ledger.seat_taken")
                    return True
            finally:
                if self._connection is not connection:
                    await database.pool.release(connection)
            return False

    async def keep(self) -> None:
        """Give the server a sign of life; several are due in a lease. Whoever has no seat does nothing."""
        async with self._asking:
            await self._still()

    async def leave(self) -> None:
        """Give the seat back; ending the session is what frees the lock."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(asyncpg.InterfaceError):  # the pool has taken back what is dead
                connection.terminate()

    async def _still(self) -> bool:
        if self._connection is None:
            return False
        try:
            return bool(await self._connection.fetchval(store.CHECK_SEAT))
        except (*TRANSIENT, asyncpg.PostgresError) as error:
            log.event("ledger.seat_lost", severity=LogLevel.WARNING, error=error)
            await self.leave()
            return False


class NothingSealed:
    """The protection of a service that takes no sensitive message: it has no key, so it refuses."""

    def seal(self, value: bytes, aad: bytes) -> bytes:
        """Refuse."""
        _refuse(value, aad)

    def open(self, value: bytes, aad: bytes) -> bytes:
        """Refuse."""
        _refuse(value, aad)

    def fingerprint(self, value: bytes) -> bytes:
        """Refuse."""
        _refuse(value, b"")

    @override
    def __repr__(self) -> str:
        return "<NothingSealed>"


def open_signer(path: Path, origin: str, *, create: bool) -> Signer:
    """Read the log's private key; with ``create`` make one when there is no file.

    The file holds one line as Go's note package writes it: ``PRIVATE+KEY+<name>+<8 hex key id>+<base64 of type byte || seed>``.
    Raises ``SigningKeyMissing`` when it is absent, open to others, no such line, or the key of another log.
    """
    if create and not path.exists():
        _create_key(path, origin)
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SigningKeyMissing(f"no readable signing key in the file given ({type(error).__name__})") from None
    if mode & 0o077:
        raise SigningKeyMissing("the signing key's file is open to others than its owner; set mode 0600")
    return _parse_key(text, origin)


def _parse_key(text: str, origin: str) -> Signer:
    name, _, rest = text.removeprefix(PRIVATE_KEY).partition("+")
    key_id, _, encoded = rest.partition("+")
    try:
        raw = decode_base64(encoded)
    except BadNote:
        raw = b""
    if not text.startswith(PRIVATE_KEY) or len(raw) != 1 + KEY_BYTES or raw[:1] != ED25519:
        raise SigningKeyMissing("the signing key's file holds no Ed25519 key in the format of signed notes")
    if name != origin:
        raise SigningKeyMissing("the signing key belongs to a log of another name; set AUDIT_LEDGER_ORIGIN to that")
    signer = Signer(name, Ed25519PrivateKey.from_private_bytes(raw[1:]))
    if signer.verifier.key_id.hex() != key_id:
        raise SigningKeyMissing("the signing key has another key id than its file says")
    return signer


def _create_key(path: Path, origin: str) -> None:
    """Write a new key, mode 0600; of two first starts one wins."""
    text = encode_private_key(origin, secrets.token_bytes(KEY_BYTES))
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with open(draft, "x", encoding="ascii", opener=open_private) as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        path.hardlink_to(draft)  # appears whole or not at all, and never replaces
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _refuse(_value: bytes, _aad: bytes) -> NoReturn:
    raise Invariant("audit-ledger takes no sensitive message and holds no key for one")
