"""notification-mailer with a real database, a real store and a real SMTP sink, without Kafka; it may die at any of its steps."""

import asyncio
import json
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio
from typing_extensions import override

from habeas.chassis.clock import FakeClock
from habeas.chassis.consumer import Consumer
from habeas.chassis.database import Database, Transaction
from habeas.chassis.ids import uuid7
from habeas.chassis.lanes import Lanes
from habeas.chassis.sweep import Swept
from habeas.chassis.worker import Handler, Worker
from habeas.contracts import topics
from habeas.contracts.model import Event
from habeas.contracts.outcomes import CategoryOutcome
from habeas.contracts.platform import PolicyChanged
from habeas.contracts.request_intake import RequestAccepted, RequestCompleted, RequestFulfilled
from habeas.contracts.vocabulary import KeepGround, MailKind, Outcome, Right, TableResult
from habeas.datamap.policy.model import Policy
from habeas.datamap.postgres import PostgresStore, StoreOptions
from habeas.datamap.stores import Stores
from habeas.sealing import Fingerprinter, KeyKind, KeyStore, Place, Protector, seal_json
from habeas.sealing.kek import KeyRing
from habeas_embedded.mailbox import Mail, Mailbox
from habeas_embedded.provision import Access
from habeas_embedded.servers import Servers
from notification_mailer import handlers, sweeps
from notification_mailer.gateways import CampaignKeys, Letter, Letters, SmtpPost
from notification_mailer.gateways.post import BeforeDot
from notification_mailer.lifecycle.campaigns import Notice
from notification_mailer.lifecycle.mails import Patience, Report
from notification_mailer.settings import SmtpSettings, SmtpTls
from notification_mailer.store.messages import Hold
from notification_mailer.sweeps import Mailroom
from tests.support.delivery import record_of, settings
from tests.support.shop import open_shop, read_map

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
KEK = KeyRing(f"wrap={'A' * 43} derive={'B' * 42}A")
PEOPLE = ("acc_1", "acc_2", "acc_3", "acc_4", "acc_5")
PATIENCE = Patience(
    timedelta(seconds=2), timedelta(minutes=15), timedelta(days=5), frozenset({MailKind.ACKNOWLEDGEMENT})
)


class Killed(BaseException):
    """What ends a process without a word; no handler of errors may catch it."""


@dataclass
class Fate:
    """Counts the points at which a process can die, and lets it die at one of them."""

    dies_at: int | None = None
    points: int = 0

    def pass_by(self) -> None:
        """Come to a point."""
        self.points += 1
        if self.points == self.dies_at:
            raise Killed


class MortalDatabase(Database):
    """Dies right before or right after a commit."""

    fate: Fate

    @override
    @asynccontextmanager
    async def transaction(self, name: str) -> AsyncIterator[Transaction]:
        """Open a transaction that may not live to see its commit, or what comes after it."""
        async with super().transaction(name) as tx:
            yield tx
            self.fate.pass_by()
        self.fate.pass_by()


class MortalPost(SmtpPost):
    """Dies before anything is said, with the text said and no marker, with the marker and no dot, with the reply and no record."""

    fate: Fate
    meanwhile: Callable[[], Awaitable[None]] | None = None

    @override
    async def deliver(self, letter: Letter, before_dot: BeforeDot) -> Report:
        """Pass on, between the points; ``meanwhile`` is done once, when the text is said and the marker is not committed."""

        async def before() -> bool:
            meanwhile, self.meanwhile = self.meanwhile, None
            if meanwhile is not None:
                await meanwhile()
            self.fate.pass_by()
            marked = await before_dot()
            self.fate.pass_by()
            return marked

        self.fate.pass_by()
        report = await super().deliver(letter, before)
        self.fate.pass_by()
        return report


