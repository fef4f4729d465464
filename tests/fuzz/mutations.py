"""Records that somebody sends who reads no documentation, or wants to do harm: good ones, altered at random in every part."""

import json
import random
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from habeas.contracts.topics import DSR_REQUESTS, POLICY_CHANGES, RETENTION_TICKS
from tests.support.garbage import Forge, Raw
from tests.support.wire import NOW_MS, Content, Header, batch, with_payload, with_sum

TOPICS: Final = (DSR_REQUESTS, RETENTION_TICKS, POLICY_CHANGES)
TIMES: Final = (
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    "0000-00-00T00:00:00Z",
    "1969-12-31T23:59:59Z",
    "9000-01-01T00:00:00Z",
    "2026-11-24T09:12:33z",
    "2026-11-24t09:12:33.123456789Z",
    "2026-11-24T23:59:60Z",
    "2026-11-24T24:00:00Z",
    "2026-11-24 09:12:33Z",
    "2026-11-24T09:12Z",
    "2026-W48-2T09:12:33Z",
    "1764500000",
    "",
    "\u0662\u0660\u0662\u0666-11-24T09:12:33Z",
)
TEXTS: Final = (
    "",
    "\0",
    "a\0b",
    "\x1b]0;x\x07",
    "\ud800",
    "\U0001f468\u200d\U0001f469",
    "\u202e",
    "%s%n",
    "' OR 1=1 --",
    "../../etc/passwd",
    "\r\nX: y",
    "NaN",
    "true",
    "x" * 100_000,
)
NUMBERS: Final = (0, -1, 1, 2**31, 2**63, 2**64, 10**400, -(10**400), 1e308, 0.1, True, False, None)
NAMES: Final = (
    b"",
    b"\xff\xfe",
    b"ce_id",
    b"ce_time",
    b"ce_type",
    b"CE_ID",
    b"\0",
    b"x" * 30_000,
    b"traceparent",
    b"ce_\xf0",
)
HEADERS: Final = (None, b"", b"\xff", b"\0", b"1.0", b"topic.rolled", b"request.accepted", b"x" * 30_000)
DAMAGED: Final = 0.1
ALTERED: Final = 0.85


class Made(NamedTuple):
    """One batch; those of its records that are at ``good`` are as a platform sends them. A damaged batch promises nothing."""

    topic: str
    data: bytes
    contents: Sequence[Content]
    good: frozenset[int]
    is_damaged: bool


