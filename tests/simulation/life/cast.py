"""The services as they are, built by their own composition roots; only what lies outside of the process is replaced.

That is: the clock, the pool behind the platform's store, the mail server. Policy and map are read once, since nobody changes them.
"""

import json
import os
import random
import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast
from unittest.mock import patch
from uuid import UUID

import asyncpg

import erasure_executor.app
import erasure_executor.settings
import export_builder.app
import export_builder.settings
import notification_mailer.app
import notification_mailer.settings
import request_intake.app
import request_intake.settings
from habeas.chassis import service as chassis_service
from habeas.chassis.producer import Record
from habeas.contracts.envelope import Envelope, encode_headers
from habeas.contracts.platform import RequestSubmitted
from habeas.contracts.topics import DELIVERIES, DSR_REQUESTS, ERASURES, EXPORTS, POLICY_CHANGES, REQUESTS
from habeas.contracts.vocabulary import Right
from habeas.datamap.errors import StoreError
from habeas.datamap.postgres import PostgresStore, StoreOptions
from habeas.datamap.settings import DataMapSettings
from habeas.kit.attestation import attest
from habeas.sealing.settings import SealingSettings
from notification_mailer import gateways
from tests.simulation.actors import Pool
from tests.simulation.cast import Part, Role
from tests.simulation.field import CONNECTIONS_MAX, LOCK_TIMEOUT_MS
from tests.simulation.life import shop
from tests.simulation.life.mail import MemoryPost, Server
from tests.simulation.schedule import Schedule
from tests.simulation.world import SETTINGS, World
from tests.support.delivery import PROTECTOR

INTAKE: Final = "request-intake"
EXECUTOR: Final = "erasure-executor"
EXPORTER: Final = "export-builder"
MAILER: Final = "notification-mailer"
KEY_RING: Final = f"wrap={'A' * 43} derive={'B' * 42}A"  # that of PROTECTOR

