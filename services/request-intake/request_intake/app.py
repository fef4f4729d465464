"""The composition root of request-intake: all that it reacts to, on one screen."""

from datetime import timedelta
from functools import partial

from habeas.chassis.service import Service
from habeas.contracts.erasure_executor import ErasureCompleted, ErasureStuck
from habeas.contracts.export_builder import ExportCompleted, ExportStuck
from habeas.contracts.notification_mailer import MailRefused, MailSent, MailUncertain
from habeas.contracts.platform import RequestSubmitted
from habeas.datamap.map.loading import load_datamap
from habeas.datamap.policy.deadlines import load_calendars
from habeas.datamap.policy.model import load_policy
from habeas.datamap.postgres import open_stores
from habeas.datamap.stores import Stores
from habeas.sealing import Fingerprinter, KeyStore, Protector
from request_intake import gateways, handlers, store, sweeps
from request_intake.settings import Settings


def build(settings: Settings) -> Service:
    """Wire request-intake by hand. Raises ``ConfigurationError`` for a bad policy or map, ``KekMissing`` without a key ring."""
    kek = settings.sealing.open()
    service = Service("request-intake", settings.chassis, protection=Protector(kek))
    policy = load_policy(settings.datamap.policy_file)
    load_calendars(policy, service.clock.now())
    datamap, production = load_datamap(settings.datamap.datamap_dir, policy), settings.chassis.in_production
    stores = Stores(open_stores(datamap, policy, production=production))
    keys = KeyStore(kek, service.clock.now)
    tolerance = timedelta(seconds=settings.chassis.clock_tolerance_s)
    desk = handlers.Desk(policy, keys, Fingerprinter(kek), stores, service.clock, tolerance)

    service.on(RequestSubmitted, handlers.on_request_submitted, desk)
    service.on(ErasureCompleted, handlers.on_erasure_completed, keys)
    service.on(ErasureStuck, handlers.on_erasure_stuck)
    service.on(ExportCompleted, handlers.on_export_completed)
    service.on(ExportStuck, handlers.on_export_stuck)
    service.on(MailSent, handlers.on_mail_sent)
    service.on(MailRefused, handlers.on_mail_refused)
    service.on(MailUncertain, handlers.on_mail_uncertain)

    address_book = gateways.BoundedAddressBook(stores)
    opening = service.every(settings.open_interval_s, sweeps.open_received, address_book, keys, policy.zone)
    opening.after(RequestSubmitted, store.let_go_on).due(store.FIND_NEXT_DUE)
    service.every(settings.open_interval_s, sweeps.rekey_digests, keys)

    service.measure(partial(sweeps.measure_deadlines, zone=policy.zone))

    service.close(stores.close)
    return service
