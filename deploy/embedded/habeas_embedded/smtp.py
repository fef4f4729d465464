"""SMTP sink: a mail server that delivers every mail into a directory, and can be told to misbehave.

It runs as a process of its own (`python -m habeas_embedded.smtp --port PORT --directory DIRECTORY`), so that it can be
killed like a real one. Each accepted mail becomes one file `new/<number>-<hash of Message-ID>.eml` that appears complete
(written aside, then renamed), with the envelope in Return-Path and Delivered-To. Faults are read from `faults.json` of the
directory at every command, else from the variable HABEAS_SMTP_FAULTS with which the process was started.
"""

import argparse
import asyncio
import os
import signal
import stat
import sys
from email.parser import BytesHeaderParser
from email.policy import SMTP as SMTP_POLICY
from functools import partial
from pathlib import Path
from typing import Final

from aiosmtpd.smtp import SMTP, Envelope, Session
from pydantic import ValidationError

from habeas_embedded.errors import ServerFailed
from habeas_embedded.mailbox import FAULTS_FILE, MAIL_DIRECTORY, Faults, Mailbox, message_hash, recipient_hash
from habeas_embedded.ports import LOOPBACK, answers, free_port
from habeas_embedded.processes import Child, end_of_log
from habeas_embedded.runs import Run
from habeas_embedded.waiting import until

__all__ = ["Sink", "SmtpServer", "main"]

_START_LIMIT_S: Final = 30.0
_STOP_LIMIT_S: Final = 5.0
_START_TRIES: Final = 3
_MAIL_BYTES_MAX: Final = 32 * 1024 * 1024


class SmtpServer:
    """The sink process of one run; its port stays the same over stop, kill and start."""

    name = "smtp"

    def __init__(self, run: Run) -> None:
        self._run = run
        self._child: Child | None = None
        self.host = LOOPBACK
        self.port = 0
        self.log = run.logs / "smtp.log"
        self.mailbox = Mailbox(run.directory / "mail")

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._child is not None and self._child.alive

    async def start(self) -> None:
        """Start the sink and wait until it accepts connections; raises ServerFailed."""
        tries = _START_TRIES if self.port == 0 else 1
        for left in reversed(range(tries)):
            if tries > 1:
                self.port = free_port()
            arguments = ("--port", str(self.port), "--directory", str(self.mailbox.directory))
            self._child = Child("smtp", (sys.executable, "-m", "habeas_embedded.smtp", *arguments), self.log)
            self._child.spawn()
            self._run.remember(self._child)
            if await until(lambda: not self.alive or answers(self.host, self.port), _START_LIMIT_S) and self.alive:
                return
            await self.kill()
            if left == 0:
                raise ServerFailed(
                    f"the SMTP sink did not start; its log {self.log} ends with:\n{end_of_log(self.log)}"
                )

    async def stop(self) -> None:
        """Stop in order, or after a limit at once."""
        if self._child is not None and self._child.alive:
            await self._child.stop(_STOP_LIMIT_S)
            self._run.forget(self._child)

    async def kill(self) -> None:
        """End the sink as a crash would."""
        if self._child is not None:
            await self._child.kill()
            self._run.forget(self._child)


class Sink:
    """What the sink does with commands; one for all connections."""

    def __init__(self, directory: Path) -> None:
        self._faults_file = directory / FAULTS_FILE
        self._mails = directory / MAIL_DIRECTORY
        directory.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
        self._mails.mkdir(exist_ok=True)
        self._aside = directory / "tmp"
        self._aside.mkdir(exist_ok=True)
        names = (path.name for path in self._mails.glob("*.eml"))
        self._number = max((int(name.partition("-")[0]) for name in names), default=0)
        self._told = ""
        self._faults = Faults()
        self._happened = 0

    async def handle_RCPT(  # noqa: N802 (aiosmtpd calls handlers by the command's name)
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """Take or refuse a recipient."""
        faults = self._current()
        if faults.refuse_all or recipient_hash(address) in faults.refuse_recipients:
            return "550 5.1.1 no such mailbox" if faults.refuse_code == 550 else "450 4.2.1 mailbox busy, try again"  # noqa: PLR2004 (RFC 5321, 4.2.3)
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 (the same)
        """Deliver a whole mail, or do what the faults say."""
        faults = self._current()
        if faults.delay_s:
            await asyncio.sleep(faults.delay_s)
        what = faults.after_dot
        if faults.times is not None and self._happened >= faults.times:
            what = "deliver"
        if what != "deliver":
            self._happened += 1
        if what == "refuse":
            return "451 4.3.0 not taken, try again"
        if what != "drop":
            self._deliver(envelope)
        if what in ("drop", "deliver_and_drop") and isinstance(server.transport, asyncio.Transport):
            server.transport.abort()
        return "250 2.0.0 OK"

    def _current(self) -> Faults:
        """Read the faults anew when the file has changed; an unreadable file is the same as refusing everything."""
        try:
            told = self._faults_file.read_text(encoding="utf-8")
        except FileNotFoundError:
            told = os.environ.get("HABEAS_SMTP_FAULTS", "{}")
        if told != self._told:
            self._told, self._happened = told, 0
            try:
                self._faults = Faults.model_validate_json(told)
            except ValidationError:
                self._faults = Faults(refuse_all=True)  # a test that meant to break something must not see it work
        return self._faults

    def _deliver(self, envelope: Envelope) -> None:
        content = envelope.original_content or b""
        header = BytesHeaderParser(policy=SMTP_POLICY).parsebytes(content)
        self._number += 1
        name = f"{self._number:09d}-{message_hash(str(header.get('Message-ID', '')))}.eml"
        trace = [f"Return-Path: <{envelope.mail_from}>", *(f"Delivered-To: {each}" for each in envelope.rcpt_tos)]
        aside = self._aside / name
        aside.write_bytes("".join(f"{line}\r\n" for line in trace).encode() + content)
        aside.rename(self._mails / name)


async def _serve(port: int, directory: Path) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    protocol = partial(
        SMTP, Sink(directory), hostname="sink.invalid", enable_SMTPUTF8=True, data_size_limit=_MAIL_BYTES_MAX, loop=loop
    )
    server = await loop.create_server(protocol, host=LOOPBACK, port=port)
    await ended.wait()
    server.close()


def main() -> None:
    """Run the sink until SIGTERM."""
    parser = argparse.ArgumentParser(description="SMTP sink: delivers every mail into a directory")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--directory", type=Path, required=True)
    given = parser.parse_args()
    asyncio.run(_serve(given.port, given.directory))


if __name__ == "__main__":
    main()