_KEK_VARIABLE: Final = "SIMULATED_KEY_RING"
_RIGHTS: Final = {
    Right.ERASURE: 8,
    Right.ACCESS: 6,
    Right.PORTABILITY: 2,
    Right.RECTIFICATION: 1,
    Right.OBJECTION: 1,
}
_APPS: Final[Mapping[str, Any]] = {
    INTAKE: request_intake.app,
    EXECUTOR: erasure_executor.app,
    EXPORTER: export_builder.app,
    MAILER: notification_mailer.app,
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody submitted."""

    request_id: UUID
    account: str
    right: Right
    is_verified: bool
    is_narrow: bool  # some categories only
    value: bytes


class Lives:
    """The cast of the services; remembers what was asked for, and what the platform wrote meanwhile."""

    hears: Final = {
        INTAKE: (DSR_REQUESTS, ERASURES, EXPORTS, DELIVERIES),
        EXECUTOR: (REQUESTS,),
        EXPORTER: (REQUESTS, ERASURES),
        MAILER: (REQUESTS, POLICY_CHANGES),
    }
    topics: Final = (REQUESTS, ERASURES, EXPORTS, DELIVERIES, DSR_REQUESTS)
    flow: Final = (
        ("consumer", INTAKE),
        ("consumer", INTAKE),
        ("worker", INTAKE),
        ("open_received", INTAKE),
        ("relay", INTAKE),
        *[(kind, service) for kind in ("consumer", "consumer", "worker") for service in (EXECUTOR, EXPORTER, MAILER)],
        ("erase_due", EXECUTOR),
        ("erase_large", EXECUTOR),
        ("submit", INTAKE),
        ("build_due", EXPORTER),
        ("build_large", EXPORTER),
        ("send_request_mails", MAILER),
        *[("relay", service) for service in (EXECUTOR, EXPORTER, MAILER)],
        ("consumer", INTAKE),
        ("consumer", INTAKE),
        ("worker", INTAKE),
        ("relay", INTAKE),
        ("withdraw_expired", EXPORTER),
        ("delete_withdrawn", EXPORTER),
        ("take_back_abandoned", MAILER),
    )
    protection: Final = PROTECTOR
    trouble: Final = (StoreError,)
    calm_s: Final = 30.0
    wanted: Final = {
        INTAKE: "(SELECT count(*) FROM request_intake.requests WHERE state = 'received')",
        EXECUTOR: "(SELECT count(*) FROM erasure_executor.erasures WHERE state <> 'completed')",
        EXPORTER: "(SELECT count(*) FROM export_builder.exports WHERE state NOT IN ('completed', 'deleted'))",
        MAILER: "(SELECT count(*) FROM notification_mailer.messages WHERE ended_at IS NULL)",
    }

    def __init__(self, schedule: Schedule, rng: random.Random) -> None:
        self.accounts = (*shop.ACCOUNTS[: schedule.keys], shop.UNKNOWN)
        self.wishes: dict[UUID, Wish] = {}
        self.late_tasks = dict.fromkeys(shop.ACCOUNTS, 0)
        self.mail = Server()
        self.documents = shop.documents()
        shutil.rmtree(self.documents.artefacts_dir, ignore_errors=True)

    def play(self, part: Part) -> Role:
        """Build the service as its process does, and take what it reacts to."""
        app = _APPS[part.service]
        with (
            patch.dict(os.environ, {_KEK_VARIABLE: KEY_RING}),
            patch.object(chassis_service, "SystemClock", lambda **_: part.clock),
            patch.object(app, "load_policy", lambda _: self.documents.policy),
            patch.object(app, "load_datamap", lambda *_: self.documents.datamap),
            patch.object(app, "open_stores", lambda *_, **__: [_store(part)]),
            patch.object(gateways, "SmtpPost", lambda *_: MemoryPost(self.mail, part.world.stage)),
        ):
            service = app.build(self._settings(part))
        heard = {topic.name for topic in self.hears[part.service]}
        assert set(service.topics) == heard, "what a service hears is named beside its flow"
        built = [schedule.on(part.database) for schedule in service._schedules]
        sweeps: dict[str, Callable[[], Awaitable[object]]] = {sweep.name: sweep.once for sweep in built}
        return Role(service.handlers, {name: once for name, once in sweeps.items() if name in _PLAYED})

    def _settings(self, part: Part) -> Any:  # noqa: ANN401 -- one class per service
        common: dict[str, Any] = {
            "chassis": SETTINGS.model_copy(update={"instance": part.instance}),
            "sealing": SealingSettings(kek_variable=_KEK_VARIABLE),
            "datamap": DataMapSettings(policy_file=self.documents.policy_file, datamap_dir=self.documents.datamap_dir),
        }
        if part.service == INTAKE:
            return request_intake.settings.Settings(**common)
        if part.service == EXECUTOR:
            return erasure_executor.settings.Settings(**common)
        if part.service == EXPORTER:
            return export_builder.settings.Settings(**common, artefacts_dir=self.documents.artefacts_dir)
        smtp = notification_mailer.settings.SmtpSettings(smtp_host="127.0.0.1", smtp_final_timeout_s=10)
        return notification_mailer.settings.Settings(**common, smtp=smtp, batch_mails_max=1, mail_lease_s=15)

    async def submit(self, world: World, rng: random.Random) -> None:
        """Submit a request, or one again, or let the platform write something about somebody."""
        what = rng.choices(("new", "again", "clash", "write"), (12, 2, 1, 2))[0]
        if what == "write":
            await self._write(world, rng)
            return
        known = list(self.wishes.values())
        if what == "new" or not known:
            account = rng.choice([rng.choice(self.accounts), *(each.account for each in known[-2:])])
            wish = self._wish(world, rng, UUID(int=rng.getrandbits(128), version=4), account)
            self.wishes[wish.request_id] = wish
        elif what == "again":
            wish = rng.choice(known)
        else:
            before = rng.choice(known)
            # Of the same account, so that it comes after the first: what comes first is believed.
            wish = self._wish(world, rng, before.request_id, before.account)
        self._send(world, wish, rng)

    def _wish(self, world: World, rng: random.Random, request_id: UUID, account: str) -> Wish:
        right = rng.choices(list(_RIGHTS), list(_RIGHTS.values()))[0]
        is_narrow = right is Right.ERASURE and rng.randrange(8) == 0
        body: dict[str, Any] = {
            "request_id": str(request_id),
            "right": right.value,
            "account_id": account,
            "received_at": world.now.isoformat().replace("+00:00", "Z"),
            "channel": "web",
        }
        if is_narrow:
            body["details"] = {"right": "erasure", "categories": ["usage"], "ground": "consent_withdrawn"}
        is_verified = rng.randrange(6) > 0
        if is_verified:
            body["attestation"] = {
                "method": "session",
                "acr": "mfa",
                "authenticated_at": body["received_at"],
                "issuer": shop.ISSUER.name,
                "key_id": shop.ISSUER.key_id,
            }
            body = attest(body, shop.ISSUER.private_key)
        value = json.dumps(body, separators=(",", ":")).encode()
        return Wish(request_id, account, right, is_verified, is_narrow, value)

    def _send(self, world: World, wish: Wish, rng: random.Random) -> None:
        event = RequestSubmitted.decode(wish.value)
        event_id = UUID(int=rng.getrandbits(128), version=4)
        headers = encode_headers(Envelope(event_id, event.type, "accounts", world.now, event.subject()))
        partition = sum(wish.account.encode()) % event.topic.partitions
        world.broker.append(Record(event.topic.name, event.key().encode(), wish.value, headers, partition))

    async def _write(self, world: World, rng: random.Random) -> None:
        """The platform works for somebody who still has an account."""
        account = rng.choice(shop.ACCOUNTS)
        number = 1_000 + sum(self.late_tasks.values())
        try:
            done = await world.ground.admin.execute(shop.ADD_TASK, account, number)
        except asyncpg.LockNotAvailableError:  # an erasure has the account locked and stands still
            return
        if done != "INSERT 0 0":
            self.late_tasks[account] += 1


_PLAYED: Final = frozenset(kind for kind, _ in Lives.flow)


def _store(part: Part) -> PostgresStore:
    """Connect to the platform's store as the service's role, over connections that pass gates."""
    lives = cast("Lives", part.world.cast)
    options = StoreOptions(connections_max=CONNECTIONS_MAX, lock_timeout_s=LOCK_TIMEOUT_MS / 1000)
    store = PostgresStore(lives.documents.datamap.store("shop"), lives.documents.policy, "", options)
    store._link._pool = cast("Any", Pool(part.world.ground.stores[part.service], part.world.stage))
    return store


async def open_pool(dsn: str) -> "asyncpg.Pool[asyncpg.Record]":
    """Open the pool that a service's store has, for all its replicas."""
    documents = shop.documents()
    options = StoreOptions(connections_max=CONNECTIONS_MAX, lock_timeout_s=LOCK_TIMEOUT_MS / 1000)
    return await PostgresStore(documents.datamap.store("shop"), documents.policy, dsn, options)._link._open()
