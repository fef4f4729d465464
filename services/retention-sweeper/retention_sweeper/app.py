"""The composition root of retention-sweeper: all that it reacts to, on one screen."""

from datetime import timedelta

from habeas.chassis.service import Service
from habeas.contracts.platform import RetentionTicked
from habeas.datamap.map.loading import load_datamap
from habeas.datamap.policy.model import load_policy
from habeas.datamap.postgres import StoreOptions, open_stores
from habeas.datamap.stores import Stores
from habeas.sealing import Protector
from retention_sweeper import gateways, handlers, store, sweeps
from retention_sweeper.settings import Settings


def build(settings: Settings) -> Service:
    """Wire retention-sweeper by hand. Raises ``ConfigurationError`` for a bad policy or map, ``KekMissing`` without a key ring."""
    service = Service("retention-sweeper", settings.chassis, protection=Protector(settings.sealing.open()))
    policy = load_policy(settings.datamap.policy_file)
    datamap, production = load_datamap(settings.datamap.datamap_dir, policy), settings.chassis.in_production
    stores = Stores(open_stores(datamap, policy, StoreOptions(plan_once=False), production=production))
    tolerance = timedelta(seconds=settings.chassis.clock_tolerance_s)
    calendar = handlers.Calendar(stores.names, frozenset(policy.retention), tolerance)
    mapped = gateways.MappedStores(stores, policy.zone)

    service.on(RetentionTicked, handlers.on_retention_ticked, calendar)

    planning = service.every(settings.sweep_interval_s, sweeps.plan_due, mapped)
    planning.after(RetentionTicked).due(store.FIND_NEXT_TICK)
    sweeping = service.every(settings.sweep_interval_s, sweeps.sweep_due, mapped, policy, settings.batch_rows_max)
    sweeping.after(sweeps.plan_due).due(store.FIND_NEXT_SWEEP)

    service.measure(sweeps.measure_rules)

    service.close(stores.close)
    return service
