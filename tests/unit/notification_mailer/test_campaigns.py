"""What is decided about a campaign: dates counted on a calendar."""

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from habeas.chassis.errors import Invariant
from habeas.contracts.platform import PolicyChanged
from habeas.datamap.policy.durations import Duration
from notification_mailer.lifecycle import campaigns
from notification_mailer.lifecycle.campaigns import Notice, State, WrappedKey
from notification_mailer.lifecycle.mails import State as MailState

BERLIN = Notice(Duration.parse("30d"), ZoneInfo("Europe/Berlin"))
KEY = WrappedKey("kek", b"wrapped")


def a_change(effective_on: date, *, material: bool = True, text: str = "We log less.") -> PolicyChanged:
    """A change that was published on 24 November 2026."""
    return PolicyChanged.model_validate(
        {
            "change_id": "2027-01-privacy",
            "material": material,
            "published_at": "2026-11-24T08:00:00Z",
            "effective_on": effective_on,
            "version": "2027-01-15",
            "summary": {"en": text},
            "url": "https://example.org/privacy",
        }
    )


def at(text: str) -> datetime:
    """A moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "earliest"),
    [
        ("2026-11-24T09:00", date(2026, 12, 24)),
        ("2026-11-24T22:59", date(2026, 12, 24)),
        ("2026-11-24T23:00", date(2026, 12, 25)),  # midnight in Berlin
        ("2027-01-29T12:00", date(2027, 2, 28)),
        ("2028-01-30T12:00", date(2028, 2, 29)),
    ],
)
def test_notice_is_counted_in_days_of_the_controller(now: str, earliest: date) -> None:
    """Thirty days after the day of the notice, as it is in the controller's zone."""
    assert BERLIN.earliest(at(now)) == earliest


@pytest.mark.parametrize(("effective_on", "early"), [(date(2026, 12, 23), True), (date(2026, 12, 24), False)])
def test_a_day_decides(effective_on: date, early: bool) -> None:  # noqa: FBT001 -- a column of the table above
    """A change is too early on the 29th day and in time on the 30th."""
    decision = campaigns.schedule(a_change(effective_on), KEY, BERLIN, None, at("2026-11-24T09:00"))
    kinds = [event.type for event in decision.events]
    assert kinds == ["policy_change.scheduled"] + ["policy_change.too_early"] * early
    assert decision.campaign.state is State.GATHERING


def test_a_date_is_mended_and_a_text_is_not() -> None:
    """The digest covers what people were told, not the date."""
    first = a_change(date(2026, 12, 1))
    assert campaigns.digest_of(first) == campaigns.digest_of(a_change(date(2027, 3, 1)))
    assert campaigns.digest_of(first) != campaigns.digest_of(a_change(date(2026, 12, 1), text="We log more."))
    scheduled = campaigns.schedule(first, KEY, BERLIN, None, at("2026-11-24T09:00")).campaign
    mended = campaigns.amend(scheduled, a_change(date(2027, 3, 1)), BERLIN, at("2026-11-25T09:00"))
    assert not mended.campaign.too_early
    assert [event.type for event in mended.events] == ["policy_change.scheduled"]
    assert campaigns.amend(mended.campaign, a_change(date(2027, 3, 1)), BERLIN, at("2026-11-26T09:00")).events == ()


def test_warnings_come_once_a_day() -> None:
    """The second warning comes with the next day of the controller's zone."""
    early = campaigns.schedule(a_change(date(2026, 12, 1)), KEY, BERLIN, None, at("2026-11-24T09:00")).campaign
    assert campaigns.warn(early, BERLIN, at("2026-11-24T22:59")).events == ()
    assert len(campaigns.warn(early, BERLIN, at("2026-11-24T23:00")).events) == 1


def test_an_immaterial_change_is_recorded_without_a_key() -> None:
    """Nobody is to be told: no event, no key, no way on."""
    decision = campaigns.schedule(
        a_change(date(2026, 11, 25), material=False), KEY, BERLIN, None, at("2026-11-24T09:00")
    )
    assert (decision.campaign.state, decision.campaign.key, decision.events) == (State.RECORDED, None, ())
    with pytest.raises(Invariant):
        campaigns.gathered(decision.campaign)


def test_the_end_counts_everybody_and_drops_the_key() -> None:
    """Counts by state are told, and the key is gone."""
    campaign = campaigns.gathered(
        campaigns.schedule(a_change(date(2027, 1, 15)), KEY, BERLIN, None, at("2026-11-24T09:00")).campaign
    )
    counts = {MailState.SENT: 7, MailState.UNCERTAIN: 1, MailState.SUPPRESSED: 2}
    done = campaigns.finish(campaign, counts, at("2026-11-25T09:00"))
    assert (done.campaign.state, done.campaign.key) == (State.NOTIFIED, None)
    (event,) = done.events
    told = event.model_dump(include={"sent", "refused", "uncertain", "suppressed"})
    assert told == {"sent": 7, "refused": 0, "uncertain": 1, "suppressed": 2}
    assert "wrapped" not in repr(campaign)
