"""Sending: claim, mark, dot, settle; each state is committed before the step that it stands for.

Writes are grouped. A batch is claimed in one transaction. While letters go out over a few connections, one writer commits the
markers of all letters that wait for their dot, together with what has come back meanwhile: the more is under way, the larger the
groups.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from habeas.chassis import cause, log, metrics
from habeas.chassis.database import TRANSIENT, Database, Transaction
from habeas.chassis.errors import Invariant
from habeas.chassis.redaction import Name
from habeas.chassis.sweep import Swept
from habeas.contracts.audit import Action
from habeas.contracts.vocabulary import MailKind, StuckReason
from habeas.sealing import KeyStore
from notification_mailer.gateways import Audience, CampaignKeys, Letter, Letters, Post
from notification_mailer.lifecycle import mails
from notification_mailer.lifecycle.campaigns import Notice
from notification_mailer.lifecycle.mails import Decision, Mail, Patience, Report, Result, State
from notification_mailer.store import campaigns as campaign_store
from notification_mailer.store import messages
from notification_mailer.store.messages import Hold, Step
from notification_mailer.sweeps.writing import Written, write_campaign_letters, write_request_letters

_LINGER_S: Final = 0.02
_GATHER_S: Final = (
    0.004  # what a letter waits at its dot for those that are on their way: little beside what a server takes
)
_RESULTS_WAITING_MAX: Final = 50
_ABANDONED_MAX: Final = 500
_SAVE_AGAIN_S: Final = 0.5
_SAVE_ATTEMPTS_MAX: Final = 60


@dataclass(frozen=True, slots=True)
class Mailroom:
    """What sending needs besides the database."""

    post: Post
    letters: Letters
    keys: KeyStore
    campaign_keys: CampaignKeys
    audience: Audience
    notice: Notice
    patience: Patience
    hold: Hold
    batch_mails_max: int
    stopping: asyncio.Event = field(default_factory=asyncio.Event)


async def send_request_mails(db: Database, room: Mailroom) -> Swept:
    """Send acknowledgements and outcomes that are due.

    Idempotent: what a pass that died left half done is decided first, by the marker that it committed.
    """
    return await _send(db, room, of_campaigns=False)


async def send_campaign_mails(db: Database, room: Mailroom) -> Swept:
    """Send notices of policy changes that are due; like ``send_request_mails``, and apart from it, so that neither waits."""
    return await _send(db, room, of_campaigns=True)


async def take_back_abandoned(db: Database, room: Mailroom) -> Swept:
    """Take mails back from replicas that went silent for longer than their lease."""
    async with db.transaction("mails-take-back") as tx:
        left = await messages.lock_abandoned(tx, _ABANDONED_MAX)
        decisions = await _take_back(tx, left, room)
    _count(decisions)
    return Swept(len(left), more=len(left) == _ABANDONED_MAX)


async def _send(db: Database, room: Mailroom, *, of_campaigns: bool) -> Swept:
    claimed, settled = await _claim(db, room, of_campaigns=of_campaigns)
    if claimed:
        journal = _Journal(db, room, carriers=min(room.post.connections_max, len(claimed)))
        with cause.worked("smtp.send", [mail.traceparent for mail, _ in claimed], db.clock):
            await _deliver(claimed, room, journal)
        settled += len(claimed)
    return Swept(settled, more=settled >= room.batch_mails_max and not room.stopping.is_set())


async def _claim(db: Database, room: Mailroom, *, of_campaigns: bool) -> tuple[list[tuple[Mail, Letter]], int]:
    """Lock what is due, render it, and commit that it is being sent; gives it, and how many needed no sending.

    Sweeps of one process never overlap, so whatever this replica still holds was left by a pass that did not end.
    """
    async with db.transaction("mails-claim") as tx:
        left = await messages.lock_held(tx, room.hold.holder, of_campaigns=of_campaigns)
        decisions = await _take_back(tx, left, room)
        due = await messages.lock_due(tx, room.batch_mails_max, of_campaigns=of_campaigns)
        tx.caused_by(*(mail.traceparent for mail in due))
        if of_campaigns and due:
            written = await write_campaign_letters(tx, due, room.letters, room.campaign_keys, room.audience)
        else:
            written = await write_request_letters(tx, due, room.letters, room.keys)
        claimed, given_up, put_off = _sorted_out(written, room, tx)
        steps = [Step(before, after) for before, after, _ in claimed]
        await _require_all(tx, [*steps, *(Step(before, decision.mail) for before, decision in given_up)], room)
        decisions += [decision for _, decision in given_up]
        await messages.put_off(tx, put_off)
        _tell(tx, [decision for _, decision in given_up])
    _count(decisions)
    return [(after, letter) for _, after, letter in claimed], len(decisions) + len(put_off)


def _sorted_out(
    written: Sequence[Written], room: Mailroom, tx: Transaction
) -> tuple[list[tuple[Mail, Mail, Letter]], list[tuple[Mail, Decision]], list[Mail]]:
    """Give the mails to be sent, those that will never be, and those that could not be written now."""
    claimed: list[tuple[Mail, Mail, Letter]] = []
    given_up: list[tuple[Mail, Decision]] = []
    put_off: list[Mail] = []
    for mail, letter in written:
        match letter:
            case Letter():
                claimed.append((mail, mails.claim(mail), letter))
            case None:
                given_up.append((mail, mails.give_up(mail, tx.now)))
            case StuckReason():
                decision = mails.put_off(mail, letter, room.patience, tx.now)
                if decision.mail.state is State.QUEUED:
                    put_off.append(decision.mail)
                else:
                    given_up.append((mail, decision))
            case _:
                report = Report(Result.REFUSED, refusal=letter.reason)
                given_up.append((mail, mails.settle(mail, report, room.patience, tx.now)))
    return claimed, given_up, put_off


async def _take_back(tx: Transaction, left: Sequence[Mail], room: Mailroom) -> list[Decision]:
    decisions = [mails.take_back(mail, room.patience, tx.now) for mail in left]
    steps = [Step(mail, decision.mail) for mail, decision in zip(left, decisions, strict=True)]
    await _require_all(tx, steps, room)
    _tell(tx, decisions)
    return decisions


async def _require_all(tx: Transaction, steps: Sequence[Step], room: Mailroom) -> None:
    """Write steps of mails that this transaction has locked: every one must move."""
    moved = await messages.advance_mails(tx, steps, room.hold)
    if len(moved) != len(steps):
        message = f"{tx.name}: {len(moved)} of {len(steps)} locked mails moved"
        raise Invariant(message)


async def _deliver(claimed: Sequence[tuple[Mail, Letter]], room: Mailroom, journal: "_Journal") -> None:
    """Take the letters to the server over all connections at once; the journal has every result when this returns."""
    rest = iter(claimed)
    unreachable = asyncio.Event()
    failed: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as writing:
            writing.create_task(journal.run())
            try:
                async with asyncio.TaskGroup() as carrying:
                    for _ in range(journal.carriers):
                        carrying.create_task(_carry(rest, room, journal, unreachable))
            except ExceptionGroup as group:
                failed = group.exceptions[0]  # told after what the others brought back is written down
            journal.close()
    except ExceptionGroup as group:
        failed = group.exceptions[0]
    if failed is not None:
        raise failed


async def _carry(
    rest: Iterator[tuple[Mail, Letter]], room: Mailroom, journal: "_Journal", unreachable: asyncio.Event
) -> None:
    for mail, letter in rest:
        if room.stopping.is_set():
            journal.settle(mail, Report(Result.NOT_TRIED))
            continue
        if unreachable.is_set():
            journal.settle(mail, Report(Result.UNREACHABLE))
            continue
        attempt = _Attempt(mail, journal)
        try:
            report = await room.post.deliver(letter, attempt.before_dot)
        except (Invariant, *TRANSIENT):
            raise
        except Exception as error:  # noqa: BLE001 -- whatever is wrong with one letter must not hold the others up
            log.event("mail.not_delivered", error=error, mail_id=mail.mail_id)
            report = Report(Result.LOST if attempt.mail.state is State.DOT else Result.NOT_SENT)
        if report.result is Result.UNREACHABLE:
            unreachable.set()  # the others would only wait for the same
        if report.result is not Result.FENCED:
            journal.settle(attempt.mail, report)
    journal.leave()


class _Attempt:
    """One mail on its way, as far as its marker."""

    def __init__(self, mail: Mail, journal: "_Journal") -> None:
        self.mail = mail
        self._journal = journal

    async def before_dot(self) -> bool:
        """Commit the marker; False when somebody else has taken the mail over, and the dot must not be written."""
        marked = mails.mark(self.mail)
        if not await self._journal.mark(self.mail, marked):
            return False
        self.mail = marked
        return True


class _Journal:
    """Commits markers and results in groups. A marker waits for its commit, a result does not make anybody wait."""

    def __init__(self, db: Database, room: Mailroom, carriers: int) -> None:
        self.carriers = carriers
        self._db = db
        self._room = room
        self._marks: list[tuple[Step, asyncio.Future[bool]]] = []
        self._results: list[tuple[Mail, Report]] = []
        self._any = asyncio.Event()
        self._urgent = asyncio.Event()
        self._full = asyncio.Event()
        self._closed = False

    async def mark(self, before: Mail, after: Mail) -> bool:
        """Commit the step before returning; False when the mail is not any more in the attempt that it starts from."""
        marked: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._marks.append((Step(before, after), marked))
        self._any.set()
        self._urgent.set()
        if len(self._marks) >= self.carriers:
            self._full.set()
        return await marked

    def settle(self, mail: Mail, report: Report) -> None:
        """Commit the result soon, at the latest when the journal ends."""
        self._results.append((mail, report))
        self._any.set()
        if len(self._results) >= _RESULTS_WAITING_MAX:
            self._urgent.set()

    def leave(self) -> None:
        """One carrier fewer will come with a marker."""
        self.carriers -= 1
        if len(self._marks) >= self.carriers:
            self._full.set()

    def close(self) -> None:
        """Nothing more comes."""
        self._closed = True
        self._any.set()
        self._urgent.set()
        self._full.set()

    async def run(self) -> None:
        """Write until closed and empty; an error reaches everybody who waits for a marker."""
        try:
            while not self._closed or self._marks or self._results:
                await self._await_work()
                await self._write()
        finally:
            for _, marked in self._marks:
                marked.cancel()

    async def _await_work(self) -> None:
        await self._any.wait()
        try:
            # Results ride with the next markers; when none come, as with a slow server, they go alone.
            async with asyncio.timeout(_LINGER_S):
                await self._urgent.wait()
        except TimeoutError:
            pass
        if 0 < len(self._marks) < self.carriers and not self._closed:
            try:
                async with asyncio.timeout(_GATHER_S):
                    await self._full.wait()
            except TimeoutError:
                pass
        if not self._closed:
            self._any.clear()
            self._urgent.clear()
            self._full.clear()

    async def _write(self) -> None:
        marks, self._marks = self._marks, []
        results, self._results = self._results, []
        if not marks and not results:
            return
        try:
            moved, decisions = await self._save([step for step, _ in marks], results)
        except BaseException:
            for _, marked in marks:
                marked.cancel()
            raise
        for step, marked in marks:
            if not marked.done():
                marked.set_result(step.before.mail_id in moved)
        _count(decisions)

    async def _save(
        self, marks: Sequence[Step], results: Sequence[tuple[Mail, Report]]
    ) -> tuple[set[object], list[Decision]]:
        """Write until the database takes it: what a server has answered must not be forgotten for a short outage."""
        for _ in range(_SAVE_ATTEMPTS_MAX):
            try:
                return await self._db.run("mails-journal", lambda tx: self._save_once(tx, marks, results))
            except TRANSIENT as error:
                log.event("mail.journal_trouble", error=error)
                if not results:
                    raise
                await asyncio.sleep(_SAVE_AGAIN_S)
        message = "the results of mails could not be saved"
        raise TimeoutError(message)

    async def _save_once(
        self, tx: Transaction, marks: Sequence[Step], results: Sequence[tuple[Mail, Report]]
    ) -> tuple[set[object], list[Decision]]:
        tx.caused_by(*(step.before.traceparent for step in marks), *(mail.traceparent for mail, _ in results))
        decided = [(mail, mails.settle(mail, report, self._room.patience, tx.now)) for mail, report in results]
        steps = [*marks, *(Step(mail, decision.mail) for mail, decision in decided)]
        moved = await messages.advance_mails(tx, steps, self._room.hold)
        decisions = [decision for mail, decision in decided if mail.mail_id in moved]
        decisions += await self._save_late(tx, [pair for pair in results if pair[0].mail_id not in moved])
        _tell(tx, decisions)
        sent = [decision.mail for decision in decisions if decision.mail.state is State.SENT]
        await messages.drop_contacts(
            tx, {mail.request_id for mail in sent if mail.request_id is not None and mail.kind is MailKind.OUTCOME}
        )
        await campaign_store.note_notices(
            tx, {mail.campaign_id for mail in sent if mail.campaign_id is not None}, self._room.notice.earliest(tx.now)
        )
        return set(moved), decisions

    async def _save_late(self, tx: Transaction, results: Sequence[tuple[Mail, Report]]) -> list[Decision]:
        """A mail that was given up as uncertain meanwhile, and was taken after all, is sent."""
        taken = [mail._replace(state=State.UNCERTAIN) for mail, report in results if report.result is Result.TAKEN]
        decisions = [mails.settle(mail, Report(Result.TAKEN), self._room.patience, tx.now) for mail in taken]
        steps = [Step(mail, decision.mail) for mail, decision in zip(taken, decisions, strict=True)]
        moved = await messages.advance_mails(tx, steps, self._room.hold)
        return [decision for decision in decisions if decision.mail.mail_id in moved]


def _tell(tx: Transaction, decisions: Sequence[Decision]) -> None:
    for decision in decisions:
        tx.emit(*decision.events, trace=decision.mail.traceparent)
        if decision.mail.request_id is not None:
            tx.record(*mails.facts([decision]), trace=decision.mail.traceparent)
    tx.record(*mails.facts(decision for decision in decisions if decision.mail.request_id is None))


def _count(decisions: Sequence[Decision]) -> None:
    for decision in decisions:
        match decision.action:
            case Action.MAIL_SENT:
                metrics.MAIL_SENT_MESSAGES.add(template=decision.mail.kind)
            case Action.MAIL_UNCERTAIN:
                metrics.MAIL_UNKNOWN_MESSAGES.add()
            case Action.MAIL_REFUSED | Action.MAIL_SUPPRESSED:
                metrics.MAIL_FAILED_MESSAGES.add(reason=Name(decision.mail.state.value))
            case _:
                pass
