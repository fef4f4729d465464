"""Three kinds of failure, three meanings.

::

    Exception
    ├── Retry       the world is not ready: the same message again, later
    ├── Poison      the message is wrong: parked at once, an operator decides
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


class Invariant(Exception):
    """Something that cannot be is; the process stops so that nothing is built upon it."""
