"""Building artefacts: rows out of the stores, one encrypted ZIP for each export."""

import asyncio
import hashlib
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, cast
from uuid import UUID

from typing_extensions import override

from export_builder.gateways.archive import Archive, Form, json_of
from habeas.chassis import crash
from habeas.chassis.crash import Point
from habeas.contracts.outcomes import ExportedTable
from habeas.datamap.policy import Policy
from habeas.datamap.postgres import PostgresStore
from habeas.datamap.sheet import information_sheet
from habeas.sealing.artefact import ArtefactCipher

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

    def __init__(self, stores: Sequence[PostgresStore], vault: Vault, policy: Policy) -> None:
        self._stores = stores
        self._vault = vault
        self._sheet = json_of(information_sheet(policy))

    async def build(self, orders: Sequence[Order], *, portable_only: bool) -> dict[UUID, Built]:
        """Build all artefacts of a batch: one statement per table for all of them. Raises ``StoreError``.

        Memory is bounded whatever the rows: they go into the archives as they come.
        """
        secrets = {order.export_id: ArtefactCipher.new_key() for order in orders}
        archives: dict[UUID, Archive] = {}
        with ExitStack() as on_error:
            for order in orders:
                archive = Archive(self._vault.path(order), secrets[order.export_id], order.export_id)
                on_error.callback(archive.abort)
                archives[order.export_id] = archive
            by_account: dict[str, list[Archive]] = {}
            for order in orders:
                by_account.setdefault(order.account_id, []).append(archives[order.export_id])
            for store in self._stores:
                await self._read(store, by_account, list(archives.values()), portable_only=portable_only)
            crash.at(Point.ARTEFACTS_BEGUN)
            built = await asyncio.to_thread(self._finish, orders, archives, secrets)
            on_error.pop_all()
        return built

    async def _read(
        self,
        store: PostgresStore,
        by_account: Mapping[str, Sequence[Archive]],
        archives: Sequence[Archive],
        *,
        portable_only: bool,
    ) -> None:
        """Take one store's rows; every source is named in every archive, also where it holds nothing of a person."""
        forms = {source.table: Form(store.name, source) for source in await store.sources(portable_only=portable_only)}
        for archive in archives:
            for form in forms.values():
                archive.expect(form)
        async with aclosing(store.export(list(by_account), portable_only=portable_only)) as pieces:
            async for piece in pieces:
                for archive in by_account[piece.account_id]:
                    archive.add(forms[piece.source.table], piece.lines)
                    if archive.is_full:
                        await asyncio.to_thread(archive.write_out)

    def _finish(
        self, orders: Sequence[Order], archives: Mapping[UUID, Archive], secrets: Mapping[UUID, bytes]
    ) -> dict[UUID, Built]:
        """Close every archive and read each back: it must open with its key and hold what was written."""
        built = {}
        for order in orders:
            archive = archives[order.export_id]
            tables = archive.close(order.request_id, self._sheet)
            secret = secrets[order.export_id]
            size, sha256 = _read_back(self._vault.path(order), secret, order.export_id, archive.plain_sha256)
            built[order.export_id] = Built(secret, size, sha256, tables)
            crash.at(Point.ARTEFACT_WRITTEN)
        self._vault.settle()
        return built


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


def _read_back(path: Path, secret: bytes, export_id: UUID, plain_sha256: str) -> tuple[int, str]:
    """Open what was written as whoever gets it will; gives size and SHA-256 of the ciphertext."""
    plain = hashlib.sha256()
    with path.open("rb") as file:
        hashing = _Hashing(file)
        with ArtefactCipher.decrypting_reader(cast("BinaryIO", hashing), secret, export_id.bytes) as reader:
            while chunk := reader.read(_CHUNK_BYTES):
                plain.update(chunk)
    if plain.hexdigest() != plain_sha256:
        message = "an artefact does not hold what was written into it"
        raise OSError(message)
    return hashing.size, hashing.digest.hexdigest()
