"""SMTP sink: a mail server that delivers every mail into a directory, and can be told to misbehave.

It runs as a process of its own (`python -m habeas_embedded.smtp --port PORT --directory DIRECTORY`), so that it can be
killed like a real one. Each accepted mail is appended to the directory's spool (see `mailbox.py`), with the envelope in
Return-Path and Delivered-To, before it is answered. Faults are read from `faults.json` of the
directory whenever a recipient or a whole mail has come, else from the variable HABEAS_SMTP_FAULTS with which the process was
started. What it says to clients is in `conversation.py`.
"""

import argparse
import asyncio
import os
import re
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import uvloop
from pydantic import ValidationError
from typing_extensions import override

from habeas_embedded.conversation import Conversation, Ending, Envelope
from habeas_embedded.mailbox import FAULTS_FILE, SPOOL_FILE, Faults, Mailbox, recipient_hash, spool_entry, spooled
from habeas_embedded.own_server import OwnServer
from habeas_embedded.ports import LOOPBACK, answers, free_port
from habeas_embedded.processes import Child
from habeas_embedded.runs import Run

__all__ = ["Sink", "SmtpServer", "main"]

_STOP_LIMIT_S: Final = 5.0
_MESSAGE_ID: Final = re.compile(rb"^Message-ID:((?:[^\r\n]|\r\n[ \t])*)", re.IGNORECASE | re.MULTILINE)
_Seen = tuple[int, int, int] | None  # by which a changed file of faults is known


class SmtpServer(OwnServer):
    """The sink process of one run; its mailbox stays when it is killed."""

    name = "smtp"
    title = "The SMTP sink"

    def __init__(self, run: Run, say: Callable[[str], None] = lambda _: None) -> None:
        super().__init__(run, say)
        self.host = LOOPBACK
        self.port = 0
        self.mailbox = Mailbox(run.directory / "mail")

    @property
    @override
    def stop_limit_s(self) -> float:
        """How long it may stand still while it is stopped."""
        return _STOP_LIMIT_S

    @override
    async def prepare(self) -> None:
        """Do nothing: the process makes its directory itself."""

    @override
    def choose_address(self) -> None:
        """Choose a port."""
        self.port = free_port()

    @override
    def make_child(self) -> Child:
        """Return the process."""
        arguments = ("--port", str(self.port), "--directory", str(self.mailbox.directory))
        return Child("smtp", (sys.executable, "-m", "habeas_embedded.smtp", *arguments), self.log)

    @override
    async def answers(self) -> str | None:
        """Return None when it accepts connections, else what is seen instead."""
        return None if answers(self.host, self.port) else "its port is closed yet"


class Sink:
    """What the sink does with recipients and mails; one for all connections."""

    def __init__(self, directory: Path) -> None:
        self._faults_file = str(directory / FAULTS_FILE)
        directory.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
        self._number = 0
        self._spool = (directory / SPOOL_FILE).open("a+b", buffering=0)
        with (directory / SPOOL_FILE).open("rb") as earlier:
            for name, _ in spooled(earlier):
                self._number = int(name.partition("-")[0])
            self._end = self._spool.truncate(earlier.tell())
        self._seen: _Seen = None
        self._faults = _faults_told(os.environ.get("HABEAS_SMTP_FAULTS", "{}"))
        self._without_file = self._faults
        self._happened = 0

    def recipient(self, address: str) -> bytes | None:
        """Refuse a recipient with a reply, or take it with None."""
        faults = self._current()
        if faults.refuse_all or (faults.refuse_recipients and recipient_hash(address) in faults.refuse_recipients):
            return b"550 5.1.1 no such mailbox" if faults.refuse_code == 550 else b"450 4.2.1 mailbox busy, try again"  # noqa: PLR2004 (RFC 5321, 4.2.3)
        return None

    def delay_s(self) -> float:
        """Give how long a whole mail waits before anything is done with it."""
        return self._current().delay_s

    def mail(self, envelope: Envelope, content: bytes) -> Ending:
        """Deliver a whole mail, or do what the faults say."""
        faults = self._faults
        what = faults.after_dot
        if faults.times is not None and self._happened >= faults.times:
            what = "deliver"
        if what != "deliver":
            self._happened += 1
        if what == "refuse":
            return Ending.REFUSED
        if what != "drop" and not self._deliver(envelope, content):
            return Ending.REFUSED
        return Ending.TAKEN if what == "deliver" else Ending.CUT

    def _current(self) -> Faults:
        """Read the faults anew when the file has changed; an unreadable file is the same as refusing everything."""
        try:
            found = os.stat(self._faults_file)  # noqa: PTH116 (a Path would cost as much as the whole rest of a command)
        except FileNotFoundError:
            seen = None
        else:
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        if seen != self._seen:
            self._seen, self._happened = seen, 0
            self._faults = self._without_file if seen is None else self._read()
        return self._faults

    def _read(self) -> Faults:
        try:
            return _faults_told(Path(self._faults_file).read_text(encoding="utf-8"))
        except FileNotFoundError:
            self._seen = None
            return self._without_file

    def _deliver(self, envelope: Envelope, content: bytes) -> bool:
        """Append a mail to the spool, whole or not at all; False when there is no room for it."""
        found = _MESSAGE_ID.search(content, 0, content.find(b"\r\n\r\n") + 2)
        message_id = b"" if found is None else found[1].replace(b"\r\n", b"")
        trace = [f"Return-Path: <{envelope.sender}>", *(f"Delivered-To: {each}" for each in envelope.recipients)]
        head = "".join(f"{line}\r\n" for line in trace).encode()
        entry = spool_entry(self._number + 1, message_id.decode("utf-8", "surrogateescape"), head + content)
        try:
            is_whole = self._spool.write(entry) == len(entry)
        except OSError:
            is_whole = False
        if not is_whole:
            self._spool.truncate(self._end)
            return False
        self._number += 1
        self._end += len(entry)
        return True


def _faults_told(text: str) -> Faults:
    try:
        return Faults.model_validate_json(text)
    except ValidationError:
        return Faults(refuse_all=True)  # a test that meant to break something must not see it work


async def _serve(port: int, directory: Path) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    sink = Sink(directory)
    server = await loop.create_server(lambda: Conversation(sink), host=LOOPBACK, port=port)
    await ended.wait()
    server.close()


def main() -> None:
    """Run the sink until SIGTERM."""
    parser = argparse.ArgumentParser(description="SMTP sink: delivers every mail into a directory")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--directory", type=Path, required=True)
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(given.port, given.directory))


if __name__ == "__main__":
    main()
