"""Breaking the demo on purpose, and mending it again: what Habeas then says, and what it never claims."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from habeas.contracts.vocabulary import Right
from habeas_demo.generator import Connection
from habeas_embedded.mailbox import Faults, Mailbox


@dataclass(frozen=True, slots=True)
class Reach:
    """What can be reached to break something: the platform as its owner, and the mail server."""

    conn: Connection
    mailbox: Mailbox


@dataclass(frozen=True, slots=True)
class Break:
    """One way to break: what is done, which rights then must not be completed, and how it is undone.

    `stops_at` is where a request then stands: stuck with a reason, or fulfilled without the person having been told.
    """

    does: str
    stops: frozenset[Right]
    stops_at: Literal["stuck", "fulfilled"]
    do: Callable[[Reach], Awaitable[None]]
    undo: Callable[[Reach], Awaitable[None]]


async def _lose_table(reach: Reach) -> None:
    await reach.conn.execute("ALTER TABLE quality_scores RENAME TO quality_scores_away")


async def _find_table(reach: Reach) -> None:
    await reach.conn.execute("ALTER TABLE quality_scores_away RENAME TO quality_scores")


async def _revoke(reach: Reach) -> None:
    await reach.conn.execute("REVOKE DELETE ON tasks FROM habeas_eraser")


async def _grant(reach: Reach) -> None:
    await reach.conn.execute("GRANT DELETE ON tasks TO habeas_eraser")


async def _refuse_mail(reach: Reach) -> None:
    reach.mailbox.misbehave(Faults(refuse_all=True, refuse_code=450))


async def _take_mail(reach: Reach) -> None:
    reach.mailbox.behave()


_EVERY_RIGHT: Final = frozenset({Right.ERASURE, Right.ACCESS, Right.PORTABILITY})

BREAKS: Final = MappingProxyType(
    {
        "table-missing": Break(
            "a table that the data map names is gone from the platform", _EVERY_RIGHT, "stuck", _lose_table, _find_table
        ),
        "store-revoked": Break(
            "the eraser may no longer delete from one table", frozenset({Right.ERASURE}), "stuck", _revoke, _grant
        ),
        "mail-refused": Break(
            "the mail server refuses every mail for now", _EVERY_RIGHT, "fulfilled", _refuse_mail, _take_mail
        ),
    }
)
