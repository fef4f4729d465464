"""A process that dies between any two steps, and two processes that believe in the same mail."""

from dataclasses import replace
from datetime import timedelta

from notification_mailer import sweeps
from notification_mailer.lifecycle.mails import Report
from tests.integration.notification_mailer.conftest import PEOPLE, Mailer, changed, fulfilled

_POINTS_MAX = 60


async def test_killed_between_any_two_steps_no_outcome_is_lost_or_sent_twice(mailer: Mailer) -> None:
    """Wherever sending dies, the next start ends with the mail delivered once, or said to be uncertain: once or not at all."""
    uncertain = 0
    for point in range(1, _POINTS_MAX):
        accepted = await mailer.accept("mortal@example.net")
        await mailer.send()
        await mailer.receive(fulfilled(accepted))
        mailer.fate.points, mailer.fate.dies_at = 0, point
        died = await mailer.until_killed(mailer.send_once)
        await mailer.restart()
        await mailer.send()
        row = await mailer.mail(accepted.request_id, "outcome")
        deliveries = len(mailer.delivered(row["mail_id"]))
        assert row["state"] in {"sent", "uncertain"}
        assert deliveries == 1 if row["state"] == "sent" else deliveries <= 1
        uncertain += row["state"] == "uncertain"
        if not died:
            break
    else:
        raise AssertionError("sending has more steps than expected")
    # Between marker and record lie: after the marker's commit, before the dot, after the reply, before the record's commit.
    assert 1 <= uncertain <= 5


async def test_killed_between_any_two_steps_every_acknowledgement_arrives(mailer: Mailer) -> None:
    """Wherever sending dies, the acknowledgement arrives, and a repetition bears the same Message-ID."""
    for point in range(1, _POINTS_MAX):
        mailer.fate.dies_at = None
        accepted = await mailer.accept("mortal@example.net")
        mailer.fate.points, mailer.fate.dies_at = 0, point
        died = await mailer.until_killed(mailer.send_once)
        await mailer.restart()
        await mailer.send()
        mailer.after(timedelta(minutes=1))
        await mailer.send()
        row = await mailer.mail(accepted.request_id, "acknowledgement")
        assert row["state"] == "sent"
        assert 1 <= len(mailer.delivered(row["mail_id"])) <= 2
        if not died:
            break
    else:
        raise AssertionError("sending has more steps than expected")


async def test_many_mails_in_flight_survive_a_kill(mailer: Mailer) -> None:
    """With every connection busy, a kill leaves each outcome delivered at most once, and told of."""
    for point in (5, 9, 14, 20, 33):
        requests = [await mailer.accept(f"flight{number}@example.net") for number in range(12)]
        await mailer.send()
        await mailer.receive(*(fulfilled(request) for request in requests))
        mailer.fate.points, mailer.fate.dies_at = 0, point
        await mailer.until_killed(mailer.send_once)
        await mailer.restart()
        await mailer.send()
        for request in requests:
            row = await mailer.mail(request.request_id, "outcome")
            deliveries = len(mailer.delivered(row["mail_id"]))
            assert (row["state"], deliveries) in {("sent", 1), ("uncertain", 0), ("uncertain", 1)}
    told = len(await mailer.told("mail.sent")) + len(await mailer.told("mail.uncertain"))
    assert told == 5 * 12 * 2


async def test_a_campaign_goes_on_where_it_was_killed(mailer: Mailer) -> None:
    """Wherever a campaign dies, its next start tells everybody, nobody twice; whoever is uncertain is counted."""
    for point in range(1, 200):
        change_id = f"change-{point}"
        mailer.fate.dies_at = None
        await mailer.receive(changed(change_id))
        mailer.fate.points, mailer.fate.dies_at = 0, point
        died = await mailer.until_killed(mailer.campaign)
        await mailer.restart()
        await mailer.campaign()
        mails = await mailer.reader.fetch(
            "SELECT m.mail_id, m.state FROM notification_mailer.messages AS m JOIN notification_mailer.campaigns USING (campaign_id)"
            " WHERE change_id = $1",
            change_id,
        )
        assert len(mails) == len(PEOPLE)
        for mail_id, state in mails:
            deliveries = len(mailer.delivered(mail_id))
            assert (state, deliveries) in {("sent", 1), ("uncertain", 0), ("uncertain", 1)}
        (end,) = [event for event in await mailer.told("policy_change.notified") if event["change_id"] == change_id]
        assert end["sent"] + end["uncertain"] == len(PEOPLE)
        if not died:
            break
        mailer.fate.dies_at = None
        if point > 60:  # the rest repeats what was seen with the first pages
            break


