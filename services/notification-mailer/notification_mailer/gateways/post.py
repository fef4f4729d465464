"""The mail server, spoken with so that a failure before the final dot is told from one after it.

The envelope, the text and the final dot are separate steps here. What goes wrong before the dot is definite: the server must not
deliver what never ended (RFC 5321 section 4.1.1.4). After the dot only a reply tells; without one the mail is lost to our
knowledge, never "failed" (RFC 1047).
"""

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import aiosmtplib
from aiosmtplib.errors import SMTPException, SMTPResponseException

from habeas.chassis import crash, log
from habeas.chassis.crash import Point
from habeas.contracts.vocabulary import MailRefusal
from notification_mailer.gateways.letters import Letter
from notification_mailer.gateways.session import ReplyLate, Session, SessionLost
from notification_mailer.lifecycle.mails import Report, Result
from notification_mailer.settings import SmtpSettings, SmtpTls

BeforeDot = Callable[[], Awaitable[bool]]

_LEADING_DOT: Final = re.compile(rb"(?m)^\.")
_UNFIT_FOR_A_COMMAND: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_DOT: Final = b".\r\n"
_DATA: Final = b"DATA\r\n"
_RSET: Final = b"RSET\r\n"
_QUIT: Final = b"QUIT\r\n"
_QUIT_TIMEOUT_S: Final = 1.0
_TAKEN: Final = 2  # the first digit of a code (RFC 5321 section 4.2.1)
_REFUSED: Final = 5
_START_INPUT: Final = 354
_SERVICE_CLOSING: Final = 421
_OURSELVES_TO_BLAME: Final = (SMTPException, OSError, ssl.SSLError, TimeoutError)


class Post(Protocol):
    """Takes letters to the mail server."""

    @property
    def connections_max(self) -> int:
        """How many letters can be on their way at once."""
        ...

    async def deliver(self, letter: Letter, before_dot: BeforeDot) -> Report:
        """Send one letter once and tell how it ended.

        ``before_dot`` is awaited when the text is with the server and only the final dot is missing; False, or an error, keeps
        the dot back. Never raises for what the server or the network does.
        """
        ...


class _Stale(Exception):
    """A kept connection had ended meanwhile; nothing of the mail was said on it."""


