"""What audit-ledger tells: signed checkpoints, and producers whose entries do not fit."""

from typing import ClassVar, Literal

from pydantic import Field

from habeas.contracts import topics
from habeas.contracts.model import Event, Hex64, Instant, Slug


class CheckpointSigned(Event):
    """The log was signed at this size (C2SP tlog-checkpoint)."""

    topic = topics.CHECKPOINTS
    type: ClassVar[str] = "checkpoint.signed"
    key_field: ClassVar[str] = "origin"

    origin: Slug
    size: int = Field(ge=0)
    root: Hex64
    signed_at: Instant


class ProducerHalted(Event):
    """A record that claims to be a producer's does not continue its sequence; nothing is taken until one comes that provably does."""

    topic = topics.CHECKPOINTS
    type: ClassVar[str] = "producer.halted"
    key_field: ClassVar[str] = "origin"

    origin: Slug
    producer: Slug
    expected_seq: int = Field(ge=1)
    found_seq: int = Field(ge=1)
    reason: Literal["gap", "equivocation", "broken_link", "bad_grammar", "unproven"]
    halted_at: Instant


EVENTS: tuple[type[Event], ...] = (CheckpointSigned, ProducerHalted)
