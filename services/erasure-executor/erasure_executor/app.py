"""The composition root of erasure-executor: all that it reacts to, on one screen."""

from typing import Final

from erasure_executor import gateways, handlers, lifecycle, store, sweeps
from erasure_executor.settings import Settings
from habeas.chassis.service import Service
from habeas.contracts.request_intake import RequestVerified
from habeas.datamap.map.loading import load_datamap
from habeas.datamap.policy.model import load_policy
from habeas.datamap.postgres import StoreOptions, open_stores
from habeas.sealing import Fingerprinter, KeyStore, Protector

_STORES_INTERVAL_S: Final = 240.0  # less than idle connections to stores are kept
_PATIENT: Final = StoreOptions(  # connections of their own for what takes long; its limit is set for each attempt
    connections_max=sweeps.LARGE_AT_ONCE, statement_timeout_s=sweeps.LARGE.limits.longest_s
)


def build(settings: Settings) -> Service:
    """Wire erasure-executor by hand. Raises ``ConfigurationError`` for a bad policy or map, ``KekMissing`` without a key ring."""
    kek = settings.sealing.open()
    service = Service("erasure-executor", settings.chassis, protection=Protector(kek))
    policy = load_policy(settings.datamap.policy_file)
    datamap, production = load_datamap(settings.datamap.datamap_dir, policy), settings.chassis.in_production
    stores = gateways.LoggedStores(open_stores(datamap, policy, production=production))
    patient = gateways.LoggedStores(open_stores(datamap, policy, _PATIENT, production=production))
    keys = KeyStore(kek, service.clock.now)

    service.on(RequestVerified, handlers.on_request_verified)

    erasing = service.every(settings.erase_interval_s, sweeps.erase_due, stores, keys, Fingerprinter(kek))
    erasing.after(RequestVerified).due(store.FIND_NEXT_DUE)
    for _ in range(sweeps.LARGE_AT_ONCE):
        erasing_large = service.every(settings.erase_interval_s, sweeps.erase_large, patient, keys, Fingerprinter(kek))
        erasing_large.after(lifecycle.set_apart).due(store.FIND_NEXT_DUE_LARGE)
    service.every(_STORES_INTERVAL_S, sweeps.look_at_stores, stores)

    service.measure(sweeps.measure_stuck)

    service.close(stores.close)
    service.close(patient.close)
    return service
