"""The play: all services die at all their points, side by side, while people go on asking, until every case had its turn."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from pydantic import HttpUrl

from habeas.chassis.crash import Point
from habeas.chassis.ids import uuid7
from habeas.contracts import topics
from habeas.contracts.audit import GENESIS, Action, AuditFact, Producer, encode_entry, encode_fact
from habeas.contracts.envelope import Envelope, encode_headers
from habeas.contracts.platform import PolicyChanged
from habeas.contracts.vocabulary import Right
from habeas_demo.people import DAY, Person
from habeas_embedded.ports import free_port
from habeas_embedded.probing import is_ready
from habeas_embedded.processes import end_of_log
from tests.crash.cases import CASES, Case
from tests.crash.replica import CLUMSY, IMPATIENT, Replica
from tests.support.stage import Stage
from tests.support.waiting import until

CASE_LIMIT_S: Final = (
    240.0  # a service waits long for work while the one that it comes from goes through its own deaths
)
PLAY_LIMIT_S: Final = 1_800.0
_WAVE_EVERY_S: Final = 0.4
_TICK_EVERY_S: Final = 2.0
_ERASED_PEOPLE: Final = 90
_ASKING_PEOPLE: Final = 60
_MAILER: Final = "notification-mailer"
_SWEEPER: Final = "retention-sweeper"

_SHARED: Final = {
    "HABEAS_LOG_LEVEL": "warning",
    "HABEAS_TRACE_RATIO": "0",
    "HABEAS_STOP_TIMEOUT_S": "12",
    "HABEAS_LEASE_S": "5",
    "HABEAS_POLL_INTERVAL_S": "0.1",
    "HABEAS_RETRY_FIRST_S": "0.05",
    "HABEAS_RETRY_MAX_S": "1",
}
_OWN: Final[Mapping[str, Mapping[str, str]]] = {
    "request-intake": {"REQUEST_INTAKE_OPEN_INTERVAL_S": "0.3"},
    "erasure-executor": {"ERASURE_EXECUTOR_ERASE_INTERVAL_S": "0.3"},
    "export-builder": {
        "EXPORT_BUILDER_BUILD_INTERVAL_S": "0.3",
        "EXPORT_BUILDER_DELETE_INTERVAL_S": "0.3",
    },
    _SWEEPER: {"RETENTION_SWEEPER_SWEEP_INTERVAL_S": "0.3"},
    "audit-ledger": {"AUDIT_LEDGER_CHECKPOINT_INTERVAL_S": "0.2", "AUDIT_LEDGER_RESUME_INTERVAL_S": "0.2"},
    _MAILER: {
        "NOTIFICATION_MAILER_SEND_INTERVAL_S": "0.3",
        "NOTIFICATION_MAILER_CAMPAIGN_INTERVAL_S": "0.3",
        "NOTIFICATION_MAILER_PAGE_ACCOUNTS_MAX": "25",
        "NOTIFICATION_MAILER_BATCH_MAILS_MAX": "25",
        "NOTIFICATION_MAILER_SMTP_CONNECTIONS_MAX": "4",
        "NOTIFICATION_MAILER_MAIL_LEASE_S": "3",
        "NOTIFICATION_MAILER_SMTP_FINAL_TIMEOUT_S": "2",
        "NOTIFICATION_MAILER_RESEND_FIRST_S": "0.1",
        "NOTIFICATION_MAILER_RESEND_UNCERTAIN": "",  # nothing is sent a second time, whatever it is
    },
}
ENVIRONMENT: Final = {service: {**_SHARED, **own} for service, own in _OWN.items()}

_NEVER_HAPPENED: Final = AuditFact(Action.SWEEP_COMPLETED, count=0)
_EXPIRE_ONE: Final = """
    UPDATE export_builder.exports SET expires_on = current_date - 2
     WHERE export_id = (SELECT export_id FROM export_builder.exports WHERE state = 'completed' ORDER BY completed_at LIMIT 1)
    RETURNING export_id
"""
_BUILT: Final = "SELECT count(*) FROM export_builder.exports WHERE state = 'completed'"
_HELD_BY_THE_OTHER: Final = """
    SELECT count(*) FROM notification_mailer.messages WHERE holder = 1 AND state IN ('sending', 'dot')
