"""What a handler gets: several messages of one type, in order per key."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Generic, TypeVar, cast

from habeas.chassis import cause
from habeas.chassis.errors import Poison
from habeas.chassis.message import Defect, Message
from habeas.contracts.model import Event
from habeas.contracts.vocabulary import ParkReason

E = TypeVar("E", bound=Event)
K = TypeVar("K")
V = TypeVar("V")


class Batch(Generic[E]):
    """Messages of one type. Iterating marks the current message, so that what is emitted takes its trace and a fault is laid on it."""

    def __init__(self, messages: Sequence[Message], traces: Mapping[int, str | None]) -> None:
        self.rejected: dict[int, Defect] = {}
        self.current: Message | None = None
        self._messages = messages
        self._traces = traces

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[E]:
        for message in self._messages:
            if message.inbox_id in self.rejected:
                continue
            self.current = message
            before = cause.become(self._traces.get(message.inbox_id))
            try:
                yield cast("E", message.event)  # the worker groups by type
            finally:
                cause.go_back(before)
        self.current = None

    @property
    def trace(self) -> str | None:
        """Give the current message's trace parent, to be stored with rows that sweeps will work on."""
        return None if self.current is None else self._traces.get(self.current.inbox_id)

    @property
    def is_rejected(self) -> bool:
        """Answer whether the current message was rejected."""
        return self.current is not None and self.current.inbox_id in self.rejected

    @property
    def value(self) -> bytes:
        """Give the current message's value as it came, for signatures that cover it."""
        if self.current is None:
            message = "value belongs inside the iteration over the batch"
            raise RuntimeError(message)
        return self.current.value

    def field(self, name: str) -> list[object]:
        """Give one field of every message that is not rejected, for a set-based statement."""
        return [getattr(message.event, name) for message in self._messages if message.inbox_id not in self.rejected]

    def reject(self, reason: ParkReason, field: str) -> None:
        """Park the current message; the others go on. The caller must not act on it any more."""
        if self.current is None:
            message = "reject belongs inside the iteration over the batch"
            raise RuntimeError(message)
        self.rejected[self.current.inbox_id] = Defect(reason, field)

    def require(self, found: Mapping[K, V], key: K, *, unknown: str) -> V:
        """Give what belongs to the current message; without it the message is poison and the batch runs again without it."""
        try:
            return found[key]
        except KeyError:
            raise Poison(ParkReason.UNKNOWN_REFERENCE, unknown) from None