@dataclass
class Mailer:
    """The service's parts, and what a test may look at."""

    db: MortalDatabase
    clock: FakeClock
    worker: Worker
    consumer: Consumer
    room: Mailroom
    post: MortalPost
    mailbox: Mailbox
    owner: Connection
    reader: Connection
    fate: Fate
    dead: list[MortalPost] = field(default_factory=list)
    page: int = 2

    # -- what arrives

    async def receive(self, *events: Event) -> None:
        """Let events arrive, and be handled."""
        records = [record_of(event, at=self.clock.now()) for event in events]
        assert await self.consumer._take(records, asyncio.Event())
        await self.worker._lanes.balance()  # the clock may have left the leases behind
        while await self.worker.step():
            pass

    async def accept(self, address: str | None, **changed: Any) -> RequestAccepted:
        """Let a request be accepted whose contact is this one, and give the event."""
        event = await self.accepted(address, **changed)
        await self.receive(event)
        return event

    async def accepted(
        self, address: str | None, *, name: str | None = None, language: str | None = None, right: Right = Right.ERASURE
    ) -> RequestAccepted:
        """Make the event of a request, with its contact sealed under a new person's case key."""
        request_id, subject_id = uuid7(self.clock), uuid7(self.clock)
        contact = None
        if address is not None:
            contact = await self.sealed(request_id, subject_id, address, name=name, language=language)
        return RequestAccepted(
            request_id=request_id,
            subject_id=subject_id,
            right=right,
            regime="gdpr",
            law_version="2016-679",
            received_at=NOW - timedelta(hours=1),
            accepted_at=NOW,
            due_on=date(2026, 12, 24),
            legal_limit_on=date(2026, 12, 24),
            language=None,
            contact=contact,
            subject_ref="0" * 64,
        )

    async def sealed(
        self, request_id: UUID, subject_id: UUID, address: str, *, name: str | None = None, language: str | None = None
    ) -> str:
        """Seal a contact under a person's case key, which is made when there is none."""
        async with self.db.pool.acquire() as conn:
            keys = (await self.room.keys.create(conn, [subject_id], NOW))[subject_id]
        value = {"address": address, "name": name, "language": language}
        return seal_json(keys.of(KeyKind.CASE), Place("request", request_id, "contact"), value)

    # -- what the service does

    async def send(self) -> int:
        """Send until nothing is due; gives how many mails were decided about."""
        handled = 0
        while (swept := await sweeps.send_request_mails(self.db, self.room)).handled:
            handled += swept.handled
        return handled

    async def send_once(self) -> Swept:
        """Make one pass."""
        return await sweeps.send_request_mails(self.db, self.room)

    async def gather(self) -> Swept:
        """Write everybody down, or a page of everybody."""
        fingerprinter = Fingerprinter(KEK)
        return await sweeps.gather_recipients(
            self.db, self.room.audience, self.room.campaign_keys, fingerprinter, self.page
        )

    async def campaign(self) -> None:
        """Carry campaigns on until nothing is due."""
        steps: tuple[Callable[[], Awaitable[Swept]], ...] = (
            self.gather,
            lambda: sweeps.send_campaign_mails(self.db, self.room),
            lambda: sweeps.close_campaigns(self.db),
            lambda: sweeps.watch_notice(self.db, self.room.notice),
        )
        while sum([(await step()).handled for step in steps]):
            pass

    async def until_killed(self, work: Callable[[], Awaitable[object]]) -> bool:
        """Do it, and say whether the process died of it."""
        try:
            await work()
        except BaseException as error:
            if not _is_kill(error):
                raise
            return True
        return False

    async def restart(self) -> None:
        """Begin anew as the same replica: new connections, nothing in memory, and nobody kills it."""
        self.fate.dies_at = None
        self._send_by(self.post._settings)

    def lose_patience(self) -> None:
        """Wait a moment for a reply to the dot, and no longer, from the next mail on."""
        self._send_by(self.post._settings.model_copy(update={"smtp_final_timeout_s": 0.3}))

    def _send_by(self, chosen: SmtpSettings) -> None:
        self.dead.append(self.post)
        self.post = _post(chosen, self.fate)
        self.room = replace(self.room, post=self.post)

    def after(self, by: timedelta) -> None:
        """Let time pass."""
        self.clock.advance(by)

    # -- what came of it

    def delivered(self, mail_id: UUID) -> tuple[Mail, ...]:
        """Give the deliveries of one mail."""
        return self.mailbox.find(f"<{mail_id}@example.org>")

    async def mails(self) -> list[asyncpg.Record]:
        """Give all mails as the database holds them."""
        return await self.reader.fetch("SELECT * FROM notification_mailer.messages ORDER BY queued_at, mail_id")

    async def mail(self, request_id: UUID, kind: str) -> asyncpg.Record:
        """Give one mail of a request."""
        (row,) = await self.reader.fetch(
            "SELECT * FROM notification_mailer.messages WHERE request_id = $1 AND kind = $2", request_id, kind
        )
        return row

    async def told(self, kind: str) -> list[dict[str, Any]]:
        """Give the events of one type that were emitted, in order."""
        rows = await self.reader.fetch(
            "SELECT value FROM notification_mailer.outbox WHERE type = $1 ORDER BY outbox_id", kind
        )
        return [json.loads(row["value"]) for row in rows]

    async def facts(self) -> list[str]:
        """Give the audit entries as far as they are rendered, without time, in order."""
        rows = await self.reader.fetch("SELECT tail FROM notification_mailer.audit_outbox ORDER BY audit_id")
        return [row["tail"].partition(" ")[2] for row in rows]

    async def dump(self) -> str:
        """Give everything that the service's schema holds, as text; messages as they came over Kafka included."""
        tables = await self.reader.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'notification_mailer' ORDER BY tablename"
        )
        found = []
        for (name,) in tables:
            for row in await self.reader.fetch(f"SELECT * FROM notification_mailer.{name}"):
                found += [value.decode("latin-1") if isinstance(value, bytes) else str(value) for value in row.values()]
        return "\n".join(found)


