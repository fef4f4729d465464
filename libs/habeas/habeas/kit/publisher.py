"""Publishing for platform services: a request, a tick, a policy change.

::

    async with Publisher("kafka:9092", source="accounts", issuer=issuer) as habeas:
        request_id = await habeas.request(
            Right.ERASURE, account_id="acc_7Q2M", country="DE", details={"ground": "consent_withdrawn"}
        )
        await habeas.tick(as_of)
        await habeas.policy_change(change)
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

from aiokafka import AIOKafkaProducer

from habeas.chassis.clock import Clock, SystemClock
from habeas.chassis.ids import uuid7
from habeas.contracts.envelope import Envelope, encode_headers
from habeas.contracts.model import Event
from habeas.contracts.platform import PolicyChanged, RequestSubmitted, RetentionTicked
from habeas.contracts.vocabulary import Right
from habeas.kit.attestation import Issuer, attest

_REQUEST_TIMEOUT_MS: Final = 10_000


class Publisher:
    """Sends messages to the fleet's input topics; each call returns when all in-sync replicas have the record.

    Calling again with the same ``request_id``, ``tick_id`` or change is safe: the fleet takes each only once. Times of a request that
    are left out are made anew with each call; they do not make it another request, and the earliest ``received_at`` counts.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        source: str,
        issuer: Issuer | None = None,
        clock: Clock | None = None,
        kafka: Mapping[str, Any] | None = None,
    ) -> None:
        """Name the brokers, the service that sends and, for requests, who vouches; ``kafka`` is passed on to aiokafka (TLS, SASL)."""
        self._clock: Clock = clock or SystemClock()
        self._source = source
        self._issuer = issuer
        self._bootstrap = bootstrap
        self._options = dict(kafka or {})
        self._producer: AIOKafkaProducer | None = None
        self.place: tuple[str, int, int] | None = None
        """Topic, partition and offset of the message that was sent last."""

    async def __aenter__(self) -> Self:
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            acks="all",
            enable_idempotence=True,
            linger_ms=1,
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
            **self._options,
        )
        await self._producer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._producer is not None:
            await self._producer.stop()
            self._producer = None

    async def request(  # noqa: PLR0913 -- a request has this many parts, all by name
        self,
        right: Right,
        *,
        account_id: str,
        request_id: UUID | None = None,
        received_at: datetime | None = None,
        channel: str = "account-settings",
        country: str | None = None,
        language: str | None = None,
        regime: str | None = None,
        details: Mapping[str, Any] | None = None,
        method: str = "session",
        acr: str = "mfa",
        authenticated_at: datetime | None = None,
        traceparent: str | None = None,
    ) -> UUID:
        """Send one request and give its id. Raises ``pydantic.ValidationError`` before anything is sent when a part is wrong."""
        now = self._clock.now()
        request_id = request_id or uuid7(self._clock)
        body: dict[str, Any] = {
            "request_id": str(request_id),
            "right": right.value,
            "account_id": account_id,
            "received_at": _rfc3339(received_at or now),
            "channel": channel,
            "regime": regime,
            "country": country,
            "language": language,
            "details": None if details is None else {"right": right.value, **details},
        }
        if self._issuer is not None:
            body["attestation"] = {
                "method": method,
                "acr": acr,
                "authenticated_at": _rfc3339(authenticated_at or now),
                "issuer": self._issuer.name,
                "key_id": self._issuer.key_id,
            }
            body = attest(body, self._issuer.private_key)
        value = json.dumps(body, separators=(",", ":")).encode()
        await self._send(RequestSubmitted.decode(value), value, traceparent)
        return request_id

    async def tick(
        self, as_of: datetime, *, tick_id: UUID | None = None, scope: str = "all", traceparent: str | None = None
    ) -> UUID:
        """Say that what is past its retention at ``as_of`` is to be purged; gives the tick's id."""
        event = RetentionTicked(tick_id=tick_id or uuid7(self._clock), as_of=as_of, scope=scope)
        await self._send(event, event.encode(), traceparent)
        return event.tick_id

    async def policy_change(self, change: PolicyChanged, *, traceparent: str | None = None) -> None:
        """Announce a policy change."""
        await self._send(change, change.encode(), traceparent)

    async def send_raw(self, topic: str, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]) -> None:
        """Send bytes as they are, for tests of what the fleet does with bad input."""
        await self._started().send_and_wait(topic, value, key, headers=list(headers))

    async def _send(self, event: Event, value: bytes, traceparent: str | None) -> None:
        now = self._clock.now()
        envelope = Envelope(uuid7(self._clock), event.type, self._source, now, event.subject(), traceparent)
        sent = await self._started().send_and_wait(
            event.topic.name, value, event.key().encode(), headers=encode_headers(envelope)
        )
        self.place = (sent.topic, sent.partition, sent.offset)

    def _started(self) -> AIOKafkaProducer:
        if self._producer is None:
            message = "the publisher is used inside of `async with`"
            raise RuntimeError(message)
        return self._producer


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
