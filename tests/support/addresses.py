"""Mail addresses as people and attackers write them, made from a seed: nearly good ones, strange ones, and noise."""

import random
from collections.abc import Iterator
from typing import Final

_WORDS: Final = (
    "mail", "example", "straße", "faß", "bücher", "βόλος", "ΒΌΛΟΣ", "пример", "例え", "テスト", "उदाहरण", "مثال", "דוגמה", "ශ්‍රී",
    "نامه‌ای", "실례", "ตัวอย่าง", "\uff41\uff42\uff43", "ﬁn", "xn--fa-hia", "xn--a", "xn--", "-a", "a-", "a_b", "ẞ", "İ", "\u0131", "ǆ", "☕",
    "1", "0x7f", "\U0001d482\U0001d483", "①", "e\u0301", "\u00ad", "\u200d", "\u200c", "a\u200db", "ß", "ς", "Ⅷ", "㍿", "¼", "..", "",
)  # fmt: skip
_SCRIPTS: Final = (
    (0x61, 0x7A), (0xC0, 0x17F), (0x250, 0x2AF), (0x370, 0x3FF), (0x400, 0x52F), (0x531, 0x587), (0x5D0, 0x5EA), (0x620, 0x6FF),
    (0x710, 0x74F), (0x780, 0x7B1), (0x900, 0x97F), (0x980, 0x9FF), (0xA00, 0xA7F), (0xA80, 0xAFF), (0xB00, 0xB7F), (0xB80, 0xBFF),
    (0xC00, 0xC7F), (0xC80, 0xCFF), (0xD00, 0xD7F), (0xD80, 0xDFF), (0xE00, 0xE7F), (0xE80, 0xEFF), (0xF00, 0xFBC),
    (0x1000, 0x109F), (0x10A0, 0x10FF), (0x1200, 0x137F), (0x13A0, 0x13FF), (0x1401, 0x167F), (0x1780, 0x17DD), (0x1820, 0x18AA),
    (0x1E00, 0x1FFF), (0x2C00, 0x2DDE), (0x3041, 0x30FF), (0x3105, 0x312F), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0xFF10, 0xFF5A),
    (0x1D400, 0x1D7FF),
)  # fmt: skip
_DOTS: Final = "...。\uff0e"
_LOCALS: Final = (
    "ann", "a.b", "o'brien", "jörg", "用户", '"a b"', '"a@b"', r'"\""', '""', "a..b", ".a", '"', "", "a b", "<a>", "a" * 64, "é" * 40,
    "👩‍🚀", "\u202ea",
)  # fmt: skip
_LITERALS: Final = (
    "[192.0.2.1]", "[IPv6:2001:db8::1]", "[mail.example.org", "[mail.example.org]", "[]", "[", "[[]]", "[IPv6:]", "[IPv6:::1%lo]",
    "[192.0.2]", "[0x7f000001]", "[tag:x]", "]", "[1.2.3.4]a",
)  # fmt: skip
_NOISE: Final = "\x00\r\n\t <>()[]:;@\\,.\"'%!-_\x7f\x85\xa0\u00ad\u200b\u2028\u202e\ud800\udfff\ufeff\uffff\U0001f469\U000e0061\U0010ffff"


def domains(seed: int, count: int) -> Iterator[str]:
    """Make domains of one to four labels: words that standards speak of, and letters of one script or of several."""
    chosen = random.Random(seed)  # noqa: S311 -- test data
    for _ in range(count):
        yield _domain(chosen)


def addresses(seed: int, count: int) -> Iterator[str]:
    """Make addresses: from good parts, from bad parts, with characters put in, left out or doubled, and some that are none."""
    chosen = random.Random(seed)  # noqa: S311 -- test data
    for _ in range(count):
        domain = chosen.choice(_LITERALS) if chosen.random() < 0.2 else _domain(chosen)
        local = chosen.choice(_LOCALS) if chosen.random() < 0.5 else _label(chosen)
        text = f"{local}@{domain}"
        for _ in range(chosen.choice((0, 0, 1, 2, 5))):
            at = chosen.randint(0, len(text))
            text = (
                text[:at]
                + chosen.choice((chosen.choice(_NOISE), "", text[at : at + 3] * 2))
                + text[at + chosen.randint(0, 1) :]
            )
        yield "".join(chosen.choices(_NOISE, k=chosen.randint(0, 20))) if chosen.random() < 0.02 else text


def _domain(chosen: random.Random) -> str:
    text = _label(chosen)
    for _ in range(chosen.randint(0, 3)):
        text += chosen.choice(_DOTS) + _label(chosen)
    return text


def _label(chosen: random.Random) -> str:
    if chosen.random() < 0.4:
        return chosen.choice(_WORDS)
    first, last = chosen.choice(_SCRIPTS)
    letters = [chr(chosen.randint(first, last)) for _ in range(chosen.randint(1, 6))]
    if chosen.random() < 0.2:
        letters.insert(chosen.randint(0, len(letters)), chosen.choice(_NOISE + "\u200d\u200c-0\u0660"))
    return "".join(letters)
