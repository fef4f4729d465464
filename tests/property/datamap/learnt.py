"""What the product has learnt of the language so far: these features the seeds use, and these faults of a map the check finds."""

from typing import Final

from tests.property.datamap.model import Feature

ON: Final = frozenset(
    {
        Feature.NOBODYS,
        Feature.MENTIONS,
        Feature.WHERE,
        Feature.KEEP,
        Feature.CASCADES,
        Feature.DEFERRED,
        Feature.POLYMORPHIC,
        Feature.PARTITIONS,
        Feature.SELF_REFERENCE,
    }
)

NOT_YET_REFUSED: Final = frozenset({"where_added", "another_parent", "constant_of_another_type"})
"""Ways to break a map that the check does not see yet; a way that it has learnt to see is to be taken out here."""
