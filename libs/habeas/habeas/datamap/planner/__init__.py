"""The planner: data map + live schema → every statement that a store will ever be sent, made once and pure."""

from habeas.datamap.planner.compile import compile_store
from habeas.datamap.planner.plan import (
    AgeKind,
    ContactPlan,
    ExportPlan,
    PartitionPlan,
    PlanError,
    PurgeRule,
    StorePlan,
    TablePlan,
)

__all__ = [
    "AgeKind",
    "ContactPlan",
    "ExportPlan",
    "PartitionPlan",
    "PlanError",
    "PurgeRule",
    "StorePlan",
    "TablePlan",
    "compile_store",
]
