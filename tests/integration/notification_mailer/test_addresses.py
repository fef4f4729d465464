"""Addresses of all kinds through the real letters and the real session: each is mailed to where it leads, or refused for a reason."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, cast

import pytest
from typing_extensions import override

from notification_mailer.errors import Unaddressable
from notification_mailer.gateways import Recipient, SmtpPost
from notification_mailer.lifecycle.mails import Report, Result
from notification_mailer.settings import SmtpTls
from tests.integration.notification_mailer.conftest import smtp_settings
from tests.support.addresses import addresses
from tests.support.domains import differing
from tests.support.letters import NOW, acknowledgement, letters_of

ADDRESSES: Final = 20_000


class Exchange(asyncio.Protocol):
    """A mail server that knows PIPELINING and SMTPUTF8, takes everything, and remembers each envelope."""

    def __init__(self, recipients: list[bytes], wrong: list[bytes]) -> None:
        self._recipients = recipients
        self._wrong = wrong
        self._input = b""
        self._in_text = False

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(b"220 exchange.invalid\r\n")

    @override
    def data_received(self, data: bytes) -> None:
        *lines, self._input = (self._input + data).split(b"\r\n")
        self._transport.write(b"".join(self._replies(lines)))

    def _replies(self, lines: list[bytes]) -> Iterator[bytes]:
        for line in lines:
            if self._in_text:
                if line == b".":
                    self._in_text = False
                    yield b"250 taken\r\n"
            elif line.startswith(b"EHLO "):
                yield b"250-exchange.invalid\r\n250-PIPELINING\r\n250 SMTPUTF8\r\n"
            elif line.startswith(b"RCPT TO:<") and line.endswith(b">"):
                self._recipients.append(line[9:-1])
                yield b"250 ok\r\n"
            elif line == b"DATA":
                self._in_text = True
                yield b"354 go\r\n"
            elif line.startswith((b"MAIL FROM:<", b"QUIT", b"RSET")):
                yield b"250 ok\r\n"
            else:
                self._wrong.append(line)
                yield b"500 what\r\n"


@asynccontextmanager
async def exchange() -> AsyncIterator[tuple[SmtpPost, list[bytes], list[bytes]]]:
    """Run such a server, and a post to it; gives the recipients that it heard, and what it did not understand."""
    recipients: list[bytes] = []
    wrong: list[bytes] = []
    server = await asyncio.get_running_loop().create_server(lambda: Exchange(recipients, wrong), "127.0.0.1", 0)
    post = SmtpPost(smtp_settings("127.0.0.1", server.sockets[0].getsockname()[1]), SmtpTls.NONE, "a@example.org")
    try:
        yield post, recipients, wrong
    finally:
        await post.close()
        server.close()


async def yes() -> bool:
    """A marker that is committed."""
    return True


@pytest.mark.parametrize("seed", [6531])
async def test_any_address_is_mailed_to_where_it_leads_or_refused(tmp_path: Path, seed: int) -> None:
    """Nothing raises; every envelope is one that was meant, its domain the one that another implementation makes of it."""
    letters, mail = letters_of(tmp_path), acknowledgement()
    results: Counter[str] = Counter()
    sent: list[tuple[str, str]] = []
    async with exchange() as (post, heard, wrong):

        async def carry(rest: Iterator[str]) -> None:
            for address in rest:
                letter = letters.acknowledgement(mail, Recipient(address, address, None), NOW)
                if isinstance(letter, Unaddressable):
                    results[letter.reason] += 1
                    continue
                assert await post.deliver(letter, yes) == Report(Result.TAKEN, 250)
                sent.append((address, letter.recipient))

        rest = addresses(seed, ADDRESSES)
        await asyncio.gather(*(carry(rest) for _ in range(post.connections_max)))
        assert wrong == []
        assert Counter(heard) == Counter(recipient.encode() for _, recipient in sent)
    assert len(sent) + results.total() == ADDRESSES
    assert len(sent) > ADDRESSES // 20
    assert {"address_syntax", "address_domain", "address_literal"} <= set(results)
    _require_where_it_leads(sent)


def _require_where_it_leads(sent: list[tuple[str, str]]) -> None:
    """The local part is as it was; a domain of ASCII as well, another one is what a second implementation makes of it."""
    wanted: dict[str, str] = {}
    for address, recipient in sent:
        local, _, domain = address.strip().rpartition("@")
        assert recipient.rpartition("@")[0] == local
        if domain.isascii():
            assert recipient.rpartition("@")[2] == domain
        else:
            wanted[domain] = recipient.rpartition("@")[2]
    assert json.dumps(differing(wanted)) == "{}"
