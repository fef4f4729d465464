"""The planner: data map + live schema → every statement that a store will ever be sent, made once and pure."""

from habeas.datamap.planner.compile import compile_root, compile_store
from habeas.datamap.planner.plan import (
    AgeKind,
    CollectPlan,
    ExportPlan,
    Holding,
    LinkPlan,
    PartitionPlan,
    PlanError,
    PurgeRule,
    RootPlan,
    StorePlan,
    TablePlan,
)
from habeas.datamap.planner.purge import BUCKETS

__all__ = [
    "BUCKETS",
    "AgeKind",
    "CollectPlan",
    "ExportPlan",
    "Holding",
    "LinkPlan",
    "PartitionPlan",
    "PlanError",
    "PurgeRule",
    "RootPlan",
    "StorePlan",
    "TablePlan",
    "compile_root",
    "compile_store",
]
