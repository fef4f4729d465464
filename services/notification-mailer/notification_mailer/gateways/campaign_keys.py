"""The keys under which campaigns hold the account ids of whoever is still to be told."""

from uuid import UUID

from habeas.sealing import KekProvider, KeyKind, SubjectKey
from habeas.sealing.keys import context_of
from notification_mailer.lifecycle.campaigns import WrappedKey


class CampaignKeys:
    """Makes and opens one key for each campaign, wrapped by the KEK as the keys of persons are.

    A key is known by its campaign's id where a person's key is known by the subject id: both are UUIDs that never meet, so
    neither opens in the other's place. The wrapped key stands in the campaign's row and goes with its end.
    """

    def __init__(self, kek: KekProvider) -> None:
        self._kek = kek

    def make(self, campaign_id: UUID) -> WrappedKey:
        """Draw a new key and wrap it."""
        key = SubjectKey.generate(campaign_id, KeyKind.DATA)
        return WrappedKey(*self._kek.wrap(key.secret_for_wrapping(), key.context))

    def open(self, campaign_id: UUID, key: WrappedKey) -> SubjectKey:
        """Unwrap a campaign's key. Raises ``KekMismatch`` when the key ring has not the KEK that wrapped it."""
        context = context_of(campaign_id, KeyKind.DATA)
        return SubjectKey(campaign_id, KeyKind.DATA, self._kek.unwrap(key.kek_id, key.wrapped, context))
