"""What can go wrong while an artefact is written.

::

    ArtefactUnwritable   the directory of artefacts did not take or keep it
    TooLarge             one of several people has more rows than is good for the others
    Stopped              nobody waits for it any more
"""

from uuid import UUID

from habeas.contracts.vocabulary import StuckReason


class ArtefactUnwritable(Exception):
    """The artefact of ``export_id`` could not be written or read back: a full disk, a lost mount, no right to write.

    ``is_shared``: others in the same directory will hardly fare better.
    """

    because = StuckReason.ARTEFACT_UNWRITABLE
    store: str | None = None
    table: str | None = None
    is_shared = True

    def __init__(self, export_id: UUID) -> None:
        self.export_id = export_id
        super().__init__(f"the artefact of export {export_id} cannot be written or does not open")


class TooLarge(Exception):
    """One of several people whose rows are read together has more of them than is good for the others."""


class Stopped(Exception):
    """The attempt was cancelled; raised in the thread that worked on it, where nobody hears it."""
