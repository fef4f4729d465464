"""What is decided about a mail, without anything around it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from habeas.chassis.errors import Invariant
from habeas.contracts.audit import Action, encode_fact
from habeas.contracts.notification_mailer import MailRefused, MailUncertain
from habeas.contracts.vocabulary import MailKind, MailRefusal
from notification_mailer.lifecycle import mails
from notification_mailer.lifecycle.mails import Mail, Patience, Report, Result, State

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
ONE = UUID("01990c5e-7b1a-7c62-9f0e-3d6a5b1c2d3e")
PATIENCE = Patience(
    timedelta(seconds=2), timedelta(minutes=15), timedelta(days=5), frozenset({MailKind.ACKNOWLEDGEMENT})
)


def a_mail(kind: MailKind = MailKind.OUTCOME, state: State = State.QUEUED, attempt: int = 0) -> Mail:
    """A mail about a request, or of a campaign."""
    of_campaign = kind is MailKind.POLICY_CHANGE
    return Mail(
        mail_id=ONE,
        kind=kind,
        state=state,
        queued_at=NOW,
        next_attempt_at=NOW,
        request_id=None if of_campaign else ONE,
        subject_id=None if of_campaign else ONE,
        campaign_id=ONE if of_campaign else None,
        account="s1.data.x" if of_campaign else None,
        content="{}",
        attempt=attempt,
    )


def test_the_way_of_a_mail_that_is_taken() -> None:
    """Queued, claimed, marked, taken: told once, nothing of its content is left."""
    claimed = mails.claim(a_mail())
    marked = mails.mark(claimed)
    decision = mails.settle(marked, Report(Result.TAKEN, 250), PATIENCE, NOW)
    assert [each.state for each in (claimed, marked, decision.mail)] == [State.SENDING, State.DOT, State.SENT]
    assert claimed.attempt == 1
    assert (decision.mail.content, decision.mail.ended_at) == (None, NOW)
    assert [event.type for event in decision.events] == ["mail.sent"]


@pytest.mark.parametrize("kind", [MailKind.OUTCOME, MailKind.POLICY_CHANGE])
def test_after_the_dot_doubt_is_final(kind: MailKind) -> None:
    """A lost reply, or a death between marker and reply, makes a mail uncertain, and nothing sends it again."""
    for decision in (
        mails.settle(a_mail(kind, State.DOT, 1), Report(Result.LOST), PATIENCE, NOW),
        mails.take_back(a_mail(kind, State.DOT, 1), PATIENCE, NOW),
    ):
        assert decision.mail.state is State.UNCERTAIN
        assert decision.action is Action.MAIL_UNCERTAIN
        assert not mails.TRANSITIONS.allows(State.UNCERTAIN, State.QUEUED)
        assert not mails.TRANSITIONS.allows(State.UNCERTAIN, State.SENDING)


def test_an_acknowledgement_in_doubt_is_sent_again_and_told_of() -> None:
    """Its kind is one that the policy resends: queued again after a pause, with the doubt in events and log."""
    decision = mails.settle(a_mail(MailKind.ACKNOWLEDGEMENT, State.DOT, 1), Report(Result.LOST), PATIENCE, NOW)
    assert (decision.mail.state, decision.mail.next_attempt_at) == (State.QUEUED, NOW + timedelta(minutes=1))
    (told,) = decision.events
    assert isinstance(told, MailUncertain)
    assert (told.times, told.again_at) == (1, NOW + timedelta(minutes=1))
    assert decision.action is Action.MAIL_UNCERTAIN


@given(st.lists(st.sampled_from([Result.LOST, Result.POSTPONED, Result.NOT_SENT, Result.UNREACHABLE]), max_size=60))
def test_a_server_that_never_says_so_gets_an_acknowledgement_a_few_times(results: list[Result]) -> None:
    """Whatever happens between: three more after the first, each after a longer wait, every doubt counted, then it is uncertain."""
    mail, now, doubts, waits = a_mail(MailKind.ACKNOWLEDGEMENT), NOW, 0, []
    for result in results:
        if mail.state is not State.QUEUED:
            break
        now = max(now, mail.next_attempt_at)
        marked = mails.mark(mails.claim(mail))
        decision = mails.settle(marked, Report(result), PATIENCE, now)
        mail = decision.mail
        if result is Result.LOST:
            doubts += 1
            (told,) = decision.events
            assert isinstance(told, MailUncertain)
            assert (told.times, mail.doubts) == (doubts, doubts)
            assert told.again_at == (mail.next_attempt_at if mail.state is State.QUEUED else None)
            waits.append(mail.next_attempt_at - now)
    assert mail.doubts == doubts <= 4
    assert waits[:3] == [timedelta(minutes=1), timedelta(minutes=2), timedelta(minutes=4)][: len(waits[:3])]
    assert (mail.state is State.UNCERTAIN) is (doubts == 4)


def test_nothing_is_resent_where_the_setting_says_so() -> None:
    """With a limit of none the first doubt is the last."""
    never = replace(PATIENCE, doubts_max=0)
    decision = mails.settle(a_mail(MailKind.ACKNOWLEDGEMENT, State.DOT, 1), Report(Result.LOST), never, NOW)
    assert decision.mail.state is State.UNCERTAIN


def test_before_the_marker_death_harms_nothing() -> None:
    """A mail whose sender died before the marker is due again at once, and nothing is told."""
    decision = mails.take_back(a_mail(state=State.SENDING, attempt=3), PATIENCE, NOW)
    assert (decision.mail.state, decision.mail.next_attempt_at, decision.events) == (State.QUEUED, NOW, ())


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 2), (2, 4), (3, 8), (9, 512), (10, 900), (1000, 900)])
def test_pauses_double_up_to_the_longest(attempt: int, seconds: int) -> None:
    """2, 4, 8 seconds and so on, and a quarter of an hour at most."""
    mail = a_mail(state=State.SENDING, attempt=attempt)
    decision = mails.settle(mail, Report(Result.POSTPONED, 450), PATIENCE, NOW)
    assert decision.mail.next_attempt_at == NOW + timedelta(seconds=seconds)


def test_an_unreachable_server_does_not_make_a_mail_wait_longer() -> None:
    """That nobody answers is not the mail's fault: it is tried after the shortest pause, however often it was tried."""
    decision = mails.settle(a_mail(state=State.SENDING, attempt=9), Report(Result.UNREACHABLE), PATIENCE, NOW)
    assert decision.mail.next_attempt_at == NOW + timedelta(seconds=2)


