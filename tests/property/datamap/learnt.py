"""What the product has learnt of the language so far: these features the seeds use, and these faults of a map the check finds."""

from typing import Final

from tests.property.datamap.model import Feature

NOT_YET: Final = frozenset[Feature]()
ON: Final = frozenset(Feature) - NOT_YET

NOT_YET_REFUSED: Final = frozenset[str]()
"""Ways to break a map that the check does not see yet; a way that it has learnt to see is to be taken out here."""