async def test_another_replica_takes_over_after_the_lease(mailer: Mailer) -> None:
    """What a silent replica claimed is sent by another one after its lease, and not before."""
    accepted = await mailer.accept("lease@example.net")
    mailer.fate.points, mailer.fate.dies_at = 0, 3
    assert await mailer.until_killed(mailer.send_once)
    assert (await mailer.mail(accepted.request_id, "acknowledgement"))["state"] == "sending"
    await mailer.restart()
    _become(mailer, 1)
    mailer.after(timedelta(minutes=14))
    await sweeps.take_back_abandoned(mailer.db, mailer.room)
    assert await mailer.send() == 0
    mailer.after(timedelta(minutes=2))
    await sweeps.take_back_abandoned(mailer.db, mailer.room)
    await mailer.send()
    row = await mailer.mail(accepted.request_id, "acknowledgement")
    assert (row["state"], row["attempt"]) == ("sent", 2)
    assert len(mailer.delivered(row["mail_id"])) == 1


async def test_a_dead_replicas_mails_do_not_wait_for_the_lease(mailer: Mailer) -> None:
    """Whose sign of life is overdue by far, as every replica sees it in the database, gives its mails to another one soon."""
    accepted = await mailer.accept("dead@example.net")
    mailer.fate.points, mailer.fate.dies_at = 0, 3
    assert await mailer.until_killed(mailer.send_once)
    await mailer.restart()
    _become(mailer, 1)
    await mailer.db.read(
        "test-die",
        "INSERT INTO notification_mailer.replicas VALUES ($1, 0, now() - interval '16 seconds') RETURNING 1",
        accepted.request_id,
    )
    await sweeps.take_back_abandoned(mailer.db, mailer.room)
    await mailer.send()
    row = await mailer.mail(accepted.request_id, "acknowledgement")
    assert (row["state"], row["attempt"]) == ("sent", 2)
    assert len(mailer.delivered(row["mail_id"])) == 1


async def test_a_replica_that_lost_its_claim_keeps_the_dot_back(mailer: Mailer) -> None:
    """Whoever finds its mail taken over before the marker cuts the connection without the dot: one delivery."""
    accepted = await mailer.accept("fenced@example.net")

    async def taken_over() -> None:
        mailer.after(timedelta(minutes=16))
        await sweeps.take_back_abandoned(mailer.db, mailer.room)

    mailer.post.meanwhile = taken_over
    await mailer.send_once()
    row = await mailer.mail(accepted.request_id, "acknowledgement")
    assert (row["state"], row["attempt"]) == ("queued", 1)
    assert mailer.delivered(row["mail_id"]) == ()
    await mailer.send()
    assert len(mailer.delivered(row["mail_id"])) == 1


async def test_a_reply_that_comes_after_the_doubt_ends_it(mailer: Mailer) -> None:
    """A mail that was given up as uncertain by another replica is sent once its own replica hears 250."""
    accepted = await mailer.accept("late@example.net")
    await mailer.send()
    await mailer.receive(fulfilled(accepted))
    inner = mailer.post.deliver

    async def slow(letter: object, before_dot: object) -> Report:
        report = await inner(letter, before_dot)  # type: ignore[arg-type]  # passed on as they come
        mailer.after(timedelta(minutes=16))
        await sweeps.take_back_abandoned(mailer.db, mailer.room)
        assert (await mailer.mail(accepted.request_id, "outcome"))["state"] == "uncertain"
        return report

    mailer.post.deliver = slow  # type: ignore[method-assign]  # a slow network
    await mailer.send_once()
    assert (await mailer.mail(accepted.request_id, "outcome"))["state"] == "sent"
    kinds = [(event["kind"]) for event in await mailer.told("mail.sent")]
    assert kinds == ["acknowledgement", "outcome"]
    assert [event["kind"] for event in await mailer.told("mail.uncertain")] == ["outcome"]


def _become(mailer: Mailer, instance: int) -> None:
    mailer.room = replace(mailer.room, hold=replace(mailer.room.hold, holder=instance))