def _is_kill(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(_is_kill(each) for each in error.exceptions)
    return isinstance(error, Killed)


def fulfilled(accepted: RequestAccepted, **changed: Any) -> RequestFulfilled:
    """Make the event of a request that is done: one table erased, one kept by law until the end of 2036."""
    made = RequestFulfilled(
        request_id=accepted.request_id,
        subject_id=accepted.subject_id,
        right=accepted.right,
        outcome=Outcome.PARTLY_KEPT,
        categories=(
            CategoryOutcome(category="account", result=TableResult.ERASED, rows=1),
            CategoryOutcome(
                category="payment",
                result=TableResult.KEPT,
                rows=3,
                ground=KeepGround.LEGAL_OBLIGATION,
                until=date(2036, 12, 31),
            ),
        ),
        export_id=None,
        fulfilled_at=NOW,
    )
    return made.model_copy(update=changed)


def changed(change_id: str = "2027-01-privacy", **fields: Any) -> PolicyChanged:
    """Make the event of a policy change that leaves enough time."""
    values: dict[str, Any] = {
        "change_id": change_id,
        "material": True,
        "published_at": NOW,
        "effective_on": date(2027, 1, 15),
        "version": "2027-01-15",
        "summary": {"en": "We log less.", "de": "Wir protokollieren weniger."},
        "url": "https://example.org/privacy",
        **fields,
    }
    return PolicyChanged(**values)


def smtp_settings(host: str, port: int, **changed: Any) -> SmtpSettings:
    """Settings of a server on loopback, with time enough for whoever is slow."""
    return SmtpSettings(
        **{
            "smtp_host": host,
            "smtp_port": port,
            "smtp_connect_timeout_s": 60.0,
            "smtp_command_timeout_s": 60.0,
            "smtp_final_timeout_s": 60.0,
            **changed,
        }
    )


def _post(chosen: SmtpSettings, fate: Fate) -> MortalPost:
    post = MortalPost(chosen, SmtpTls.NONE, "privacy@example.org")
    post.fate = fate
    return post


@asynccontextmanager
async def start_mailer(
    access: Access,
    stores: Sequence[PostgresStore],
    policy: Policy,
    sink: Servers,
    owner: Connection,
    *,
    instance: int = 0,
) -> AsyncIterator[Mailer]:
    """Put the service together as its composition root does, with a clock that stands still."""
    clock = FakeClock(NOW)
    chosen = settings(access.dsn("notification-mailer"), pool_connections_max=3, instance=instance)
    db = await MortalDatabase.open(chosen, "notification_mailer", clock)
    assert isinstance(db, MortalDatabase)
    fate = db.fate = Fate()
    lanes = Lanes(db, uuid7(clock), instance, 60.0)
    await lanes.balance()
    notice = Notice(policy.notice_of_changes, policy.zone)
    desk = handlers.Desk(notice, CampaignKeys(KEK))
    protector = Protector(KEK)
    handled: dict[str, Handler] = {
        RequestAccepted.type: handlers.on_request_accepted,
        RequestFulfilled.type: handlers.on_request_fulfilled,
        RequestCompleted.type: handlers.on_request_completed,
        PolicyChanged.type: _with(desk),
    }
    known = {topic.name: topic for topic in (topics.REQUESTS, topics.POLICY_CHANGES)}
    worker = Worker(db, lanes, handled, known, protector, chosen)
    consumer = Consumer("notification-mailer", known, frozenset(handled), db, protector, chosen)
    post = _post(smtp_settings(sink.smtp_host, sink.smtp_port), fate)
    room = Mailroom(
        post=post,
        letters=Letters(policy, "privacy@example.org", "example.org"),
        keys=KeyStore(KEK, clock.now),
        campaign_keys=CampaignKeys(KEK),
        audience=Stores(stores),
        notice=notice,
        patience=PATIENCE,
        hold=Hold(instance, timedelta(minutes=15)),
        batch_mails_max=20,
    )
    reader = await asyncpg.connect(access.admin_dsn)  # `dump` is to see what operators may not see, too
    mailer = Mailer(db, clock, worker, consumer, room, post, sink.mailbox, owner, reader, fate)
    try:
        yield mailer
    finally:
        fate.dies_at = None
        for each in (*mailer.dead, mailer.post):
            await each.close()
        await reader.close()
        await db.close()


def _with(desk: handlers.Desk) -> Handler:
    async def handle(batch: Any, tx: Transaction) -> None:  # noqa: ANN401 -- the worker groups by type
        await handlers.on_policy_changed(batch, tx, desk)

    return handle


@pytest.fixture(scope="session")
def sink() -> Iterator[Servers]:
    """One SMTP sink for all tests of a directory: others that import this have one of their own."""
    started = Servers(f"tests-mailer-{os.getpid()}-{secrets.token_hex(4)}", only=["smtp"], ephemeral=True)
    with asyncio.Runner() as runner:
        runner.run(started.start())
        try:
            yield started
        finally:
            runner.run(started.stop())


@pytest_asyncio.fixture
async def mailer(database: Access, empty_database: str, tmp_path: Path, sink: Servers) -> AsyncIterator[Mailer]:
    """The service over a store with five people, and a sink that behaves."""
    sink.mailbox.behave()
    for mail in sink.mailbox.mails():
        mail.path.unlink()
    owner = await asyncpg.connect(empty_database)
    try:
        await open_shop(owner, PEOPLE)
        store_map, policy = read_map(tmp_path)
        options = StoreOptions(connections_max=2, lock_timeout_s=60.0)
        async with (
            PostgresStore(store_map, policy, empty_database, options) as store,
            start_mailer(database, [store], policy, sink, owner) as started,
        ):
            yield started
    finally:
        sink.mailbox.behave()
        await owner.close()