class Mutations:
    """Batches of records, altered at random; the same seed gives the same ones."""

    def __init__(self, forge: Forge, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 -- it has to be repeated
        self.patterns = [
            *(forge.record(forge.submission(f"acc_FUZZ{number:04}")) for number in range(50)),
            *(forge.tick(forge.clock.now()) for _ in range(5)),
            *(_change(forge, number) for number in range(5)),
        ]

    def batches(self, records: int) -> Iterator[Made]:
        """Give batches with so many records together."""
        while records > 0:
            count = min(records, self._random.choice((1, 1, 2, 3, 10, 50)))
            yield self.batch(count)
            records -= count

    def batch(self, count: int, now_ms: int | None = None) -> Made:
        """Give one batch of so many records for one topic, at this time or at any."""
        topic = self._random.choice(self.patterns).topic
        patterns = [each for each in self.patterns if each.topic == topic]
        contents: list[Content] = []
        good: set[int] = set()
        for number in range(count):
            content = self._as_sent(self._random.choice(patterns))
            if self._random.random() < ALTERED:
                for _ in range(self._random.choice((1, 1, 1, 2, 5))):
                    content = self._altered(content, is_timed=now_ms is None)
            else:
                good.add(number)
            contents.append(content)
        if now_ms is None:
            now_ms = self._random.choice((NOW_MS, NOW_MS, NOW_MS, 0, -1, 2**62, -(2**62), 2**63 - 2**20))
        data = batch(contents, codec=self._random.randrange(5), now_ms=now_ms)
        is_damaged = self._random.random() < DAMAGED
        return Made(topic, self._damaged(data) if is_damaged else data, contents, frozenset(good), is_damaged)

    def _as_sent(self, raw: Raw) -> Content:
        """Give a record with an id of its own."""
        event_id = str(UUID(int=self._random.getrandbits(128))).encode()
        headers = [(name.encode(), event_id if name == "ce_id" else value) for name, value in raw.headers]
        return Content(raw.key, raw.value, headers)

    def _altered(self, content: Content, *, is_timed: bool) -> Content:
        """Alter one part."""
        match self._random.randrange(10):
            case 0:
                return content._replace(
                    key=self._random.choice((None, b"", b"\0", b"\xff", self._random.randbytes(40)))
                )
            case 1 if is_timed:
                return content._replace(later_ms=self._random.choice((-(2**62), 2**61, -1, 10**15)))
            case 2 | 3:
                return content._replace(headers=self._headers(list(content.headers)))
            case 4:
                return content._replace(value=self._bytes(content.value or b""))
            case _:
                return content._replace(value=self._json(content.value or b""))

    def _headers(self, headers: list[Header]) -> list[Header]:
        at = self._random.randrange(len(headers)) if headers else 0
        before, (name, value), after = headers[:at], (headers[at] if headers else (b"ce_id", b"")), headers[at + 1 :]
        match self._random.randrange(6):
            case 0:
                return before + after
            case 1:
                return [*headers, (name, value)]
            case 2:
                return [*headers, (self._random.choice(NAMES), self._random.choice(HEADERS))]
            case 3:
                return [*before, (name, self._random.choice(HEADERS)), *after]
            case 4:
                time = self._random.choice(TIMES).encode()
                return [(each, time if each == b"ce_time" else old) for each, old in headers]
            case _:
                return [*before, (name, self._bytes(value or b"")), *after]

    def _bytes(self, value: bytes) -> bytes:
        """Cut, repeat, replace or add some bytes."""
        at = self._random.randrange(len(value) + 1)
        match self._random.randrange(5):
            case 0:
                return value[:at]
            case 1:
                return value[:at] + self._random.randbytes(self._random.randrange(1, 9)) + value[at:]
            case 2:
                return value[:at] + self._random.randbytes(1) + value[at + 1 :]
            case 3:
                return b"[" * self._random.choice((10, 1_000, 100_000)) + value
            case _:
                return value * self._random.choice((0, 2))

    def _json(self, value: bytes) -> bytes:
        """Alter one member somewhere in a JSON object; anything else is left as it is."""
        try:
            body = json.loads(value)
        except (ValueError, RecursionError):
            return value
        if not isinstance(body, dict) or not body:
            return value
        parent: dict[str, Any] = body
        while (
            inner := [each for each in parent.values() if isinstance(each, dict) and each]
        ) and self._random.randrange(3):
            parent = self._random.choice(inner)
        name = self._random.choice(list(parent))
        match self._random.randrange(7):
            case 0:
                del parent[name]
            case 1:
                parent[self._random.choice((*TEXTS[:-1], "x", name.upper()))] = parent[name]
            case 2:
                parent[name] = self._random.choice(TIMES)
            case 3:
                parent[name] = self._random.choice(TEXTS)
            case 4:
                parent[name] = self._random.choice(NUMBERS)
            case 5:
                parent[name] = self._random.choice(([], {}, [parent[name]], {"a": parent[name]}, [[[[]]]]))
            case _:
                member = json.dumps(name) + ": "
                twice = member + self._random.choice(("null", '"x"', "1")) + ", " + member
                return json.dumps(body).replace(member, twice, 1).encode()
        return json.dumps(body, ensure_ascii=bool(self._random.randrange(2))).encode(errors="surrogatepass")

    def _damaged(self, data: bytes) -> bytes:
        """Alter bytes of a batch as a whole, with a sum that fits."""
        match self._random.randrange(4):
            case 0:  # said to be packed in a way that it is not
                return with_payload(data, data[61:], self._random.randrange(8), is_packed=True)
            case 1:  # said to hold another number of records
                return with_sum(data[:57] + struct.pack(">i", self._random.choice((0, -1, 1, 2**31 - 1))) + data[61:])
            case 2:
                junk = self._random.randbytes(self._random.randrange(100))
                return with_payload(data, junk, self._random.randrange(5), is_packed=True)
            case _:
                damaged = bytearray(data)
                for _ in range(self._random.randrange(1, 4)):
                    damaged[self._random.randrange(61, len(data))] = self._random.randrange(256)
                return with_sum(bytes(damaged))


def _change(forge: Forge, number: int) -> Raw:
    body = {
        "change_id": f"change-{number}",
        "material": False,
        "published_at": "2026-11-24T08:00:00Z",
        "effective_on": "2027-01-15",
        "version": "2027-01-15",
        "summary": {"en": "Shorter words", "de": "K\u00fcrzere Worte"},
        "url": "https://example.org/privacy",
    }
    tick = forge.tick(forge.clock.now())
    headers = [(name, b"policy.changed" if name == "ce_type" else value) for name, value in tick.headers]
    return Raw(POLICY_CHANGES.name, f"change-{number}".encode(), json.dumps(body).encode(), headers)
