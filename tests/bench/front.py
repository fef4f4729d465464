"""Stands before Kafka, forwards everything unchanged, and counts requests by client and API as they go by."""

import asyncio
import struct
from collections import Counter
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from habeas_embedded.ports import LOOPBACK

_CHUNK_BYTES: Final = 65_536
_SIZE: Final = struct.Struct(">i")
_HEADER: Final = struct.Struct(">hhih")  # API, version, correlation id, length of the client id (−1: none)
_APIS: Final = {  # https://kafka.apache.org/protocol.html#protocol_api_keys
    0: "Produce",
    1: "Fetch",
    2: "ListOffsets",
    3: "Metadata",
    8: "OffsetCommit",
    9: "OffsetFetch",
    10: "FindCoordinator",
    11: "JoinGroup",
    12: "Heartbeat",
    13: "LeaveGroup",
    14: "SyncGroup",
    15: "DescribeGroups",
    16: "ListGroups",
    18: "ApiVersions",
    19: "CreateTopics",
    20: "DeleteTopics",
    21: "DeleteRecords",
    22: "InitProducerId",
    23: "OffsetForLeaderEpoch",
    24: "AddPartitionsToTxn",
    25: "AddOffsetsToTxn",
    26: "EndTxn",
    28: "TxnOffsetCommit",
    32: "DescribeConfigs",
    33: "AlterConfigs",
    37: "CreatePartitions",
    44: "IncrementalAlterConfigs",
    60: "DescribeCluster",
    68: "ConsumerGroupHeartbeat",
}


class Front:
    """Listens at the front port of a Kafka node (see KafkaServer) and forwards to it; an async context manager.

    `requests` counts each request by client id and name of the API; whoever reads it may clear it at any time.
    """

    def __init__(self, port: int, behind: str) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        self._port = port
        self._host, _, self._behind_port = behind.rpartition(":")
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "asyncio serves each connection in a task of its own"
        self._tasks.add(task)
        ends = [writer]
        try:
            answers, requests = await asyncio.open_connection(self._host, int(self._behind_port))
            ends.append(requests)
            await asyncio.gather(self._count(reader, requests), _pump(answers, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass  # one side left: so does the other
        except asyncio.CancelledError:
            pass  # we are closing; asyncio's own callback would print the cancelled task
        finally:
            self._tasks.discard(task)
            for end in ends:
                end.transport.abort()

    async def _count(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward request by request until the client leaves."""
        while True:
            size = await reader.readexactly(_SIZE.size)
            request = await reader.readexactly(*_SIZE.unpack(size))
            self.requests[_cause(request)] += 1
            writer.writelines((size, request))
            await writer.drain()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


def _cause(request: bytes) -> tuple[str, str]:
    """Return client id and name of the API; every version of a request's header begins alike."""
    api, _, _, length = _HEADER.unpack_from(request)
    client = request[_HEADER.size : _HEADER.size + max(length, 0)].decode(errors="replace")
    return client or "(no name)", _APIS.get(api, f"API {api}")
