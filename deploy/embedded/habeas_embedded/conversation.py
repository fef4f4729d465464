"""What the SMTP sink says: RFC 5321 as far as senders of mail need it, with pipelining (RFC 2920), 8BITMIME and SMTPUTF8.

The protocol reads what a client has sent at once as far as it goes, and answers all of it with one write. It knows nothing of
files and faults: those are the sink's.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, Protocol, cast

from typing_extensions import override

__all__ = ["MAIL_BYTES_MAX", "Conversation", "Decides", "Ending", "Envelope"]

MAIL_BYTES_MAX: Final = 32 * 1024 * 1024
_LINE_BYTES_MAX: Final = 4_096
_RECIPIENTS_MAX: Final = 1_000
_HOST: Final = b"sink.invalid"
_PATH: Final = re.compile(rb"(?:FROM|TO):[ \t]*<(.*)>(?:[ \t]+(.*))?", re.IGNORECASE | re.DOTALL)
_EXTENSIONS: Final = (b"PIPELINING", b"8BITMIME", b"SMTPUTF8", b"ENHANCEDSTATUSCODES", b"SIZE %d" % MAIL_BYTES_MAX)
_END: Final = b"\r\n.\r\n"
_TOO_LARGE: Final = b"552 5.3.4 mail too large"


class Ending(Enum):
    """What becomes of a whole mail."""

    TAKEN = auto()  # 250
    REFUSED = auto()  # 451, to be tried again
    CUT = auto()  # the connection ends without a reply


@dataclass(slots=True)
class Envelope:
    """From whom and to whom a mail is."""

    sender: str
    international: bool = False
    recipients: list[str] = field(default_factory=list)


class Decides(Protocol):
    """Who decides about recipients and mails."""

    def recipient(self, address: str) -> bytes | None:
        """Give the reply that refuses a recipient; None takes it."""
        ...

    def delay_s(self) -> float:
        """Give how many seconds a whole mail waits."""
        ...

    def mail(self, envelope: Envelope, content: bytes) -> Ending:
        """Take a whole mail."""
        ...


class Conversation(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, decides: Decides) -> None:
        self._decides = decides
        self._transport: asyncio.Transport | None = None
        self._input = bytearray()
        self._searched = 0  # no end of the mail before here
        self._in_mail = False
        self._too_large = False
        self._waiting: asyncio.TimerHandle | None = None
        self._greeted = False
        self._envelope: Envelope | None = None
        self._replies: list[bytes] = []
        self._commands: Mapping[bytes, Callable[[bytes], bytes]] = {
            b"EHLO": self._ehlo,
            b"HELO": self._helo,
            b"MAIL": self._mail,
            b"RCPT": self._rcpt,
            b"DATA": self._data,
            b"RSET": self._rset,
            b"NOOP": lambda _: b"250 2.0.0 OK",
            b"VRFY": lambda _: b"252 2.5.0 send some mail, and see",
            b"QUIT": lambda _: b"221 2.0.0 Bye",
        }

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass of it
        self._transport.write(b"220 " + _HOST + b" ESMTP\r\n")

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._waiting is not None:
            self._waiting.cancel()

    @override
    def data_received(self, data: bytes) -> None:
        self._input += data
        if self._waiting is None:
            self._work()

    def _work(self) -> None:
        """Take everything that is there whole."""
        while self._transport is not None and self._waiting is None:
            if not (self._take_mail() if self._in_mail else self._take_line()):
                break
        replies, self._replies = self._replies, []
        if replies and self._transport is not None:
            self._transport.write(b"".join(replies))

    def _take_line(self) -> bool:
        end = self._input.find(b"\r\n")
        if end < 0 or end > _LINE_BYTES_MAX:
            if len(self._input) > _LINE_BYTES_MAX:
                self._hang_up(b"500 5.5.2 line too long")
            return False
        line = bytes(self._input[:end])
        del self._input[: end + 2]
        verb, _, rest = line.partition(b" ")
        command = self._commands.get(verb.upper())
        self._say(b"500 5.5.2 unknown command" if command is None else command(rest.strip()))
        if verb.upper() == b"QUIT":
            self._hang_up()
            return False
        return True

    def _take_mail(self) -> bool:
        """Take a mail with its final dot; until it is whole, only look for its end."""
        start = self._input.startswith(_END[2:])
        end = 0 if start else self._input.find(_END, self._searched)
        if end < 0:
            self._searched = max(0, len(self._input) - len(_END) + 1)
            if len(self._input) > MAIL_BYTES_MAX:
                self._too_large = True
                del self._input[: -len(_END)]
                self._searched = 0
            return False
        content = b"" if start else bytes(self._input[: end + 2])
        del self._input[: end + len(_END) - 2 * start]
        self._in_mail = False
        if self._too_large or len(content) > MAIL_BYTES_MAX:
            self._envelope = None
            self._say(_TOO_LARGE)
            return True
        if content.startswith(b".") or b"\r\n." in content:  # RFC 5321 section 4.5.2
            content = content.removeprefix(b".").replace(b"\r\n.", b"\r\n")
        delay_s = self._decides.delay_s()
        if delay_s:
            self._waiting = asyncio.get_running_loop().call_later(delay_s, self._after_delay, content)
        else:
            self._decide(content)
        return True

    def _after_delay(self, content: bytes) -> None:
        self._waiting = None
        self._decide(content)
        self._work()

    def _decide(self, content: bytes) -> None:
        envelope, self._envelope = self._envelope, None
        if envelope is None:  # DATA is not taken without one
            self._say(b"503 5.5.1 say MAIL and RCPT first")
            return
        match self._decides.mail(envelope, content):
            case Ending.TAKEN:
                self._say(b"250 2.0.0 OK")
            case Ending.REFUSED:
                self._say(b"451 4.3.0 not taken, try again")
            case Ending.CUT:
                if self._transport is not None:
                    self._transport.abort()
                    self._transport = None

    def _say(self, reply: bytes) -> None:
        self._replies.append(reply + b"\r\n")

    def _hang_up(self, reply: bytes | None = None) -> None:
        if reply is not None:
            self._say(reply)
        if self._transport is not None:
            self._transport.write(b"".join(self._replies))
            self._transport.close()
            self._transport = None
        self._replies = []

    def _ehlo(self, _rest: bytes) -> bytes:
        self._greeted, self._envelope = True, None
        *most, last = _EXTENSIONS
        return b"\r\n".join([b"250-" + _HOST, *(b"250-" + each for each in most), b"250 " + last])

    def _helo(self, _rest: bytes) -> bytes:
        self._greeted, self._envelope = True, None
        return b"250 " + _HOST

    def _mail(self, rest: bytes) -> bytes:
        if not self._greeted:
            return b"503 5.5.1 say EHLO first"
        if self._envelope is not None:
            return b"503 5.5.1 one mail at a time"
        found = _PATH.fullmatch(rest) if rest[:5].upper() == b"FROM:" else None
        if found is None:
            return b"501 5.5.4 write MAIL FROM:<address>"
        international = False
        for option in (found[2] or b"").upper().split():
            name, _, value = option.partition(b"=")
            if name == b"SIZE" and value.isdigit():
                if int(value) > MAIL_BYTES_MAX:
                    return _TOO_LARGE
            elif name == b"SMTPUTF8" and not value:
                international = True
            elif name != b"BODY" or value not in {b"7BIT", b"8BITMIME"}:
                return b"555 5.5.4 unknown option"
        address = _address(found[1], international=international)
        if address is None:
            return b"553 5.6.7 an address beyond ASCII needs SMTPUTF8"
        self._envelope = Envelope(address, international)
        return b"250 2.1.0 OK"

    def _rcpt(self, rest: bytes) -> bytes:
        if self._envelope is None:
            return b"503 5.5.1 say MAIL first"
        found = _PATH.fullmatch(rest) if rest[:3].upper() == b"TO:" else None
        if found is None or found[2] or not found[1]:
            return b"501 5.5.4 write RCPT TO:<address>"
        if len(self._envelope.recipients) >= _RECIPIENTS_MAX:
            return b"452 4.5.3 too many recipients"
        address = _address(found[1], international=self._envelope.international)
        if address is None:
            return b"553 5.6.7 an address beyond ASCII needs SMTPUTF8"
        refusal = self._decides.recipient(address)
        if refusal is not None:
            return refusal
        self._envelope.recipients.append(address)
        return b"250 2.1.5 OK"

    def _data(self, _rest: bytes) -> bytes:
        if self._envelope is None or not self._envelope.recipients:
            return b"503 5.5.1 say MAIL and RCPT first"
        self._in_mail, self._searched, self._too_large = True, 0, False
        return b"354 end with a line that is a dot"

    def _rset(self, _rest: bytes) -> bytes:
        self._envelope = None
        return b"250 2.0.0 OK"


def _address(given: bytes, *, international: bool) -> str | None:
    """Give an address as text; None for letters beyond ASCII that were not announced, or are no UTF-8."""
    try:
        return given.decode("utf-8" if international else "ascii")
    except UnicodeDecodeError:
        return None
