"""One SMTP session past its greeting, spoken with as few packets as the protocol allows.

``aiosmtplib`` connects, greets, protects and logs in; then this takes the transport over. Where the server announces PIPELINING
(RFC 2920) MAIL, RCPT and DATA go out in one packet. Only the codes of replies matter (RFC 5321 section 4.2): their texts may quote
an address and are never kept. A reply that nobody waits for, or that is none, ends the session, so that no reply is ever taken for
the answer to something else.
"""

import asyncio
import re
from collections import deque
from typing import Final, cast

from typing_extensions import override

_REPLY_BYTES_MAX: Final = 32 * 1024
_LINE: Final = re.compile(rb"([2-5][0-9][0-9])([ -][^\r\n]*)?\r?\n")


class SessionLost(Exception):
    """The session is over: no reply came in time, none can come any more, or one came that is none."""


class ReplyLate(SessionLost):
    """The server is there and does not answer in time."""


class Session(asyncio.Protocol):
    """Writes commands and reads replies; any doubt ends it."""

    def __init__(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass of it
        self._input = bytearray()
        self._codes: deque[int] = deque()
        self._owed = 0  # replies that the server has still to give
        self._over = False
        self._late = False
        self._waiter: asyncio.Future[None] | None = None
        self._transport.set_protocol(self)

    @property
    def is_open(self) -> bool:
        """Whether the session may be used again, as far as is known."""
        return not self._over and not self._transport.is_closing()

    def write(self, data: bytes, replies: int) -> None:
        """Say something that the server answers with so many replies. Raises ``SessionLost``, and has said nothing then."""
        if not self.is_open:
            raise SessionLost
        self._owed += replies
        self._transport.write(data)

    async def reply(self, timeout_s: float) -> int:
        """Give the code of the next reply. Raises ``SessionLost`` when there will be none, ``ReplyLate`` when it did not come in time."""
        while not self._codes:
            if self._late:
                raise ReplyLate
            if not self.is_open:
                raise SessionLost
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            late = loop.call_later(timeout_s, self._expire)
            try:
                await self._waiter
            finally:
                late.cancel()
                self._waiter = None
        return self._codes.popleft()

    def abort(self) -> None:
        """Cut the connection: a text without its final dot is no mail."""
        self._over = True
        self._transport.abort()
        self._wake()

    def close(self) -> None:
        """End the connection after what was written."""
        self._over = True
        self._transport.close()
        self._wake()

    @override
    def data_received(self, data: bytes) -> None:
        self._input += data
        while found := _LINE.match(self._input):
            if not (found[2] or b"").startswith(b"-"):
                self._codes.append(int(found[1]))
                self._owed -= 1
            del self._input[: found.end()]
        is_none = b"\n" in self._input or len(self._input) > _REPLY_BYTES_MAX
        if is_none or self._owed < 0:
            self.abort()
        elif self._codes:
            self._wake()

    @override
    def eof_received(self) -> bool:
        self._over = True
        self._wake()
        return False

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._over = True
        self._wake()

    def _expire(self) -> None:
        self._late = True
        self.abort()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
