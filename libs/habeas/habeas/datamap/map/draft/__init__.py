"""A first data map, drafted from a live schema: joins from foreign keys, categories guessed from names and types.

A guess is a guess: whatever a person has to decide is written as REVIEW, which `habeas datamap check` refuses.
"""

from habeas.datamap.map.draft.names import GUESSES
from habeas.datamap.map.draft.writing import Draft, draft_dataset

__all__ = ["GUESSES", "Draft", "draft_dataset"]
