"""The bytes of a mail: headers and two texts, as RFC 5322, 2045, 2046 and 2047 want them.

Python's own generator folds and checks every header of every mail anew, which costs more than all the rest of writing one. Here
everything is ASCII, every line of a header has 78 characters at most (RFC 5322 section 2.1.1) unless an address alone is longer,
and every line ends with CRLF.
"""

import re
from binascii import b2a_base64, b2a_qp
from collections.abc import Iterator
from typing import Final

_LINE_CHARACTERS_MAX: Final = 78
_PLAIN_NAME_CHARACTERS_MAX: Final = 60
_WORD_BYTES_MAX: Final = (
    39  # 64 characters as an encoded word: with any header's name before it the line is short enough
)
_ATOMS: Final = re.compile(r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~ ]+")

_BODY: Final = (
    b'MIME-Version: 1.0\r\nContent-Type: multipart/alternative;\r\n boundary="%(boundary)b"\r\n\r\n'
    b'--%(boundary)b\r\nContent-Type: text/plain; charset="utf-8"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n%(plain)b\r\n'
    b'--%(boundary)b\r\nContent-Type: text/html; charset="utf-8"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n%(html)b\r\n'
    b"--%(boundary)b--\r\n"
)


def header(name: str, value: str) -> str:
    """Give a header whose value is ASCII, without control characters, and short enough for its line."""
    return f"{name}: {value}\r\n"


def text_header(name: str, text: str) -> str:
    """Give a header of any text: as it is where it is short and ASCII, else in encoded words (RFC 2047)."""
    if text.isascii() and "=?" not in text and len(name) + 2 + len(text) <= _LINE_CHARACTERS_MAX:
        return header(name, text)
    return header(name, "\r\n ".join(_encoded_words(text)))


def address_header(name: str, shown: str | None, address: str) -> str:
    """Give a header of one mailbox; ``address`` is ASCII, ``shown`` one line of printable characters."""
    if not shown:
        return header(name, address)
    words = [_phrase(shown)] if _stays_plain(shown) else list(_encoded_words(shown))
    last = words[-1] if len(words) > 1 else f"{name}: {words[-1]}"
    space = " " if len(last) + len(address) + 3 <= _LINE_CHARACTERS_MAX else "\r\n "
    return header(name, "\r\n ".join(words) + f"{space}<{address}>")


def alternative(headers: str, boundary: str, plain: bytes, html: bytes) -> bytes:
    """Give the bytes of a mail that says the same as plain text and as HTML, both quoted-printable.

    ``boundary`` begins with ``=-``, which quoted-printable text never holds (RFC 2045 section 6.7).
    """
    body = _BODY % {b"boundary": boundary.encode("ascii"), b"plain": plain, b"html": html}
    return headers.encode("ascii") + body


def quoted(text: str) -> bytes:
    """Encode whole lines as quoted-printable (RFC 2045 section 6.7): lines encoded apart are the same as encoded together."""
    return b2a_qp(text.encode(), istext=True).replace(b"\n", b"\r\n")


def _stays_plain(shown: str) -> bool:
    return shown.isascii() and "=?" not in shown and len(shown) <= _PLAIN_NAME_CHARACTERS_MAX


def _phrase(shown: str) -> str:
    """Give a display name as atoms, or as a quoted string where it holds anything else (RFC 5322 section 3.2.5)."""
    if _ATOMS.fullmatch(shown):
        return shown
    escaped = shown.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _encoded_words(text: str) -> Iterator[str]:
    """Give the encoded words of a text, each of whole characters (RFC 2047 section 5)."""
    held = bytearray()
    for character in text:
        encoded = character.encode()
        if len(held) + len(encoded) > _WORD_BYTES_MAX:
            yield _encoded_word(held)
            held.clear()
        held += encoded
    yield _encoded_word(held)


def _encoded_word(held: bytearray) -> str:
    return f"=?utf-8?b?{b2a_base64(held, newline=False).decode('ascii')}?="