@pytest.mark.parametrize("result", [Result.POSTPONED, Result.NOT_SENT, Result.UNREACHABLE])
def test_patience_ends(result: Result) -> None:
    """After five days without success the mail is refused, so that a person finds another way; not a second before."""
    mail = a_mail(state=State.SENDING, attempt=9)
    end = NOW + timedelta(days=5)
    assert mails.settle(mail, Report(result, 450), PATIENCE, end).mail.state is State.QUEUED
    late = mails.settle(mail, Report(result, 450), PATIENCE, end + timedelta(seconds=1))
    assert (late.mail.state, late.mail.smtp_code) == (State.REFUSED, 450)


def test_who_is_not_there_any_more_is_told_nothing_but_an_outcome_is_never_just_dropped() -> None:
    """Without a contact acknowledgements and notices are suppressed; an outcome is refused, which calls a person."""
    assert mails.give_up(a_mail(MailKind.ACKNOWLEDGEMENT), NOW).mail.state is State.SUPPRESSED
    assert mails.give_up(a_mail(MailKind.POLICY_CHANGE), NOW).mail.state is State.SUPPRESSED
    refused = mails.give_up(a_mail(MailKind.OUTCOME), NOW)
    assert refused.mail.state is State.REFUSED
    assert reason_of(refused) is MailRefusal.NO_ADDRESS


def reason_of(decision: mails.Decision) -> MailRefusal | None:
    """The reason that is told of a refused mail, which is also the one that is kept."""
    (told,) = decision.events
    assert isinstance(told, MailRefused)
    assert decision.mail.refusal == told.reason
    return told.reason


def test_every_refusal_has_its_reason() -> None:
    """The server's word, the gateway's, or that nobody took it for too long."""
    server = mails.settle(a_mail(state=State.DOT, attempt=1), Report(Result.REFUSED, 550), PATIENCE, NOW)
    assert reason_of(server) is MailRefusal.SERVER_REFUSED
    for reason in MailRefusal:
        assert reason_of(mails.settle(a_mail(), Report(Result.REFUSED, refusal=reason), PATIENCE, NOW)) is reason
    late = NOW + PATIENCE.horizon + timedelta(seconds=1)
    never = mails.settle(a_mail(state=State.SENDING, attempt=9), Report(Result.NOT_SENT), PATIENCE, late)
    assert reason_of(never) is MailRefusal.NEVER_TAKEN


def test_every_end_of_a_campaign_mail_forgets_the_account() -> None:
    """Whatever becomes of it, the sealed account id goes with the end, and no event names a request."""
    mail = a_mail(MailKind.POLICY_CHANGE, State.DOT, 1)
    for result in (Result.TAKEN, Result.REFUSED, Result.LOST):
        decision = mails.settle(mail, Report(result), PATIENCE, NOW)
        assert (decision.mail.account, decision.events) == (None, ())


def test_the_log_counts_campaign_mails_and_names_requests() -> None:
    """One entry for each mail about a request, one with a count for many notices: both fit the grammar of the log."""
    about = mails.settle(a_mail(state=State.DOT, attempt=1), Report(Result.TAKEN), PATIENCE, NOW)
    notice = mails.settle(a_mail(MailKind.POLICY_CHANGE, State.DOT, 1), Report(Result.TAKEN), PATIENCE, NOW)
    facts = [encode_fact(fact, NOW).partition(" ")[2] for fact in mails.facts([about, notice, notice])]
    assert facts == [
        f"action=mail.sent request={ONE.hex} subject=- outcome=outcome count=- commitments=-",
        "action=mail.sent request=- subject=- outcome=policy_change count=2 commitments=-",
    ]


def test_no_report_leads_where_the_table_does_not() -> None:
    """Every report on every state either gives an allowed state or is an invariant: nothing is sent twice by a strange order."""
    for state, result in product(State, Result):
        mail = a_mail(state=state, attempt=1)
        try:
            after = mails.settle(mail, Report(result), PATIENCE, NOW).mail
        except Invariant:
            continue
        assert after is mail or mails.TRANSITIONS.allows(state, after.state)


def test_message_ids_follow_from_what_is_told_to_whom() -> None:
    """The same account in the same campaign has the same mail id for ever; another account or campaign another one."""
    assert mails.mail_id_in(ONE, b"f" * 32) == mails.mail_id_in(ONE, b"f" * 32)
    other = UUID(int=ONE.int + 1)
    assert (
        len({mails.mail_id_in(ONE, b"f" * 32), mails.mail_id_in(ONE, b"g" * 32), mails.mail_id_in(other, b"f" * 32)})
        == 3
    )
