"""Comparison of a store's data map with its live database: whatever a person's data could hide in is an error.

`compare` is pure and looks at what one catalogue query told; a module for each kind of finding. What needs the database itself stands in
`habeas.datamap.postgres.trial`.
"""

from habeas.datamap.check.compare import compare
from habeas.datamap.check.copies import notices

__all__ = ["compare", "notices"]