class SmtpPost:
    """A few connections to one server, kept and reused."""

    def __init__(self, settings: SmtpSettings, tls: SmtpTls, sender: str) -> None:
        self._settings = settings
        self._tls = tls
        self._sender = sender
        self._idle: list[_Connection] = []
        self._slots = asyncio.Semaphore(settings.smtp_connections_max)

    @property
    def connections_max(self) -> int:
        """How many letters can be on their way at once."""
        return self._settings.smtp_connections_max

    async def deliver(self, letter: Letter, before_dot: BeforeDot) -> Report:
        """Send one letter over a kept connection, or a new one where none is left."""
        async with self._slots:
            while self._idle:
                kept = self._idle.pop()
                if kept.is_open:
                    try:
                        return await self._over(kept, letter, before_dot)
                    except _Stale:
                        continue
            try:
                opened = await _Connection.open(self._settings, self._tls, self._sender)
            except _OURSELVES_TO_BLAME as error:
                log.event("mail.server_unreachable", error=error)
                return Report(Result.UNREACHABLE, error.code if isinstance(error, SMTPResponseException) else None)
            try:
                return await self._over(opened, letter, before_dot)
            except _Stale:
                return Report(Result.NOT_SENT)

    async def close(self) -> None:
        """Say QUIT on every kept connection."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.quit()

    async def _over(self, connection: "_Connection", letter: Letter, before_dot: BeforeDot) -> Report:
        try:
            report = await connection.send(letter, before_dot)
        except BaseException:
            connection.abort()
            raise
        if connection.is_open:
            self._idle.append(connection)
        return report


class _Connection:
    """One SMTP session; any doubt about it ends it."""

    def __init__(self, session: Session, settings: SmtpSettings, sender: str, *, pipelining: bool, utf8: bool) -> None:
        self._session = session
        self._timeout_s = settings.smtp_command_timeout_s
        self._final_timeout_s = settings.smtp_final_timeout_s
        self._mail = f"MAIL FROM:<{sender}>".encode("ascii")
        self._pipelining = pipelining
        self._utf8 = utf8

    @classmethod
    async def open(cls, settings: SmtpSettings, tls: SmtpTls, sender: str) -> "_Connection":
        """Connect, greet, protect and log in, within the connect timeout."""
        password = settings.smtp_password
        client = aiosmtplib.SMTP(
            hostname=settings.smtp_host,
            port=settings.smtp_port,
            local_hostname=sender.rpartition("@")[2],
            timeout=settings.smtp_command_timeout_s,
            use_tls=tls is SmtpTls.IMPLICIT,
            start_tls=tls is SmtpTls.STARTTLS,
            tls_context=None if tls is SmtpTls.NONE else _tls_context(settings),
        )
        try:
            async with asyncio.timeout(settings.smtp_connect_timeout_s):
                await client.connect()
                await client.ehlo()
                if settings.smtp_username is not None and password is not None:
                    await client.login(settings.smtp_username, password.get_secret_value())
        except BaseException:
            client.close()
            raise
        if client.transport is None:
            message = "the connection ended with the greeting"
            raise SMTPException(message)
        return cls(
            Session(client.transport),
            settings,
            sender,
            pipelining=client.supports_extension("pipelining"),
            utf8=client.supports_extension("smtputf8"),
        )

    @property
    def is_open(self) -> bool:
        """Whether the connection may be used again, as far as is known."""
        return self._session.is_open

    async def send(self, letter: Letter, before_dot: BeforeDot) -> Report:
        """Run one mail transaction. Raises ``_Stale`` when the server had left before it began."""
        crash.at(Point.MAIL_CONNECTED)
        session = self._session
        try:
            refusal = await self._envelope(letter)
            if refusal is not None:
                return refusal
            session.write(_stuffed(letter.text), 0)
        except SessionLost:
            self.abort()
            return Report(Result.NOT_SENT)
        crash.at(Point.MAIL_TEXT_SENT)
        if not await before_dot():
            self.abort()
            return Report(Result.FENCED)
        crash.at(Point.MAIL_MARKED)
        try:
            session.write(_DOT, 1)
        except SessionLost:  # nothing was written
            self.abort()
            return Report(Result.NOT_SENT)
        crash.at(Point.MAIL_DOT_WRITTEN)
        try:
            code = await session.reply(self._final_timeout_s)
        except SessionLost:
            self.abort()
            return Report(Result.LOST)
        crash.at(Point.MAIL_ANSWERED)
        return self._final(code)

    async def quit(self) -> None:
        """End the session in order, or else at once."""
        try:
            self._session.write(_QUIT, 1)
            await self._session.reply(_QUIT_TIMEOUT_S)
        except SessionLost:
            self.abort()
        else:
            self._session.close()

    def abort(self) -> None:
        """Cut the connection: a text without its final dot is no mail."""
        self._session.abort()

    async def _envelope(self, letter: Letter) -> Report | None:
        """Say sender and recipient, and that the text comes; gives why it must not, else None. Raises ``SessionLost``."""
        recipient = letter.recipient
        if _UNFIT_FOR_A_COMMAND.search(recipient):
            return Report(Result.REFUSED, refusal=MailRefusal.ADDRESS_SYNTAX)
        international = not recipient.isascii()
        if international and not self._utf8:
            # RFC 6531 section 3.1: without the extension such a mail cannot be sent.
            return Report(Result.REFUSED, refusal=MailRefusal.NO_SMTPUTF8)
        mail = self._mail + (b" SMTPUTF8 BODY=8BITMIME\r\n" if international else b"\r\n")
        rcpt = b"RCPT TO:<%b>\r\n" % recipient.encode()
        if self._pipelining:
            code = await self._begin(mail + rcpt + _DATA, 3)
        else:
            code = await self._begin(mail, 1)
        if code // 100 != _TAKEN:
            # The server will not have us as a sender at all: that is nothing to refuse the person's mail for.
            self.abort()
            return Report(Result.UNREACHABLE, code)
        code = await self._next(rcpt)
        if code // 100 != _TAKEN:
            # Pipelined DATA has been said already. A server that wants a text although nobody is there to get it gets none.
            wants_text = self._pipelining and await self._next(_DATA) == _START_INPUT
            return await self._refusal(code, in_text=wants_text)
        code = await self._next(_DATA)
        return None if code == _START_INPUT else await self._refusal(code)

    async def _begin(self, commands: bytes, replies: int) -> int:
        """Say what begins a mail. Raises ``_Stale`` when the server had left, or leaves instead of an answer; else ``SessionLost``."""
        session = self._session
        try:
            session.write(commands, replies)
            code = await session.reply(self._timeout_s)
        except ReplyLate:
            raise  # another kept connection would only wait for the same
        except SessionLost:
            self.abort()
            raise _Stale from None
        if code == _SERVICE_CLOSING:
            self.abort()
            raise _Stale
        return code

    async def _next(self, command: bytes) -> int:
        """Say the next command, unless it has gone with the first, and give its reply's code."""
        if not self._pipelining:
            self._session.write(command, 1)
        return await self._session.reply(self._timeout_s)

    async def _refusal(self, code: int, *, in_text: bool = False) -> Report:
        """Take a reply that ends the transaction before the dot, and make the session ready for another mail."""
        if in_text or code == _SERVICE_CLOSING:
            self.abort()
        else:
            try:
                self._session.write(_RSET, 1)
                if await self._session.reply(self._timeout_s) // 100 != _TAKEN:
                    self.abort()
            except SessionLost:
                self.abort()
        return Report(Result.REFUSED if code // 100 == _REFUSED else Result.POSTPONED, code)

    def _final(self, code: int) -> Report:
        """Take the reply to the final dot (RFC 5321 section 4.2.1)."""
        if code == _SERVICE_CLOSING:
            self.abort()
        match code // 100:
            case 2:
                return Report(Result.TAKEN, code)
            case 4:
                return Report(Result.POSTPONED, code)
            case 5:
                return Report(Result.REFUSED, code)
            case _:
                self.abort()
                return Report(Result.LOST)


def _stuffed(text: bytes) -> bytes:
    """Double the dots that begin a line (RFC 5321 section 4.5.2)."""
    return _LEADING_DOT.sub(b"..", text) if text.startswith(b".") or b"\n." in text else text


def _tls_context(settings: SmtpSettings) -> ssl.SSLContext:
    """Speak TLS 1.3 only, and check the server's name; reads the file anew, so that a renewed certificate is taken up."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=settings.smtp_ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context
