"""A mail server that says what it likes, word for word: pipelining, and replies that fit nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from notification_mailer.gateways import Letter, SmtpPost
from notification_mailer.gateways.post import _Connection
from notification_mailer.lifecycle.mails import Report, Result
from notification_mailer.settings import SmtpTls
from tests.integration.notification_mailer.conftest import smtp_settings
from tests.support.waiting import until

LETTER = Letter("ann@example.net", b"Subject: x\r\n\r\ntext\r\n")
ENVELOPE = b"MAIL FROM:<privacy@example.org>\r\nRCPT TO:<ann@example.net>\r\nDATA\r\n"
MAIL = b"Subject: x\r\n\r\ntext\r\n"
GREETED = ((b"", b"220 sink.invalid\r\n"), (b"EHLO example.org\r\n", b"250-sink.invalid\r\n250 PIPELINING\r\n"))


class Script:
    """Waits for each thing that it expects, then says its reply; remembers what came that it did not expect."""

    def __init__(self, *lines: tuple[bytes, bytes]) -> None:
        self.lines = (*GREETED, *lines)
        self.connections = 0
        self.after = b""
        self.writers: list[asyncio.StreamWriter] = []

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Play the script for one connection."""
        self.connections += 1
        self.writers.append(writer)
        try:
            for expected, reply in self.lines:
                assert await reader.readexactly(len(expected)) == expected
                writer.write(reply)
            while more := await reader.read(65_536):
                self.after += more
                if more.endswith(b"QUIT\r\n"):
                    writer.write(b"221 bye\r\n")
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def play(*lines: tuple[bytes, bytes]) -> AsyncIterator[tuple[Script, SmtpPost]]:
    """Run a script, and a post to it."""
    script = Script(*lines)
    server = await asyncio.start_server(script.talk, "127.0.0.1", 0)
    post = SmtpPost(smtp_settings("127.0.0.1", server.sockets[0].getsockname()[1]), SmtpTls.NONE, "privacy@example.org")
    try:
        yield script, post
    finally:
        await post.close()
        for writer in script.writers:
            writer.transport.abort()
        server.close()
        await server.wait_closed()


async def yes() -> bool:
    """A marker that is committed."""
    return True


async def test_an_envelope_is_one_packet_and_replies_may_come_in_any_pieces() -> None:
    """MAIL, RCPT and DATA go out before the first reply (RFC 2920); three replies, one of them of two lines, come in one packet."""
    async with play(
        (ENVELOPE, b"250-2.1.0\r\n250 ok\r\n250 ok\r\n354 go\r\n"), (MAIL, b""), (b".\r\n", b"250 taken\r\n")
    ) as (script, post):
        assert await post.deliver(LETTER, yes) == Report(Result.TAKEN, 250)
        assert script.connections == 1


@pytest.mark.parametrize(
    ("replies", "report"),
    [
        (b"250 ok\r\n550 no such mailbox\r\n554 no valid recipients\r\n", Report(Result.REFUSED, 550)),
        (b"250 ok\r\n450 busy\r\n503 no recipients\r\n", Report(Result.POSTPONED, 450)),
        (b"250 ok\r\n250 ok\r\n451 not now\r\n", Report(Result.POSTPONED, 451)),
    ],
)
async def test_a_refusal_leaves_the_connection_for_the_next_mail(replies: bytes, report: Report) -> None:
    """Every pipelined reply is read before the next word, so that none is taken for the answer to something else."""
    async with play(
        (ENVELOPE, replies),
        (b"RSET\r\n", b"250 ok\r\n"),
        (ENVELOPE, b"250 ok\r\n250 ok\r\n354 go\r\n"),
        (MAIL + b".\r\n", b"250 taken\r\n"),
    ) as (script, post):
        assert await post.deliver(LETTER, yes) == report
        assert await post.deliver(LETTER, yes) == Report(Result.TAKEN, 250)
        assert script.connections == 1


async def test_a_server_that_wants_a_text_for_nobody_gets_none() -> None:
    """354 after a refused recipient: the connection is cut, since any dot would end a mail to nobody known."""
    async with play((ENVELOPE, b"250 ok\r\n550 no\r\n354 go\r\n")) as (script, post):
        assert await post.deliver(LETTER, yes) == Report(Result.REFUSED, 550)
        assert post._idle == []
        assert script.after == b""


async def test_a_sender_that_is_refused_refuses_nobodys_mail() -> None:
    """5yz to MAIL is the operator's trouble: the mail waits."""
    async with play((ENVELOPE, b"550 not you\r\n503\r\n503\r\n")) as (_, post):
        assert await post.deliver(LETTER, yes) == Report(Result.UNREACHABLE, 550)
        assert post._idle == []


@pytest.mark.parametrize("reply", [b"what?\r\n", b"99 x\r\n", b"250 ok\r\n250 twice\r\n", b"x" * 40_000, b"2500\r\n"])
async def test_a_reply_to_the_dot_that_is_none_is_doubt(reply: bytes) -> None:
    """What cannot be understood tells nothing: uncertain, never taken or refused; and the connection ends."""
    async with play((ENVELOPE, b"250 ok\r\n250 ok\r\n354 go\r\n"), (MAIL + b".\r\n", reply)) as (_, post):
        report = await post.deliver(LETTER, yes)
        assert report.result is Result.TAKEN if reply.startswith(b"250 ok") else report == Report(Result.LOST)
        assert post._idle == []


@pytest.mark.parametrize("early", [b"452 no room\r\n", b"250 taken\r\n"])
async def test_a_reply_before_the_dot_keeps_the_dot_back(early: bytes) -> None:
    """A server that speaks before its turn, whatever it says, has no mail: the connection is cut before the dot."""
    async with play((ENVELOPE, b"250 ok\r\n250 ok\r\n354 go\r\n"), (MAIL, early)) as (script, post):
        connection = await _Connection.open(post._settings, SmtpTls.NONE, "privacy@example.org")

        async def marked_late() -> bool:
            await until(lambda: not connection.is_open, "the end of the connection")
            return True

        assert await connection.send(LETTER, marked_late) == Report(Result.NOT_SENT)
        assert script.after == b""


async def test_a_server_that_left_with_a_word_costs_nothing() -> None:
    """421 on an idle connection, as after a long wait, is never taken for the answer to the next mail."""
    async with play(
        (ENVELOPE, b"250 ok\r\n250 ok\r\n354 go\r\n"), (MAIL + b".\r\n", b"250 taken\r\n"), (b"", b"421 too idle\r\n")
    ) as (script, post):
        assert await post.deliver(LETTER, yes) == Report(Result.TAKEN, 250)
        await until(lambda: not post._idle[0].is_open if post._idle else True, "the server's goodbye")
        assert await post.deliver(LETTER, yes) == Report(Result.TAKEN, 250)
        assert script.connections == 2


async def test_a_server_that_does_not_answer_is_waited_for_once() -> None:
    """The mail comes back as not sent after one wait, however many connections are kept, and every one of them may be tried later."""
    async with play(
        (ENVELOPE, b"250 ok\r\n250 ok\r\n354 go\r\n"), (MAIL + b".\r\n", b"250 taken\r\n"), (ENVELOPE, b"")
    ) as (script, post):
        first, second = await asyncio.gather(post.deliver(LETTER, yes), post.deliver(LETTER, yes))
        assert first.result is second.result is Result.TAKEN
        for connection in post._idle:
            connection._timeout_s = 0.1
        assert await post.deliver(LETTER, yes) == Report(Result.NOT_SENT)
        assert len(post._idle) == 1
        assert script.connections == 2
