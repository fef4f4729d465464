"""What lies between the SMTP sink and those who look at its mail: the directory's layout, and how to make the sink misbehave.

The sink appends every mail to one file, `spool`: a file of its own for each would cost more than all else that the sink does.
Whoever looks sorts the spool into `new/<number>-<hash of Message-ID>.eml` first, as far as that was not done yet.
"""

import fcntl
import hashlib
import secrets
import stat
from collections.abc import Iterator
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import SMTP as SMTP_POLICY
from pathlib import Path
from typing import IO, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from habeas_embedded.waiting import until

__all__ = ["AfterDot", "Faults", "Mail", "Mailbox", "message_hash", "recipient_hash", "spooled"]

FAULTS_FILE: Final = "faults.json"
MAIL_DIRECTORY: Final = "new"
SPOOL_FILE: Final = "spool"
_SORTED_FILE: Final = "sorted"  # how far the spool was sorted, in bytes; locked while that is done
_ASIDE_DIRECTORY: Final = "tmp"
_HEAD_BYTES_MAX: Final = 128

AfterDot = Literal["deliver", "refuse", "drop", "deliver_and_drop"]


class Faults(BaseModel):
    """How the sink misbehaves; the default is not at all.

    `after_dot` is what happens when the whole mail has arrived: `refuse` answers 451, `drop` cuts the connection and loses
    the mail, `deliver_and_drop` cuts it after delivery, so that the sender cannot know. With `times` it happens to so many
    mails and then no more. `delay_s` is waited before every answer to a whole mail. Recipients are named by
    `recipient_hash`, as no file but the mails themselves names a person.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    refuse_all: bool = False
    refuse_recipients: frozenset[str] = Field(frozenset(), description="values of recipient_hash")
    refuse_code: Literal[450, 550] = Field(550, description="450 asks to try again later, 550 refuses for good")
    delay_s: float = Field(0.0, ge=0, le=600)
    after_dot: AfterDot = "deliver"
    times: int | None = Field(None, ge=1)


class Mail(NamedTuple):
    """One delivered mail."""

    path: Path
    message: EmailMessage

    @property
    def message_id(self) -> str:
        """The Message-ID with its angle brackets, empty when there is none."""
        return str(self.message.get("Message-ID", "")).strip()

    @property
    def recipients(self) -> tuple[str, ...]:
        """The envelope's recipients, which need not be those in To."""
        return tuple(str(value).strip() for value in self.message.get_all("Delivered-To", []))


class Mailbox:
    """The sink's directory, as tests and people see it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._sorted_bytes = 0

    def sort(self) -> Path:
        """Give every mail that was delivered since the last time a file of its own; gives the directory of all of them.

        A file that somebody removed does not come back. Two who sort at once wait for each other.
        """
        new = self.directory / MAIL_DIRECTORY
        try:
            if (self.directory / SPOOL_FILE).stat().st_size == self._sorted_bytes:
                return new
        except FileNotFoundError:
            return new
        aside = self.directory / _ASIDE_DIRECTORY
        for directory in (new, aside):
            directory.mkdir(exist_ok=True)
        with (self.directory / _SORTED_FILE).open("a+b") as place, (self.directory / SPOOL_FILE).open("rb") as spool:
            fcntl.flock(place, fcntl.LOCK_EX)
            place.seek(0)
            spool.seek(int(place.read() or b"0"))
            for name, content in spooled(spool):
                (aside / name).write_bytes(content)
                (aside / name).rename(new / name)
            self._sorted_bytes = spool.tell()
            place.truncate(0)
            place.write(b"%d" % self._sorted_bytes)
        return new

    def mails(self, *, headers_only: bool = False) -> tuple[Mail, ...]:
        """Give all delivered mails in the order of delivery; ``headers_only`` leaves their bodies unparsed, which is much faster."""
        paths = sorted(self.sort().glob("*.eml"))
        return tuple(_read(path, headers_only=headers_only) for path in paths)

    def count(self) -> int:
        """Count delivered mails without reading them."""
        return sum(1 for _ in self.sort().glob("*.eml"))

    def find(self, message_id: str) -> tuple[Mail, ...]:
        """Give the mails with this Message-ID (angle brackets included): more than one was delivered more than once."""
        pattern = f"*-{message_hash(message_id)}.eml"
        return tuple(_read(path) for path in sorted(self.sort().glob(pattern)))

    def misbehave(self, faults: Faults) -> None:
        """Make the sink misbehave from its next command on; a new call starts the count of `times` anew."""
        self.directory.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
        new = self.directory / f"{FAULTS_FILE}.{secrets.token_hex(4)}"
        new.write_text(faults.model_dump_json(), encoding="utf-8")
        new.replace(self.directory / FAULTS_FILE)

    def behave(self) -> None:
        """End all misbehaviour."""
        (self.directory / FAULTS_FILE).unlink(missing_ok=True)

    async def wait_for(self, count: int, limit_s: float) -> tuple[Mail, ...]:
        """Wait until at least `count` mails were delivered and give them; raises TimeoutError after `limit_s`."""
        if not await until(lambda: self.count() >= count, limit_s):
            raise TimeoutError(f"{self.count()} of {count} mails were delivered within {limit_s} s")
        return self.mails()

    def __iter__(self) -> Iterator[Mail]:
        return iter(self.mails())


def recipient_hash(address: str) -> str:
    """Name a recipient without naming it: SHA-256 of the address in small letters, in hex."""
    return hashlib.sha256(address.strip().lower().encode()).hexdigest()


def message_hash(message_id: str) -> str:
    """Give the part of a mail's file name that tells its Message-ID."""
    return hashlib.sha256(message_id.strip().encode()).hexdigest()[:32]


def spool_entry(number: int, message_id: str, content: bytes) -> bytes:
    """Give a delivered mail as it stands in the spool: a line with number, hash of the Message-ID and length, then its bytes."""
    return b"%09d %b %d\n" % (number, message_hash(message_id).encode("ascii"), len(content)) + content


def spooled(spool: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """Give the mails of a spool from where it stands, each with the name of its file, and stop behind the last whole one.

    The sink may have been killed in the middle of one: that was never delivered.
    """
    while True:
        begun = spool.tell()
        head = spool.readline(_HEAD_BYTES_MAX)
        if head.endswith(b"\n"):
            number, hashed, length = head.split()
            content = spool.read(int(length))
            if len(content) == int(length):
                yield f"{number.decode('ascii')}-{hashed.decode('ascii')}.eml", content
                continue
        spool.seek(begun)
        return


def _read(path: Path, *, headers_only: bool = False) -> Mail:
    parser = BytesParser(EmailMessage, policy=SMTP_POLICY)
    return Mail(path, parser.parsebytes(path.read_bytes(), headersonly=headers_only))