"""
_OPEN_CAMPAIGNS: Final = "SELECT count(*) FROM notification_mailer.campaigns WHERE state IN ('gathering', 'mailing')"
_SAID_YESTERDAY: Final = """
    WITH early AS (
        UPDATE notification_mailer.campaigns SET warned_on = current_date - 1
         WHERE state <> 'recorded' AND effective_on < earliest_effective_on AND warned_on IS NOT NULL RETURNING 1)
    SELECT count(*) FROM early
"""
_HALTED: Final = "SELECT count(*) FROM audit_ledger.producers WHERE state = 'halted'"
# Of a producer that never pledged, so that its own next entry does not end the halt before a person does.
_KEEP_HALTED: Final = """
    WITH kept AS (UPDATE audit_ledger.producers SET pledged = NULL WHERE state = 'halted' RETURNING 1)
    SELECT count(*) FROM kept
"""
_ASK_RESUME: Final = (
    "UPDATE audit_ledger.producers SET resume_asked_at = now(), resume_told_at = NULL WHERE state = 'halted'"
)


@dataclass
class Played:
    """What came of it: how each service ended in each case, in seconds and exit codes, and everything that was asked for."""

    began_at: datetime
    erased: list[Person] = field(default_factory=list, repr=False)
    requests: dict[UUID, Right] = field(default_factory=dict)
    ended: dict[Case, int | None] = field(default_factory=dict)
    took_s: dict[Case, float] = field(default_factory=dict)
    campaigns: int = 0
    missed: dict[Case, str] = field(default_factory=dict)  # that did not come to their point; what the log says instead
    expired: set[UUID] = field(default_factory=set)


class Play:
    """Runs every case on one stage."""

    def __init__(self, stage: Stage, told: Callable[[str], object]) -> None:
        self.stage = stage
        self._told = told
        self.played = Played(stage.clock.now())
        environments = {service: stage.fleet.environment(service, 0, free_port()) for service in ENVIRONMENT}
        self.replicas = {
            service: Replica(service, environment, stage.run / "logs" / f"{service}-0.log")
            for service, environment in environments.items()
        }
        other = stage.fleet.environment(_MAILER, 1, free_port())
        self.other_mailer = Replica(_MAILER, other, stage.run / "logs" / f"{_MAILER}-1.log")
        self._ends_at_s = 0.0
        self._ticks = itertools.count(1)
        self._asking = stage.take(_ASKING_PEOPLE)
        self._leaving = stage.take(_ERASED_PEOPLE)
        self._connections = asyncio.Lock()  # the stage has one connection, and one at a time may use it

    async def run(self, chosen: tuple[Case, ...] = CASES) -> Played:
        """Give every case its turn, each service going through its own, then leave everybody running in order."""
        over = asyncio.Event()
        self._ends_at_s = self.stage.clock.monotonic() + PLAY_LIMIT_S
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(self._ask(over))
            await self._await_load()
            async with asyncio.TaskGroup() as services:
                for service in self.replicas:
                    mine = [case for case in chosen if case.service == service]
                    services.create_task(self._go_through(mine))
            over.set()
            await asking
        return self.played

    async def stop(self) -> None:
        """Stop everybody."""
        await asyncio.gather(*(replica.stop() for replica in (*self.replicas.values(), self.other_mailer)))

    async def _await_load(self) -> None:
        await until(lambda: len(self.played.requests) >= 4, "four requests", lambda: len(self.played.requests))

    async def _go_through(self, mine: list[Case]) -> None:
        replica = self.replicas[mine[0].service] if mine else None
        for case in sorted(mine, key=lambda case: case.place in LATE or case.point in LATE):
            assert replica is not None
            if self.stage.clock.monotonic() > self._ends_at_s:
                break  # what is left is told as not played
            await self._die(replica, case)
            self._told(f"{case.name}: {self.played.ended[case]} after {self.played.took_s[case]:.1f} s")
            if self.played.ended[case] is None:
                self.played.missed[case] = end_of_log(replica.log)
        if replica is not None and not replica.alive:
            replica.start()

    async def _die(self, replica: Replica, case: Case) -> None:
        """Let one service die once; it is down before, so that work waits for it, and its next start takes up what it left."""
        if replica.alive:
            await replica.kill()
        began = self.stage.clock.monotonic()
        for key in (case.service, case.place, case.point):
            if key in PREPARATIONS:
                await PREPARATIONS[key](self, replica)
        more = dict.fromkeys(ODD.get(case.place, ()), "1")
        if case.place in STORED or case.point in STORED:
            more["HABEAS_HANDLE_AT_ONCE"] = "false"
        replica.start(HABEAS_CRASH_AT=case.wanted, **more)
        if case.place == "lanes-leave":
            await self._until_ready(replica)
            replica.terminate()
        if case.point is Point.LANES_RELEASED:
            await self._until_ready(replica)
            self.other_mailer.start()
        self.played.ended[case] = await self._ends(replica)
        self.played.took_s[case] = self.stage.clock.monotonic() - began
        if case.point is Point.LANES_RELEASED:
            await self.other_mailer.stop()

    async def _ends(self, replica: Replica) -> int | None:
        """Wait until it has ended, and go on ticking for the sweeper: a tick that is read together with one of before is stored first."""
        limit_at_s = self.stage.clock.monotonic() + CASE_LIMIT_S
        while (code := await replica.ends(_TICK_EVERY_S)) is None and self.stage.clock.monotonic() < limit_at_s:
            if replica.service == _SWEEPER:
                await self.tick()
        return code

    async def _until_ready(self, replica: Replica) -> None:
        port = int(next(value for name, value in replica.environment.items() if name.endswith("_HEALTH_PORT")))

        async def ready_or_ended() -> bool:
            return not replica.alive or await is_ready(port)

        await until(ready_or_ended, f"{replica.service} to be ready or ended")

    async def _ask(self, over: asyncio.Event) -> None:
        """Send an erasure and an export again and again: of people first, then of accounts that nobody knows."""
        rights = itertools.cycle((Right.ACCESS, Right.PORTABILITY))
        asking = itertools.cycle(self._asking)
        leaving = iter(self._leaving)
        unknown = (f"acc_UNKNOWN{number:06}" for number in itertools.count())
        while not over.is_set():
            leaver = next(leaving, None)
            if leaver is not None:
                self.played.erased.append(leaver)
            await self._send(Right.ERASURE, leaver, unknown)
            await self._send(next(rights), next(asking), unknown)
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), _WAVE_EVERY_S)

    async def _send(self, right: Right, person: Person | None, unknown: Iterator[str]) -> None:
        if person is not None:
            self.played.requests[await self.stage.ask(right, person)] = right
            return
        details = {"ground": "consent_withdrawn"} if right is Right.ERASURE else None
        account = next(unknown)
        request_id = await self.stage.publisher.request(right, account_id=account, details=details)
        self.played.requests[request_id] = right

    async def number(self, sql: str, *args: object) -> int:
        """Ask the fleet's database for a number."""
        async with self._connections:
            return int(await self.stage.habeas.fetchval(sql, *args) or 0)

    async def tick(self) -> None:
        """Ask for what is past its retention, each time for a moment that is a little later."""
        as_of = self.played.began_at + timedelta(milliseconds=next(self._ticks))
        await self.stage.publisher.tick(as_of)

    async def misstate(self) -> None:
        """Send an entry in a producer's name that says something else than it said at that place."""
        now = self.stage.clock.now()
        line = encode_entry(Producer.RETENTION_SWEEPER, 1, 1, GENESIS, encode_fact(_NEVER_HAPPENED, now))
        envelope = Envelope(uuid7(self.stage.clock), "audit.entry", "retention-sweeper", now, "retention-sweeper")
        headers = encode_headers(envelope)
        await self.stage.publisher.send_raw(topics.AUDIT_ENTRIES.name, b"nobody/1", line, headers)

    async def announce(self, *, days: int) -> None:
        """Announce a policy change that takes effect in so many days."""
        self.played.campaigns += 1
        now = self.stage.clock.now()
        await self.stage.publisher.policy_change(
            PolicyChanged(
                change_id=f"crash-{self.played.campaigns}",
                material=True,
                published_at=now,
                effective_on=(now + days * DAY).date(),
                version=str(self.played.campaigns),
                summary={"en": "Something changes."},
                url=HttpUrl("https://example.org/privacy"),
            )
        )


