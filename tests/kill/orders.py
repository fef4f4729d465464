"""What the campaign asks of the fleet: every kind of request, planned from a seed before anything is sent."""

import datetime as dt
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from habeas.chassis.clock import Clock
from habeas.chassis.ids import uuid7
from habeas.contracts.vocabulary import Right
from habeas_demo.people import Person

_SEALED: Final = (
    "hpke1." + "A" * 96
)  # of the right form; intake opens corrections when somebody decides, and nobody does here
_DETAILS: Final[dict[Right, dict[str, Any] | None]] = {
    Right.ERASURE: {"ground": "consent_withdrawn"},
    Right.ACCESS: None,
    Right.PORTABILITY: None,
    Right.RECTIFICATION: {"corrections": {"sealed": _SEALED}},
    Right.RESTRICTION: {"ground": "accuracy_contested"},
    Right.OBJECTION: {"purposes": ["analytics"]},
    Right.CONSENT_WITHDRAWAL: {"purposes": ["analytics"]},
}
_WAITING: Final = (Right.RECTIFICATION, Right.RESTRICTION, Right.OBJECTION, Right.CONSENT_WITHDRAWAL)
_STRANGERS: Final = 0.25
"""Share of accounts that the platform does not know: nothing is held of them and nobody can be written to."""

ABSENT: Final = "absent"
"""The strength of an attestation that is not there at all."""

_UNATTESTED: Final = 0.2
_NARROWED: Final = 0.1  # erasures of some categories only, which wait for a person
_REPEATED: Final = 0.08
_CHANGED: Final = 0.03
_COLLIDING: Final = 0.3


@dataclass(frozen=True, slots=True)
class Order:
    """One submission that is to be sent; orders of one `group` go out at once, groups one after the other.

    `first` is set when this one repeats the id of an earlier order of its group, and `changed` when its body is another.
    """

    request_id: UUID
    right: Right
    account_id: str = field(repr=False)
    country: str
    language: str
    details: dict[str, Any] | None
    acr: str
    channel: str = "account-settings"
    first: UUID | None = None
    changed: bool = False

    @property
    def is_carried_out(self) -> bool:
        """Whether executors do it by themselves, as architecture.md says it of today's fleet."""
        narrowed = bool((self.details or {}).get("categories"))
        return self.acr == "mfa" and (
            self.right in {Right.ACCESS, Right.PORTABILITY} or (self.right is Right.ERASURE and not narrowed)
        )


Group = tuple[tuple[Order, ...], ...]
"""Orders about one account: each inner tuple goes out at once, when the one before was acknowledged."""


@dataclass(slots=True)
class Scenario:
    """Everything that will be asked; equal seeds and people give equal rights, accounts and order (ids are of the moment)."""

    groups: list[Group]

    @property
    def orders(self) -> Iterator[Order]:
        """Every single order."""
        return (order for group in self.groups for batch in group for order in batch)


def write_scenario(seed: int, count: int, people: Sequence[Person], clock: Clock) -> Scenario:
    """Plan so many different requests (repeats come on top). Raises ValueError when there are too few people."""
    rng = random.Random(f"kill-orders:{seed}")  # noqa: S311 -- a schedule, nothing secret
    known = iter(people)
    groups: list[Group] = []
    made = 0
    while made < count:
        person = next(known, None)
        if rng.random() < _STRANGERS or person is None:
            account = f"acc_stranger_{rng.getrandbits(60):015x}"
            place = (account, "DE", "de")
        else:
            place = (person.account_id, person.country, person.language)
        group = _group(rng, place, clock)
        made += len({order.request_id for batch in group for order in batch})
        groups.append(group)
    return Scenario(groups)


def _group(rng: random.Random, place: tuple[str, str, str], clock: Clock) -> Group:
    """Give what one account asks for: mostly one thing; else several at once, or an erasure right behind an export."""
    if rng.random() >= _COLLIDING:
        one = _order(rng, _right(rng), place, clock)
        return ((one,), *_again(rng, one))
    if rng.random() < 0.5:
        export = _order(rng, rng.choice((Right.ACCESS, Right.PORTABILITY)), place, clock, acr="mfa")
        erasure = _order(rng, Right.ERASURE, place, clock, acr="mfa")
        late = _order(rng, rng.choice((Right.ACCESS, Right.OBJECTION)), place, clock)
        return ((export, erasure), *_again(rng, erasure), (late,))
    return (tuple(_order(rng, _right(rng), place, clock) for _ in range(rng.randint(2, 4))),)


def _right(rng: random.Random) -> Right:
    return rng.choices((Right.ERASURE, Right.ACCESS, Right.PORTABILITY, *_WAITING), (22, 14, 8, 14, 14, 14, 14), k=1)[0]


def _order(
    rng: random.Random, right: Right, place: tuple[str, str, str], clock: Clock, acr: str | None = None
) -> Order:
    details = _DETAILS[right]
    if right is Right.ERASURE and acr is None and rng.random() < _NARROWED:
        details = {**(details or {}), "categories": ["usage"]}
    account_id, country, language = place
    level = acr or (rng.choice(("none", ABSENT)) if rng.random() < _UNATTESTED else "mfa")
    return Order(uuid7(clock), right, account_id, country, language, details, level)


def _again(rng: random.Random, order: Order) -> Iterator[tuple[Order, ...]]:
    """Give the same request once more, or another body under its id; both after the first was acknowledged."""
    chance = rng.random()
    parts = {name: getattr(order, name) for name in Order.__dataclass_fields__}
    if chance < _CHANGED:
        yield (Order(**{**parts, "channel": "support-desk", "first": order.request_id, "changed": True}),)
    elif chance < _CHANGED + _REPEATED:
        yield (Order(**{**parts, "first": order.request_id}),)


def notice_date(now: dt.datetime) -> dt.date:
    """Give the day on which the campaign's policy change takes effect: far enough ahead for the notice period."""
    return (now + dt.timedelta(days=45)).date()
