"""The composition root of export-builder: all that it reacts to, on one screen."""

from datetime import timedelta
from typing import Final

from export_builder import gateways, handlers, lifecycle, store, sweeps
from export_builder.settings import Settings
from habeas.chassis.service import Service
from habeas.contracts.erasure_executor import ErasureCompleted
from habeas.contracts.request_intake import RequestVerified
from habeas.datamap.map.loading import load_datamap
from habeas.datamap.policy.model import load_policy
from habeas.datamap.postgres import StoreOptions, open_stores
from habeas.datamap.stores import Stores
from habeas.sealing import KeyStore, Protector

_PATIENT: Final = StoreOptions(  # connections of their own for what takes long; its limit is set for each attempt
    connections_max=sweeps.LARGE_AT_ONCE, statement_timeout_s=sweeps.LARGE.limits.longest_s
)


def build(settings: Settings) -> Service:
    """Wire export-builder by hand. Raises ``ConfigurationError`` for a bad policy or map, ``KekMissing`` without a key ring."""
    kek = settings.sealing.open()
    service = Service("export-builder", settings.chassis, protection=Protector(kek))
    policy = load_policy(settings.datamap.policy_file)
    datamap, production = load_datamap(settings.datamap.datamap_dir, policy), settings.chassis.in_production
    stores = Stores(open_stores(datamap, policy, production=production))
    patient = Stores(open_stores(datamap, policy, _PATIENT, production=production))
    keys = KeyStore(kek, service.clock.now)
    vault = gateways.Vault(settings.artefacts_dir)
    builder = gateways.Builder(stores, vault, policy, sweeps.LARGE_ROWS)
    patient_builder = gateways.Builder(patient, vault, policy)
    kept = timedelta(days=settings.kept_days)

    service.on(RequestVerified, handlers.on_request_verified)
    service.on(ErasureCompleted, handlers.on_erasure_completed, keys)

    building = service.every(settings.build_interval_s, sweeps.build_due, builder, vault, keys, kept)
    building.after(RequestVerified).due(store.FIND_NEXT_DUE)
    for _ in range(sweeps.LARGE_AT_ONCE):
        building_large = service.every(
            settings.build_interval_s, sweeps.build_large, patient_builder, vault, keys, kept
        )
        building_large.after(lifecycle.set_apart).due(store.FIND_NEXT_DUE_LARGE)
    service.every(settings.delete_interval_s, sweeps.withdraw_expired)
    deleting = service.every(settings.delete_interval_s, sweeps.delete_withdrawn, vault)
    deleting.after(ErasureCompleted, sweeps.withdraw_expired).due(store.FIND_NEXT_WITHDRAWING)

    service.measure(sweeps.measure_stuck)

    service.close(stores.close)
    service.close(patient.close)
    return service
