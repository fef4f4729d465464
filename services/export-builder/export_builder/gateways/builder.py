"""Building artefacts: rows out of the stores, one encrypted ZIP for each export."""

import asyncio
import hashlib
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, aclosing, contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event
from typing import BinaryIO, Final, TypeVar, cast
from uuid import UUID

from typing_extensions import override

from export_builder.errors import ArtefactUnwritable, Stopped, TooLarge
from export_builder.gateways.archive import Archive, Form, json_of
from habeas.chassis import crash
from habeas.chassis.crash import Point
from habeas.contracts.outcomes import ExportedTable
from habeas.datamap.policy.model import Policy
from habeas.datamap.policy.sheet import information_sheet
from habeas.datamap.stores import Stores
from habeas.sealing import SealBroken
from habeas.sealing.artefact import ArtefactCipher

T = TypeVar("T")

_CHUNK_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Order:
    """One export to build; the account id is in clear here and nowhere else."""

    export_id: UUID
    attempt: int
    request_id: UUID
    account_id: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Built:
    """An artefact that was written and read back; ``size`` and ``sha256`` are those of its ciphertext."""

    secret: bytes = field(repr=False)
    size: int
    sha256: str
    tables: tuple[ExportedTable, ...]


class Vault:
    """The directory of artefacts, ``<export id>.<attempt>.zip.tink``; every replica sees the same one.

    Each attempt writes a file of its own, so that one which comes back late cannot take the place of the one that counts.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory

    def path(self, order: Order) -> Path:
        """Give where the artefact of an attempt is, or will be."""
        return self._path(order.export_id, order.attempt)

    async def discard(self, order: Order) -> None:
        """Delete what an attempt has written that does not count; nothing there is no error."""
        await asyncio.to_thread(self._delete, [self.path(order)])

    async def delete(self, export_id: UUID, attempts: int) -> None:
        """Delete the artefact of an export, with what attempts that died have left; nothing there is no error."""
        await asyncio.to_thread(self._delete, [self._path(export_id, attempt + 1) for attempt in range(attempts)])

    def settle(self) -> None:
        """Make the names of all files last that were put there before: a file is synced, its place in the directory is not."""
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _path(self, export_id: UUID, attempt: int) -> Path:
        return self._directory / f"{export_id}.{attempt}.zip.tink"

    def _delete(self, paths: Iterable[Path]) -> None:
        for path in paths:
            path.unlink(missing_ok=True)


class Builder:
    """Reads people's rows out of every store and writes one encrypted ZIP for each export."""

    def __init__(self, stores: Stores, vault: Vault, policy: Policy, rows_max: int | None = None) -> None:
        """``rows_max`` is how many rows each person may have in all stores together; None for any number."""
        self._stores = stores
        self._vault = vault
        self._rows_max = rows_max
        self._sheet = json_of(information_sheet(policy))

    async def build(self, orders: Sequence[Order], *, portable_only: bool) -> dict[UUID, Built]:
        """Build all artefacts of a batch: one statement per table for all of them.

        Raises ``StoreError``, ``TooLarge``, and ``ArtefactUnwritable`` with the export that could not be written; nothing of the batch
        stays then, nor after a cancellation. Memory is bounded whatever the number of rows, and packing begins when every store's
        snapshot is over.
        """
        stop = Event()
        secrets = {order.export_id: ArtefactCipher.new_key() for order in orders}
        archives: dict[UUID, Archive] = {}
        with ExitStack() as on_error:
            for order in orders:
                archive = Archive(self._vault.path(order), secrets[order.export_id], order.export_id, stop)
                on_error.callback(self._vault.path(order).unlink, missing_ok=True)
                on_error.callback(archive.abort)
                archives[order.export_id] = archive
            by_account: dict[str, list[UUID]] = {}
            for order in orders:
                by_account.setdefault(order.account_id, []).append(order.export_id)
            await self._read(by_account, archives, portable_only=portable_only)
            crash.at(Point.ARTEFACTS_BEGUN)
            built = await _to_its_end(partial(self._finish, orders, archives, secrets, stop), stop)
            on_error.pop_all()
        return built

    async def _read(
        self, by_account: Mapping[str, Sequence[UUID]], archives: Mapping[UUID, Archive], *, portable_only: bool
    ) -> None:
        """Take the rows of every store; every source is named in every archive, also where it holds nothing of a person."""
        sources = await self._stores.sources(portable_only=portable_only)
        forms = {(store, source.table): Form(store, source) for store, source in sources}
        for archive in archives.values():
            for form in forms.values():
                archive.expect(form)
        rows: Counter[str] = Counter()
        async with aclosing(self._stores.export(list(by_account), portable_only=portable_only)) as pieces:
            async for store, piece in pieces:
                rows[piece.account_id] += len(piece.rows)
                if self._rows_max is not None and rows[piece.account_id] > self._rows_max:
                    raise TooLarge
                for export_id in by_account[piece.account_id]:
                    archive = archives[export_id]
                    archive.add(forms[store, piece.source.table], piece.rows)
                    if archive.is_full:
                        await _to_its_end(partial(_spill, archive, export_id))

    def _finish(
        self, orders: Sequence[Order], archives: Mapping[UUID, Archive], secrets: Mapping[UUID, bytes], stop: Event
    ) -> dict[UUID, Built]:
        """Close every archive and read each back: it must open with its key and hold what was written."""
        built = {}
        for order in orders:
            if stop.is_set():
                raise Stopped
            archive = archives[order.export_id]
            secret = secrets[order.export_id]
            with _writing(order.export_id):
                tables = archive.close(order.request_id, self._sheet)
                size, sha256 = _read_back(self._vault.path(order), secret, order.export_id, archive.plain_sha256, stop)
            built[order.export_id] = Built(secret, size, sha256, tables)
            crash.at(Point.ARTEFACT_WRITTEN)
        self._vault.settle()
        return built


def _spill(archive: Archive, export_id: UUID) -> None:
    with _writing(export_id):
        archive.spill()


@contextmanager
def _writing(export_id: UUID) -> Iterator[None]:
    try:
        yield
    except (OSError, SealBroken) as error:
        raise ArtefactUnwritable(export_id) from error


async def _to_its_end(work: Callable[[], T], stop: Event | None = None) -> T:
    """Do the work in a thread. Who cancels it waits for its end, and sets ``stop``: nobody may take away what a thread works on."""
    running = asyncio.get_running_loop().run_in_executor(None, copy_context().run, work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if stop is not None:
            stop.set()
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # nobody asks any more what came of it
        raise


class _Hashing(io.RawIOBase):
    """Reads a file once for both: the cipher gets the bytes, and they are counted and hashed on the way."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self.digest = hashlib.sha256()
        self.size = 0
        self._file = file

    @override
    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        self.size += len(data)
        return data


def _read_back(path: Path, secret: bytes, export_id: UUID, plain_sha256: str, stop: Event) -> tuple[int, str]:
    """Open what was written as whoever gets it will; return size and SHA-256 of the ciphertext."""
    plain = hashlib.sha256()
    with path.open("rb") as file:
        hashing = _Hashing(file)
        with ArtefactCipher.decrypting_reader(cast("BinaryIO", hashing), secret, export_id.bytes) as reader:
            while chunk := reader.read(_CHUNK_BYTES):
                if stop.is_set():
                    raise Stopped
                plain.update(chunk)
    if plain.hexdigest() != plain_sha256:
        message = "an artefact does not hold what was written into it"
        raise OSError(message)
    return hashing.size, hashing.digest.hexdigest()
