"""What the mail sink says and takes, without a socket."""

import asyncio

import pytest
from typing_extensions import override

from habeas_embedded.conversation import MAIL_BYTES_MAX, Conversation, Ending, Envelope

EHLO = b"EHLO client.example.org\r\n"
ENVELOPE = b"MAIL FROM:<dpo@example.org>\r\nRCPT TO:<ada@example.net>\r\n"


class Desk:
    """Takes everything, but what it is told to refuse."""

    def __init__(self) -> None:
        self.mails: list[tuple[str, list[str], bytes]] = []
        self.refused: set[str] = set()
        self.ending = Ending.TAKEN

    def recipient(self, address: str) -> bytes | None:
        """Refuse by name."""
        return b"550 5.1.1 no" if address in self.refused else None

    def delay_s(self) -> float:
        """Never wait."""
        return 0

    def mail(self, envelope: Envelope, content: bytes) -> Ending:
        """Remember."""
        self.mails.append((envelope.sender, envelope.recipients, content))
        return self.ending


class Wire(asyncio.Transport):
    """Keeps what was said to the client."""

    def __init__(self) -> None:
        super().__init__()
        self.said = b""
        self.writes = 0
        self.closed = False

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.said += data
        self.writes += 1

    @override
    def close(self) -> None:
        self.closed = True

    @override
    def abort(self) -> None:
        self.closed = True


def talk(*parts: bytes, desk: Desk | None = None) -> tuple[list[int], Desk, Wire]:
    """Say these parts, each as it comes from a socket; gives the codes of the replies, the greeting's first."""
    desk, wire = desk or Desk(), Wire()
    conversation = Conversation(desk)
    conversation.connection_made(wire)
    for part in parts:
        conversation.data_received(part)
    codes = [int(line[:3]) for line in wire.said.split(b"\r\n") if line and line[3:4] == b" "]
    return codes, desk, wire


def test_commands_sent_at_once_are_answered_at_once() -> None:
    """RFC 2920: MAIL, RCPT and DATA in one packet get their three replies in one, in order; so does a dot with what follows it."""
    codes, desk, wire = talk(
        EHLO, ENVELOPE + b"DATA\r\n", b"Subject: 1\r\n\r\none\r\n.\r\n" + ENVELOPE + b"DATA\r\n", b"two\r\n.\r\n"
    )
    assert codes == [220, 250, 250, 250, 354, 250, 250, 250, 354, 250]
    assert wire.writes == 5
    assert b"PIPELINING" in wire.said
    assert desk.mails == [
        ("dpo@example.org", ["ada@example.net"], b"Subject: 1\r\n\r\none\r\n"),
        ("dpo@example.org", ["ada@example.net"], b"two\r\n"),
    ]


def test_every_way_of_cutting_a_conversation_gives_the_same() -> None:
    """Wherever the network cuts, also within the final dot, the mail is the same."""
    whole = EHLO + ENVELOPE + b"DATA\r\n..a dot\r\n\r\n...\r\nend.\r\n.\r\nQUIT\r\n"
    for place in range(1, len(whole)):
        codes, desk, wire = talk(whole[:place], whole[place:])
        assert codes == [220, 250, 250, 250, 354, 250, 221]
        assert [content for _, _, content in desk.mails] == [b".a dot\r\n\r\n..\r\nend.\r\n"]
        assert wire.closed


def test_only_a_dot_between_whole_line_ends_ends_a_mail() -> None:
    """Bare line feeds around a dot are text (RFC 5321 section 2.3.8): nobody smuggles a second mail into the first."""
    smuggled = b"one\n.\nMAIL FROM:<eve@example.org>\r\n.\nx\n.\r\n"
    codes, desk, _ = talk(EHLO, ENVELOPE, b"DATA\r\n", smuggled, b".\r\n")
    assert codes == [220, 250, 250, 250, 354, 250]
    assert len(desk.mails) == 1


def test_an_empty_mail_is_a_mail() -> None:
    """The dot right after DATA ends a mail without a line."""
    codes, desk, _ = talk(EHLO, ENVELOPE, b"DATA\r\n.\r\nNOOP\r\n")
    assert codes == [220, 250, 250, 250, 354, 250, 250]
    assert [content for _, _, content in desk.mails] == [b""]


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"MAIL FROM:<a@example.org>\r\n", 503),
        (EHLO + b"RCPT TO:<a@example.org>\r\n", 503),
        (EHLO + b"MAIL FROM:<a@example.org>\r\nDATA\r\n", 503),
        (EHLO + ENVELOPE + ENVELOPE, 250),
        (EHLO + b"MAIL TO:<a@example.org>\r\n", 501),
        (EHLO + b"MAIL FROM:<a@example.org> SIZE=%d\r\n" % (MAIL_BYTES_MAX + 1), 552),
        (EHLO + b"MAIL FROM:<a@example.org> FOO=1\r\n", 555),
        (EHLO + "MAIL FROM:<jörg@example.org>\r\n".encode(), 553),
        (EHLO + "MAIL FROM:<jörg@example.org> SMTPUTF8 BODY=8BITMIME\r\n".encode(), 250),
        (EHLO + ENVELOPE + b"RSET\r\nRCPT TO:<a@example.org>\r\n", 503),
        (EHLO + b"BDAT 3\r\n", 500),
        (EHLO + b"X" * 5000, 500),
    ],
)
def test_what_is_out_of_order_is_refused(said: bytes, code: int) -> None:
    """Each command has its place, and the reply says so (RFC 5321 section 4.3.2)."""
    codes, desk, _ = talk(said)
    assert codes[-1] == code
    assert desk.mails == []


def test_a_refused_recipient_leaves_nothing_to_send() -> None:
    """Pipelined DATA after a refused recipient is refused as well, and the next mail goes on after RSET."""
    desk = Desk()
    desk.refused.add("ada@example.net")
    codes, _, _ = talk(EHLO, ENVELOPE + b"DATA\r\n", b"RSET\r\n", ENVELOPE.replace(b"ada", b"bob"), desk=desk)
    assert codes == [220, 250, 250, 550, 503, 250, 250, 250]


def test_a_mail_that_is_too_large_is_refused_whole() -> None:
    """What comes of it is thrown away, its end is found, and the connection goes on."""
    megabyte = (b"x" * 1022 + b"\r\n") * 1024
    parts = [megabyte] * 33
    codes, desk, _ = talk(EHLO, ENVELOPE, b"DATA\r\n", *parts, b".\r\n", b"NOOP\r\n")
    assert codes == [220, 250, 250, 250, 354, 552, 250]
    assert desk.mails == []


def test_a_cut_connection_gets_no_reply() -> None:
    """The sender cannot know what became of its mail."""
    desk = Desk()
    desk.ending = Ending.CUT
    codes, _, wire = talk(EHLO, ENVELOPE + b"DATA\r\n", b"one\r\n.\r\nNOOP\r\n", desk=desk)
    assert codes == [220, 250, 250, 250, 354]
    assert wire.closed