async def _tick(play: Play, _: Replica) -> None:
    await play.tick()


async def _old_day(play: Play, _: Replica) -> None:
    day = (play.played.began_at - 300 * DAY).date()
    await play.stage.owner.execute("SELECT ensure_execution_log_days($1, $1)", day)


async def _early_change(play: Play, replica: Replica) -> None:
    """A change was announced for a day too early, and that was last said yesterday."""

    async def was_said() -> bool:
        return bool(await play.number(_SAID_YESTERDAY))

    if not await was_said():
        await play.announce(days=10)
        replica.start()
        await until(was_said, "a word about a change that comes too early", play.stage.progress)
        await replica.kill()


async def _campaign(play: Play, _: Replica) -> None:
    """Somebody is to be told of a change: a new one when nobody is left to tell."""
    if not await play.number(_OPEN_CAMPAIGNS):
        await play.announce(days=45)


async def _abandon(play: Play, _: Replica) -> None:
    """Another replica dies with mails in its hands, and its lease runs out."""
    if not await play.number(_HELD_BY_THE_OTHER):
        play.other_mailer.start(HABEAS_CRASH_AT=f"{Point.MAIL_TEXT_SENT}:1")
        await play.other_mailer.ends(CASE_LIMIT_S)
        await play.other_mailer.kill()


