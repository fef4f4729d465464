"""The composition root of erasure-executor: all that it reacts to, on one screen."""

from functools import partial

from erasure_executor import gateways, handlers, sweeps
from erasure_executor.settings import Settings
from habeas.chassis.service import Service
from habeas.contracts.request_intake import RequestVerified
from habeas.datamap.loading import load_datamap
from habeas.datamap.policy import load_policy
from habeas.datamap.postgres import open_stores
from habeas.sealing import Fingerprinter, KeyStore, Protector


def build(settings: Settings) -> Service:
    """Wire erasure-executor by hand. Raises ``ConfigurationError`` for a bad policy or map, ``KekMissing`` without a key ring."""
    kek = settings.sealing.open()
    service = Service("erasure-executor", settings.chassis, protection=Protector(kek))
    policy = load_policy(settings.datamap.policy_file)
    stores = open_stores(load_datamap(settings.datamap.datamap_dir, policy), policy)
    mapped = gateways.MappedStores(stores)
    keys = KeyStore(kek, service.clock.now)

    service.on(RequestVerified, handlers.on_request_verified)

    service.every(settings.erase_interval_s, sweeps.erase_due, mapped, keys, Fingerprinter(kek))

    service.measure(sweeps.measure_stuck)
    service.measure(partial(sweeps.look_at_stores, stores=mapped))

    for store in stores:
        service.close(store.close)
    return service
