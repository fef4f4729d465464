"""Kinds of failure and their meanings.

::

    Exception
    ├── Retry       the world is not ready: the same message again, later
    ├── Poison      the message is wrong: parked at once, an operator decides
    ├── EventTooLarge    what is to be told does not fit: the one item it is about fails alone
    └── Invariant   the program is wrong: the process stops before it does harm
"""

from habeas.contracts.vocabulary import ParkReason


class Retry(Exception):
    """Try the current message again with backoff; later messages of its key wait."""

    def __init__(self, because: str) -> None:
        """Give a short reason from a closed set of words; it is stored and shown."""
        super().__init__(because)
        self.because = because


class Poison(Exception):
    """Park the current message; ``field`` names what is wrong, never its value."""

    def __init__(self, reason: ParkReason, field: str) -> None:
        super().__init__(f"{reason}: {field}")
        self.reason = reason
        self.field = field


class EventTooLarge(Exception):
    """An event is larger than a record may be; nothing of it was emitted.

    It is the fault of one item, such as a row that an earlier version took: it fails with its reason, and all others go on.
    """

    def __init__(self, type_: str, size_bytes: int) -> None:
        super().__init__(f"an event of type {type_} has {size_bytes} bytes, more than a record may hold")


class Invariant(Exception):
    """Something that cannot be is; the process stops so that nothing is built upon it."""
