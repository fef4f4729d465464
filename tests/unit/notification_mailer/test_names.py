"""Names in headers and texts: whatever people are called is written as it is, and breaks nothing."""

from email import message_from_bytes
from email.header import decode_header, make_header
from email.policy import compat32
from email.utils import parseaddr

import pytest

from notification_mailer.gateways.letters import Letters, Recipient
from tests.support.letters import NOW, a_letter, acknowledgement, bodies, read


def test_nobody_is_named_who_is_not_known(letters: Letters) -> None:
    """Without a name the greeting has none, and To holds the bare address."""
    letter = letters.acknowledgement(acknowledgement(), Recipient("a@example.net", "  "), NOW)
    assert bodies(letter)[0].startswith("Hello,")
    assert str(read(letter)["To"]) == "a@example.net"


def test_a_name_cannot_break_out(letters: Letters) -> None:
    """Line ends do not make headers, angle brackets do not make markup."""
    name = "Eve\r\nBcc: all@example.net\r\n\r\n<script>x</script>"
    letter = a_letter(letters.acknowledgement(acknowledgement(), Recipient("a@example.net", name), NOW))
    assert read(letter)["Bcc"] is None
    assert [line for line in letter.text.split(b"\r\n") if line.lower().startswith(b"bcc")] == []
    assert "<script>" not in bodies(letter)[1]
    assert "&lt;script&gt;" in bodies(letter)[1]


@pytest.mark.parametrize(
    "name",
    [
        "O'Brien, Pat",
        'Quo "te" <x>',
        "back\\slash",
        "Zoë",
        "李小龍" * 20,
        "x" * 150,
        "Dr. A. B. C.",
        "=?utf-8?q?Eve?=",
        "\0name\0",
        "Ada \U0001f469\u200d\U0001f680",  # an astronaut: woman, joiner, rocket
        "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466" * 7,
        "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",  # Scotland's flag, of tags
        "\U0001f44b\U0001f3fd \u2764\ufe0f",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian, with a non-joiner
        "\u0dc1\u0dca\u200d\u0dbb\u0dd3",
    ],
)
def test_any_name_comes_back_from_the_header_as_it_was(letters: Letters, name: str) -> None:
    """Specials, letters beyond ASCII and long names, by the standard library's decoder; no header line over 78 (RFC 5322)."""
    letter = a_letter(letters.acknowledgement(acknowledgement(), Recipient("ann@example.net", name), NOW))
    head = letter.text.partition(b"\r\n\r\n")[0]
    assert max(map(len, head.split(b"\r\n"))) <= 78
    raw = message_from_bytes(letter.text, policy=compat32)["To"].replace("\r\n", "")
    shown, address = parseaddr(raw)
    assert address == "ann@example.net"
    assert str(make_header(decode_header(shown))) == name.replace("\0", " ").strip()


@pytest.mark.parametrize(
    "character",
    [
        "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
        "\U0001f1e9\U0001f1ea",
        "\U0001f44b\U0001f3fd",
        "e\u0301\u0302",
        "\u0e01\u0e34",
    ],
)
def test_a_long_name_is_cut_between_whole_characters(letters: Letters, character: str) -> None:
    """What people see as one character is there whole or not at all, wherever the limit falls."""
    for before in range(len(character)):
        name = "x" * before + character * 200
        plain, _ = bodies(letters.acknowledgement(acknowledgement(), Recipient("a@example.net", name), NOW))
        shown = plain.partition("\n")[0].removeprefix("Hello ").removesuffix(",")
        assert len(shown) <= 200
        assert shown.startswith("x" * before)
        rest = shown[before:]
        assert rest == character * (len(rest) // len(character))


@pytest.mark.parametrize("name", ["a\u202eb", "a\u2066b\u2069", "a\x00b", "a\u2028b", "a\ud800b", "a\x9bb", "\u202e"])
def test_a_name_turns_and_breaks_nothing(letters: Letters, name: str) -> None:
    """Marks that turn the direction of writing, line ends, controls and lone surrogates do not reach header or text."""
    letter = a_letter(letters.acknowledgement(acknowledgement(), Recipient("a@example.net", name), NOW))
    for text in (*bodies(letter), str(make_header(decode_header(str(read(letter)["To"]))))):
        assert not set(text.replace("\n", "")) & set("\u202e\u2066\u2069\x00\u2028\x9b")
