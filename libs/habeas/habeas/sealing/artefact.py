"""Encrypt and decrypt artefacts of any size in constant memory: Tink's streaming AEAD, AES256_GCM_HKDF.

Every artefact has 32 random bytes of its own, kept as text sealed under the subject's data key. Anyone who is given
those bytes can read the artefact with Tink in any language; the keyset is one enabled key, output prefix RAW, of type
`type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey` with

    key_value = the 32 bytes, derived_key_size = 32, hkdf_hash_type = SHA256, ciphertext_segment_size = 65536

`keyset_json` writes that keyset in Tink's JSON form, ready for `tinkey`, Go, Java or C++. The associated data of an export are the
16 bytes of its id (RFC 9562, section 4: network order).
"""

import io
import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, BinaryIO, Final, Self, cast

import tink
from tink import json_proto_keyset_format, proto_keyset_format, secret_key_access, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2, tink_pb2
from typing_extensions import override

from habeas.sealing.errors import SealBroken
from habeas.sealing.keys import KEY_BYTES
from habeas.sealing.private_file import open_private

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

SEGMENT_BYTES: Final = (
    64 * 1024
)  # Tink fills buffers of this size for each stream; with a mebibyte a small artefact takes three times as long
KEY_ID: Final = 1
TYPE_URL: Final = "type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey"

streaming_aead.register()


class ArtefactCipher:
    """Opens writers and readers; holds nothing."""

    @staticmethod
    def new_key() -> bytes:
        """32 random bytes for one artefact; seal them before they are stored."""
        return secrets.token_bytes(KEY_BYTES)

    @staticmethod
    def encrypting_writer(target: Path | BinaryIO, key: bytes, aad: bytes) -> "ArtefactWriter":
        """Start to write an artefact.

        A path gets the artefact (mode 0600, synced) only when the writer is closed without an error; a file object is
        left open.
        """
        return ArtefactWriter(target, key, aad)

    @staticmethod
    def decrypting_reader(source: Path | BinaryIO, key: bytes, aad: bytes) -> "ArtefactReader":
        """Start to read an artefact; `aad` must be the writer's."""
        return ArtefactReader(source, key, aad)


class ArtefactWriter:
    """Takes plain bytes, writes ciphertext; complete only after `close`, worthless after `abort`."""

    def __init__(self, target: Path | BinaryIO, key: bytes, aad: bytes) -> None:
        """Open the draft beside the path, or write into the file object."""
        self._path: Path | None = None
        self._draft: Path | None = None
        file: IO[bytes]
        if isinstance(target, Path):
            self._path = target
            self._draft = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
            file = open(self._draft, "xb", opener=open_private)  # noqa: SIM115 - closed by close or abort
        else:
            file = target
        self._sink = _Sink(file)
        self._stream = _primitive(key).new_encrypting_stream(cast("BinaryIO", self._sink), aad)

    def write(self, data: bytes | memoryview) -> int:
        """Encrypt all of the bytes; return their number."""
        view = memoryview(data)
        done = 0
        while done < len(view):
            done += self._stream.write(view[done:])
        return done

    def close(self) -> None:
        """Write the last segment and put the file at its path; idempotent."""
        if self._sink.shut:
            return
        try:
            self._stream.close()
            self._sink.shut = True
            if self._draft is not None and self._path is not None:
                self._sink.file.flush()
                os.fsync(self._sink.file.fileno())
                self._sink.file.close()
                self._draft.replace(self._path)
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Give up: the path is left as it was; what went into a file object lacks its end and stays unreadable.

        Idempotent.
        """
        self._sink.shut = True  # closing Tink's stream, now or by the garbage collector, must not complete the artefact
        self._stream.close()
        if self._draft is not None:
            self._sink.file.close()
            self._draft.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close after success, abort after an error."""
        if kind is None:
            self.close()
        elif not self._sink.shut:
            self.abort()


class ArtefactReader(io.RawIOBase):
    """Reads plain bytes; every byte it returns was authenticated.

    SealBroken on alteration, wrong key or `aad`, and on a cut end.
    """

    def __init__(self, source: Path | BinaryIO, key: bytes, aad: bytes) -> None:
        """Open the path, or read from the file object, which is left open."""
        super().__init__()
        self._owned: IO[bytes] | None = source.open("rb") if isinstance(source, Path) else None
        file = self._owned or source
        self._stream = _primitive(key).new_decrypting_stream(_Source(cast("BinaryIO", file)), aad)

    @override
    def readable(self) -> bool:
        """Say yes."""
        return True

    @override
    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Fill the buffer with what is decrypted next; 0 at the authenticated end."""
        view = memoryview(buffer).cast("B")
        try:
            data = self._stream.read(len(view))
        except (tink.TinkError, ValueError):
            raise SealBroken("the artefact does not open: altered, cut, or of another key or place") from None
        view[: len(data)] = data
        return len(data)

    @override
    def close(self) -> None:
        """Close the file if the reader opened it; idempotent."""
        if not self.closed and self._owned is not None:
            self._owned.close()
        super().close()


def keyset_json(key: bytes) -> str:
    """Tink's JSON form of the artefact key's keyset, in clear: for another program that may read the artefact."""
    return cast("str", json_proto_keyset_format.serialize(_handle(key), secret_key_access.TOKEN))


class _Sink(io.RawIOBase):
    """Passes ciphertext on until it is shut, and never closes the file below."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self.file = file
        self.shut = False

    @override
    def writable(self) -> bool:
        return True

    @override
    def write(self, data: "ReadableBuffer", /) -> int:
        return memoryview(data).nbytes if self.shut else self.file.write(data)


class _Source(io.RawIOBase):
    """Reads from the file below and never closes it."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file

    @override
    def readable(self) -> bool:
        return True

    @override
    def read(self, size: int = -1, /) -> bytes:
        return self._file.read(size)


def _primitive(key: bytes) -> streaming_aead.StreamingAead:
    return _handle(key).primitive(streaming_aead.StreamingAead)


def _handle(key: bytes) -> tink.KeysetHandle:
    if len(key) != KEY_BYTES:
        raise ValueError(f"an artefact key has {KEY_BYTES} bytes, not {len(key)}")
    streaming_key = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(
        version=0,
        params=aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingParams(
            ciphertext_segment_size=SEGMENT_BYTES,
            derived_key_size=KEY_BYTES,
            hkdf_hash_type=common_pb2.SHA256,
        ),
        key_value=key,
    )
    keyset = tink_pb2.Keyset(primary_key_id=KEY_ID)
    keyset.key.add(
        key_data=tink_pb2.KeyData(
            type_url=TYPE_URL, value=streaming_key.SerializeToString(), key_material_type=tink_pb2.KeyData.SYMMETRIC
        ),
        status=tink_pb2.ENABLED,
        key_id=KEY_ID,
        output_prefix_type=tink_pb2.RAW,
    )
    return proto_keyset_format.parse(keyset.SerializeToString(), secret_key_access.TOKEN)
