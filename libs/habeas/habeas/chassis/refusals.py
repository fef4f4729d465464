"""Why Kafka cannot be used, in words for the person who set it up.

The client tells every failure of a start alike. So a broker is asked over a connection of our own, whose errors are the server's; what is
told holds places, variables and what to write, and neither a password nor a server's own text.
"""

import errno
import ssl
from collections.abc import Collection
from contextlib import asynccontextmanager
from socket import gaierror
from typing import TYPE_CHECKING, Any, Final

from aiokafka import errors
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.protocol.metadata import MetadataRequest

from habeas.chassis.settings import ChassisSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["TopicsForbidden", "TopicsMissing", "security_options", "why"]

_ASK_MS: Final = 5_000
_TOPICS_SHOWN: Final = 3
_TROUBLE: Final = (errors.KafkaError, OSError, TimeoutError)
_LOG_IN: Final = "HABEAS_KAFKA_SASL_USERNAME, HABEAS_KAFKA_SASL_PASSWORD and HABEAS_KAFKA_SASL_MECHANISM"


class TopicsMissing(Exception):
    """Kafka answers, but topics of the catalogue are not there."""

    def __init__(self, names: Collection[str]) -> None:
        self.names = tuple(sorted(names))
        super().__init__(", ".join(self.names))


class TopicsForbidden(TopicsMissing):
    """Kafka answers, and does not let this user see topics; whether they are there is not known."""


def security_options(settings: ChassisSettings) -> dict[str, Any]:
    """Return how every aiokafka client is to speak to the brokers. Raises OSError for files that cannot be read."""
    protocol = "SASL_" if settings.kafka_sasl_mechanism else ""
    context = settings.kafka_ssl_context()
    options: dict[str, Any] = {} if context is None else {"ssl_context": context}
    options["security_protocol"] = protocol + ("SSL" if context is not None else "PLAINTEXT")
    if settings.kafka_sasl_mechanism and settings.kafka_sasl_password:
        options["sasl_mechanism"] = settings.kafka_sasl_mechanism
        options["sasl_plain_username"] = settings.kafka_sasl_username
        options["sasl_plain_password"] = settings.kafka_sasl_password.get_secret_value()
    return options


async def why(settings: ChassisSettings, error: BaseException) -> str:
    """Return why Kafka could not be used, after ``error``: which variable, which place, the cause, what to write.

    Asks the brokers where the error does not say it, for five seconds each at most. Never raises what they raise.
    """
    told = _of_rights(error, settings)
    if told is not None:
        return told
    refused = []
    for host, port, _ in collect_hosts(settings.kafka_bootstrap, randomize=False):
        try:
            async with _connected(settings, host, port) as connection:
                await connection.send(MetadataRequest([]))
        except _TROUBLE as trouble:
            refused.append(f"{host}:{port} {_cause(trouble, settings)}")
        else:
            return (
                f"HABEAS_KAFKA_BOOTSTRAP: {host}:{port} answers, and the brokers that it names do not ({type(error).__name__}); mend their "
                "advertised.listeners, or let packets through to them"
            )
    return f"HABEAS_KAFKA_BOOTSTRAP: {'; '.join(dict.fromkeys(refused))}"


@asynccontextmanager
async def _connected(settings: ChassisSettings, host: str, port: int) -> "AsyncIterator[Any]":
    connection = await create_conn(host, port, request_timeout_ms=_ASK_MS, **security_options(settings))
    try:
        yield connection
    finally:
        connection.close()


def _of_rights(error: BaseException, settings: ChassisSettings) -> str | None:
    user = settings.kafka_sasl_username
    whom = "this client" if user is None else f"the user of HABEAS_KAFKA_SASL_USERNAME ({user})"
    match error:
        case TopicsForbidden():
            return f"Kafka does not let {whom} see {_shown(error.names)}; give it DESCRIBE, READ and WRITE as docs/runbooks/kafka.md says"
        case TopicsMissing():
            return f"Kafka does not have {_shown(error.names)}; run `habeas migrate`"
        case errors.TopicAuthorizationFailedError():
            return f"Kafka does not let {whom} use a topic; give it READ and WRITE as docs/runbooks/kafka.md says"
        case errors.GroupAuthorizationFailedError():
            return f"Kafka does not let {whom} join its group; give it READ on the group of the service's name"
        case errors.ClusterAuthorizationFailedError():
            return f"Kafka does not let {whom} write idempotently; give it IDEMPOTENT_WRITE on the cluster"
        case _:
            return None


def _shown(names: tuple[str, ...]) -> str:
    more = len(names) - _TOPICS_SHOWN
    return ", ".join(names[:_TOPICS_SHOWN]) + (f" and {more} more topics" if more > 0 else "")


def _cause(error: BaseException, settings: ChassisSettings) -> str:
    match error:
        case errors.SaslAuthenticationFailed() | errors.AuthenticationFailedError():
            return f"does not accept the user or the password; mend {_LOG_IN}"
        case errors.UnsupportedSaslMechanismError():
            return f"does not offer {settings.kafka_sasl_mechanism}; write one that it offers as HABEAS_KAFKA_SASL_MECHANISM"
        case gaierror():
            return "cannot be reached: the name of the host does not resolve; mend the host"
        case ssl.SSLCertVerificationError():
            return (
                f"shows a certificate that is not accepted (OpenSSL: {error.verify_code}); write the authority's file as "
                "HABEAS_KAFKA_SSL_CAFILE, and the host as the certificate has it"
            )
        case TimeoutError():
            return f"does not answer in time; {_of_protocol(settings)}"
        case ssl.SSLError():
            return "does not agree with us on TLS; mend HABEAS_KAFKA_TLS or the files of HABEAS_KAFKA_SSL_…"
        case OSError(errno=errno.ECONNREFUSED):
            return "refuses the connection: nothing listens there; mend host and port, or start it"
        case _:
            return f"ends the connection; {_of_protocol(settings)}"


def _of_protocol(settings: ChassisSettings) -> str:
    """Say which settings make a broker hang up or keep silent: one of both speaks TLS, or wants a login, and the other does not."""
    tls = "true and the listener may speak plain" if settings.kafka_tls else "not true and the listener may speak TLS"
    login = "" if settings.kafka_sasl_mechanism else f", or it wants a login: set {_LOG_IN}"
    return f"HABEAS_KAFKA_TLS is {tls}{login}"
