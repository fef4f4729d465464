"""The matrix: one case for each crash point, and three for each transaction, as the code has them; and which service dies there."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from habeas.chassis.crash import Point
from habeas_embedded.provision import SERVICES
from tests.architecture.crash_points import BY_TRANSACTION, Reading, Site, read, sources

IDLE: Final[Mapping[str, int]] = {
    **dict.fromkeys(("inbox-batch", "inbox-set-aside"), 1),
    "relay-sequence": 2,
    **dict.fromkeys(("erasures-finish", "exports-finish", "ticks-finish", "sweep-finish", "mails-journal"), 0),
    **dict.fromkeys(("open-log", "log-mark", "log-anew", "read-entries", "read-tiles", "tell-checkpoint"), 0),
    "sign-checkpoint": 2,
    "mails-claim": 3,
    "rekey-digests": 0,  # only the database of an earlier version has work for it
}
"""How many statements a transaction runs when it finds nothing to do, so that the death comes with work in its hands.

Where nothing is said: a service's sweep asks once, and the chassis only opens a transaction when there is something to do.
"""

_ASKED_IN_ONE: Final = "resume-producers"  # reads and writes by one statement

_WITHIN: Final = {
    Point.KEYS_KEPT: "erasures-finish",
    Point.KEYS_DESTROYED: "erasures-finish",
}  # where a key really goes

_PLACED: Final[Mapping[str, str]] = {
    "datamap/postgres/store.py": "erasure-executor",
    "datamap/postgres/purge.py": "retention-sweeper",
    "chassis/follow.py": "audit-ledger",
    "chassis/lease.py": "erasure-executor",
    "chassis/trim.py": "request-intake",
}
_PAIRED: Final = frozenset(
    {Point.LANES_RELEASED, Point.LANES_TAKEN}
)  # for these a second replica comes, which the mailer has
_BY_THE_MAILER: Final = "notification-mailer"


@dataclass(frozen=True)
class Case:
    """One death: of which service, at which point, in which transaction (empty where the point stands outside of any)."""

    service: str
    point: Point
    place: str = ""
    idle: int = 0

    @property
    def wanted(self) -> str:
        """What the service is told by its setting ``crash_at``."""
        if not self.place:
            return f"{self.point}/{_WITHIN[self.point]}:1" if self.point in _WITHIN else f"{self.point}:1"
        idle = self.idle
        if self.place == _ASKED_IN_ONE and self.point is Point.TRANSACTION_DONE:
            idle = 0
        return f"{self.point}/{self.place}>{idle}:1"

    @property
    def name(self) -> str:
        """The case as tests name it."""
        return f"{self.service} {self.point}{'/' if self.place else ''}{self.place}"


def read_code() -> Reading:
    """Read points and transactions from the code."""
    return read(sources(), frozenset(Point.__members__))


def cases() -> tuple[Case, ...]:
    """Give every case, in one order always. What belongs to the chassis is dealt out to the services that have an inbox."""
    reading = read_code()
    found: list[Case] = []
    for name, [site, *_] in reading.points.items():
        if name not in BY_TRANSACTION:
            found.append(Case(_service_of(site, Point[name]), Point[name]))
    for place, [site, *_] in reading.transactions.items():
        idle = IDLE.get(place, int(site.owner in SERVICES))
        found += [Case(_service_of(site, None), Point[name], place, idle) for name in sorted(BY_TRANSACTION)]
    return tuple(_dealt(sorted(found, key=lambda case: (case.service, case.place, case.point))))


def _service_of(site: Site, point: Point | None) -> str:
    if site.owner in SERVICES:
        return site.owner
    return _BY_THE_MAILER if point in _PAIRED else _PLACED.get(site.module, "")


def _dealt(found: Iterable[Case]) -> Iterable[Case]:
    """Give each case without a service to the one that has the fewest; the three of a transaction stay together."""
    found = list(found)
    load = Counter(case.service for case in found)
    chosen: dict[str, str] = {}
    for case in found:
        if not case.service:
            key = case.place or case.point
            if key not in chosen:
                candidates = [service for service in SERVICES if service != "audit-ledger"]
                chosen[key] = min(candidates, key=lambda service: (load[service], service))
            load[chosen[key]] += 1
            yield Case(chosen[key], case.point, case.place, case.idle)
        else:
            yield case


CASES: Final = cases()
