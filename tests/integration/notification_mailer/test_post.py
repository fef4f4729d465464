"""The way to the mail server: protection, login, kept connections, addresses beyond ASCII."""

import asyncio
import datetime as dt
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from habeas.contracts.vocabulary import MailRefusal
from notification_mailer.gateways import Letter, SmtpPost
from notification_mailer.lifecycle.mails import Report, Result
from notification_mailer.settings import SmtpTls
from tests.integration.notification_mailer.conftest import smtp_settings

SENDER = "privacy@example.org"
LETTER = Letter("ann@example.net", b"Subject: x\r\n\r\n.a line that begins with a dot\r\n..\r\n")


class Server:
    """A mail server in this process that remembers what it was told."""

    def __init__(self) -> None:
        self.mails: list[tuple[list[str], bytes, str | None]] = []
        self.commands = 0
        self.transports: list[asyncio.Transport] = []
        self.port = 0

    async def handle_EHLO(  # noqa: N802 -- aiosmtpd calls handlers by the command's name
        self, server: SMTP, session: Session, _envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        """Remember the connection."""
        session.host_name = hostname
        self.transports.append(cast("asyncio.Transport", server.transport))  # uvloop's are no subclass of it
        return responses

    async def handle_MAIL(  # noqa: N802 -- the same
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Count mail transactions."""
        self.commands += 1
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 -- the same
        """Remember the mail and by which TLS it came."""
        version = session.ssl["ssl_object"].version() if isinstance(session.ssl, dict) else None
        content = envelope.original_content or b""
        self.mails.append((list(envelope.rcpt_tos), content, version))
        return "250 OK"


@asynccontextmanager
async def serve(
    context: ssl.SSLContext | None = None, *, implicit: bool = False, **options: Any
) -> AsyncIterator[Server]:
    """Run a server on a free port of loopback."""
    handler = Server()

    def protocol() -> SMTP:
        start = None if implicit else context
        return SMTP(handler, hostname="sink.invalid", tls_context=start, require_starttls=start is not None, **options)

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0, ssl=context if implicit else None)
    handler.port = server.sockets[0].getsockname()[1]
    try:
        yield handler
    finally:
        server.close()
        for transport in handler.transports:
            with suppress(AttributeError):  # of Python 3.11.2, when aiosmtpd has closed the connection twice
                transport.abort()
        await server.wait_closed()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A certificate of 127.0.0.1 that signs itself, and a server's context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sink")])
    day = dt.timedelta(days=1)
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - 3650 * day)
        .not_valid_after(now + 3650 * day)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    directory = tmp_path_factory.mktemp("certificate")
    (directory / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    return directory / "cert.pem", context


async def yes() -> bool:
    """A marker that is committed."""
    return True


async def lost() -> bool:
    """A marker that finds the mail taken over."""
    return False


@asynccontextmanager
async def post_to(server: Server, tls: SmtpTls = SmtpTls.NONE, **changed: Any) -> AsyncIterator[SmtpPost]:
    """A post with two seconds for everything."""
    post = SmtpPost(smtp_settings("127.0.0.1", server.port, **changed), tls, SENDER)
    try:
        yield post
    finally:
        await post.close()


@pytest.mark.parametrize("tls", [SmtpTls.STARTTLS, SmtpTls.IMPLICIT])
async def test_mail_is_sent_over_tls_1_3(certificate: tuple[Path, ssl.SSLContext], tls: SmtpTls) -> None:
    """Both ways end in TLS 1.3 with the server's name checked; the text arrives as it was written."""
    ca_file, context = certificate
    async with (
        serve(context, implicit=tls is SmtpTls.IMPLICIT) as server,
        post_to(server, tls, smtp_ca_file=ca_file) as post,
    ):
        assert await post.deliver(LETTER, yes) == Report(Result.TAKEN, 250)
        ((recipients, content, version),) = server.mails
    assert recipients == ["ann@example.net"]
    assert content == LETTER.text
    if tls is SmtpTls.STARTTLS:
        assert version == "TLSv1.3"


@pytest.mark.parametrize("tls", list(SmtpTls))
def test_the_loop_of_services_is_as_good(certificate: tuple[Path, ssl.SSLContext], tls: SmtpTls) -> None:
    """Services run on uvloop, whose transports are others: protected or not, mail is sent, and a connection is cut when it must be."""
    ca_file, context = certificate

    async def send_and_fence() -> None:
        async with (
            serve(None if tls is SmtpTls.NONE else context, implicit=tls is SmtpTls.IMPLICIT) as server,
            post_to(server, tls, smtp_ca_file=ca_file) as post,
        ):
            assert await post.deliver(LETTER, yes) == Report(Result.TAKEN, 250)
            assert await post.deliver(LETTER, lost) == Report(Result.FENCED)
            assert post._idle == []
            assert await post.deliver(LETTER, yes) == Report(Result.TAKEN, 250)
            assert [content for _, content, _ in server.mails] == [LETTER.text] * 2

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(send_and_fence())


async def test_nothing_is_said_to_a_stranger(certificate: tuple[Path, ssl.SSLContext]) -> None:
    """A certificate that nobody vouches for ends the conversation before the person's address is named."""
    async with serve(certificate[1]) as server, post_to(server, SmtpTls.STARTTLS) as post:
        assert await post.deliver(LETTER, yes) == Report(Result.UNREACHABLE)
        assert server.commands == 0


async def test_a_server_without_tls_gets_nothing() -> None:
    """Where STARTTLS is wanted and not offered, nothing is sent in plain: the mail waits."""
    async with serve() as server, post_to(server, SmtpTls.STARTTLS) as post:
        assert await post.deliver(LETTER, yes) == Report(Result.UNREACHABLE)
        assert server.commands == 0


async def test_older_tls_is_refused(certificate: tuple[Path, ssl.SSLContext]) -> None:
    """A server that offers TLS 1.2 at most is not spoken with."""
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.load_cert_chain(certificate[0], certificate[0].with_name("key.pem"))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serve(old) as server, post_to(server, SmtpTls.STARTTLS, smtp_ca_file=certificate[0]) as post:
        assert (await post.deliver(LETTER, yes)).result is Result.UNREACHABLE
        assert server.commands == 0


async def test_a_wrong_password_refuses_nobodys_mail(certificate: tuple[Path, ssl.SSLContext]) -> None:
    """535 to the login is the operator's trouble: the mail waits, and the person is not called unreachable."""

    def refuse(*_: object) -> AuthResult:
        return AuthResult(success=False, handled=False)

    secret = {"smtp_username": "mailer", "smtp_password": "wrong", "smtp_ca_file": certificate[0]}
    async with (
        serve(certificate[1], authenticator=refuse, auth_required=True) as server,
        post_to(server, SmtpTls.STARTTLS, **secret) as post,
    ):
        assert await post.deliver(LETTER, yes) == Report(Result.UNREACHABLE, 535)


async def test_a_kept_connection_that_ended_costs_nothing() -> None:
    """A server may close an idle connection at any time: the next mail goes over a new one, once."""
    async with serve() as server, post_to(server) as post:
        assert (await post.deliver(LETTER, yes)).result is Result.TAKEN
        assert (await post.deliver(LETTER, yes)).result is Result.TAKEN
        assert len({id(transport) for transport in server.transports}) == 1
        server.transports[0].abort()
        assert (await post.deliver(LETTER, yes)).result is Result.TAKEN
        assert len(server.mails) == 3


async def test_a_marker_that_fails_keeps_the_dot_back() -> None:
    """When the marker cannot be committed the connection is cut: the server has a text without end, which is no mail."""

    async def fail() -> bool:
        raise RuntimeError

    async with serve() as server, post_to(server) as post:
        with pytest.raises(RuntimeError):
            await post.deliver(LETTER, fail)
        assert await post.deliver(LETTER, lost) == Report(Result.FENCED)
        assert (await post.deliver(LETTER, yes)).result is Result.TAKEN
        assert len(server.mails) == 1


async def test_an_international_address_needs_a_server_that_knows_them() -> None:
    """With SMTPUTF8 it is delivered, without it the mail is refused (RFC 6531 section 3.1), and others are not harmed."""
    letter = Letter("jörg@example.net", LETTER.text)
    async with serve(enable_SMTPUTF8=True) as server, post_to(server) as post:
        assert (await post.deliver(letter, yes)).result is Result.TAKEN
        assert server.mails[0][0] == ["jörg@example.net"]
    async with serve(enable_SMTPUTF8=False) as server, post_to(server) as post:
        assert await post.deliver(letter, yes) == Report(Result.REFUSED, refusal=MailRefusal.NO_SMTPUTF8)
        assert (await post.deliver(LETTER, yes)).result is Result.TAKEN


@pytest.mark.parametrize("address", ["a\r\nRSET\r\n@example.net", "\ud800@example.net", "a\x00@example.net"])
async def test_what_would_break_a_command_is_never_said(address: str) -> None:
    """Whoever made the letter: an address with a line end or with what UTF-8 cannot hold is refused, and others are not harmed."""
    async with serve(enable_SMTPUTF8=True) as server, post_to(server) as post:
        refused = await post.deliver(Letter(address, LETTER.text), yes)
        assert refused == Report(Result.REFUSED, refusal=MailRefusal.ADDRESS_SYNTAX)
        assert (await post.deliver(LETTER, yes)).result is Result.TAKEN
        assert server.commands == 1
