"""The mail server in memory: what it took is kept, and how it can let a sender down is decided by the weather."""

from dataclasses import dataclass, field
from email.parser import BytesHeaderParser
from typing import Final

from habeas.chassis import crash
from habeas.chassis.crash import Point
from notification_mailer.gateways.letters import Letter
from notification_mailer.gateways.post import BeforeDot
from notification_mailer.lifecycle.mails import Report, Result
from tests.simulation.actors import Stage

_KINDS_OF_NO: Final = (Report(Result.NOT_SENT), Report(Result.POSTPONED, 451), Report(Result.REFUSED, 550))
_ONE_IN: Final = 6  # of the failures, so many are refusals for good


@dataclass
class Server:
    """What the mail server took: recipient by Message-ID, in order."""

    taken: list[tuple[str, str]] = field(default_factory=list)

    def take(self, letter: Letter) -> None:
        """Own a mail from now on."""
        head = BytesHeaderParser().parsebytes(letter.text)
        self.taken.append((str(head["Message-ID"]).strip("<>").partition("@")[0], letter.recipient))


class MemoryPost:
    """Stands in for ``SmtpPost``: the same steps, the same crash points, no network.

    One letter at a time: the mailer's other tasks must not stand still at another gate meanwhile.
    """

    connections_max = 1

    def __init__(self, server: Server, stage: Stage) -> None:
        self.server = server
        self.stage = stage

    async def deliver(self, letter: Letter, before_dot: BeforeDot) -> Report:
        """Send one letter once and tell how it ended."""
        if (await self.stage.gate("mail: connect")).is_lost:
            return Report(Result.UNREACHABLE)
        crash.at(Point.MAIL_CONNECTED)
        before = await self.stage.gate("mail: text")
        if before.is_lost:
            return _KINDS_OF_NO[before.among(_ONE_IN) % len(_KINDS_OF_NO) if before.among(2) else 0]
        crash.at(Point.MAIL_TEXT_SENT)
        if not await before_dot():
            return Report(Result.FENCED)
        crash.at(Point.MAIL_MARKED)
        return await self.dot(letter)

    async def dot(self, letter: Letter) -> Report:
        """Write the final dot, and wait for the reply."""
        fate = await self.stage.gate("mail: dot")
        if fate.is_lost:
            return Report(Result.LOST) if fate.among(2) else _KINDS_OF_NO[fate.among(_ONE_IN) // 2]
        self.server.take(letter)
        crash.at(Point.MAIL_DOT_WRITTEN)
        if (await self.stage.gate("mail: reply")).is_lost:
            return Report(Result.LOST)
        crash.at(Point.MAIL_ANSWERED)
        return Report(Result.TAKEN, 250)

    async def close(self) -> None:
        """Nothing is open."""