async def _ask_resume(play: Play, replica: Replica) -> None:
    """A producer was halted by an entry in its name that nobody made, and an operator has looked."""
    if not await play.number(_HALTED):
        await play.misstate()
        replica.start()

        async def halted() -> bool:
            if await play.number(_KEEP_HALTED):
                return True
            await play.misstate()  # the producer may have spoken meanwhile
            return False

        await until(halted, "a halt", play.stage.progress)
        await replica.kill()
    async with play._connections:
        await play.stage.habeas.execute(_ASK_RESUME)


async def _made_anew(play: Play, replica: Replica) -> None:
    """A partition does not reach as far as the database has read: somebody made it anew. One has to be read first, if none is known."""
    schema = replica.service.replace("-", "_")

    async def is_known() -> bool:
        return (
            await play.number(f"SELECT count(*) FROM {schema}.positions WHERE topic <> $1", topics.AUDIT_ENTRIES.name)
            > 0
        )

    if not await is_known():
        replica.start()
        await until(is_known, "a position", play.stage.progress)
        await replica.kill()
    async with play._connections:
        await play.stage.habeas.execute(
            f"UPDATE {schema}.positions SET next_offset = 1000000000 + next_offset % 1000000000"
            f" WHERE (topic, partition) = (SELECT topic, partition FROM {schema}.positions"
            " WHERE topic <> $1 ORDER BY 1, 2 LIMIT 1)",
            topics.AUDIT_ENTRIES.name,
        )


async def _log_made_anew(play: Play, _: Replica) -> None:
    """The audit topic does not reach as far as the ledger has read: somebody made it anew."""
    async with play._connections:
        await play.stage.habeas.execute("UPDATE audit_ledger.head SET position = 1000000000")


async def _expire_one(play: Play, replica: Replica) -> None:
    """An artefact was promised until before today. One has to be built first, if there is none."""

    async def is_built() -> bool:
        return bool(await play.number(_BUILT))

    if not await is_built():
        replica.start()
        await until(is_built, "an artefact", play.stage.progress)
        await replica.kill()
    async with play._connections:
        export_id = await play.stage.habeas.fetchval(_EXPIRE_ONE)
    if export_id is not None:
        play.played.expired.add(export_id)


async def _leave(play: Play, replica: Replica) -> None:
    """The predecessor gave its lanes back."""
    replica.start()
    await play._until_ready(replica)
    await replica.stop()


ODD: Final = {"inbox-set-aside": (CLUMSY,), "lease-keep": (IMPATIENT,)}
"""What makes a service behave so oddly that it comes to this transaction at all."""

STORED: Final = frozenset({"inbox-store", "inbox-batch", "inbox-set-aside", Point.WORKER_CLAIMED, Point.WORKER_HANDLED})
"""What nearly no message passes unless messages are stored before they are handled."""

LATE: Final = frozenset({"resume-producers", "exports-expire", "exports-delete", Point.ARTEFACT_DELETED})
"""What comes after everything else of its service: there has to be something first that can go."""

PREPARATIONS: Final[Mapping[str, Callable[[Play, Replica], Awaitable[None]]]] = {
    **dict.fromkeys(("exports-expire", "exports-delete", Point.ARTEFACT_DELETED), _expire_one),
    **dict.fromkeys(("recipients-gather", "campaigns-close"), _campaign),
    _SWEEPER: _tick,
    Point.PARTITION_DROPPED: _old_day,
    Point.LANES_TAKEN: _leave,
    "notice-watch": _early_change,
    "mails-take-back": _abandon,
    "positions-set": _made_anew,
    "log-anew": _log_made_anew,
    "resume-producers": _ask_resume,
}
"""What has to happen before a service starts that is to die in this transaction or at this point."""
