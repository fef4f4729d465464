"""The connector for stores in PostgreSQL (15 or newer)."""

from habeas.datamap.postgres.connection import StoreOptions, read_live_schema
from habeas.datamap.postgres.examination import Examination, examine
from habeas.datamap.postgres.export import ExportedRows, Row
from habeas.datamap.postgres.ids import canonical
from habeas.datamap.postgres.opening import find_address_problems, open_stores
from habeas.datamap.postgres.purge import PurgeResult
from habeas.datamap.postgres.rehearsal import Rehearsed, Tried, rehearse_people
from habeas.datamap.postgres.store import ContactDetails, PostgresStore

__all__ = [
    "ContactDetails",
    "Examination",
    "ExportedRows",
    "PostgresStore",
    "PurgeResult",
    "Rehearsed",
    "Row",
    "StoreOptions",
    "Tried",
    "canonical",
    "examine",
    "find_address_problems",
    "open_stores",
    "read_live_schema",
    "rehearse_people",
]
