"""What participants answer."""

from typing import Annotated, ClassVar, Final, Literal
from uuid import UUID

from pydantic import Field, StringConstraints

from habeas.contracts import topics
from habeas.contracts.model import CalendarDate, ConfigName, Event, Slug
from habeas.contracts.vocabulary import KeepGround

COUNTS_MAX: Final = 1000
"""How many tables one receipt may count."""


class ReceiptGiven(Event):
    """A participant's signed answer to one order."""

    topic = topics.RECEIPTS
    type: ClassVar[str] = "receipt.given"
    key_field: ClassVar[str] = "order_id"

    order_id: UUID
    participant: Slug
    outcome: Literal["done", "nothing_held", "kept", "failed"]
    ground: KeepGround | None = None
    until: CalendarDate | None = None
    counts: dict[ConfigName, Annotated[int, Field(ge=0, lt=2**63)]] = Field(default_factory=dict, max_length=COUNTS_MAX)
    signature: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_\-]{85}[AQgw]$")]


EVENTS: tuple[type[Event], ...] = (ReceiptGiven,)
