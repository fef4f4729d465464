"""Figures of the mails that wait."""

from habeas.chassis import metrics
from habeas.chassis.database import Database
from habeas.chassis.gauges import show_stuck
from habeas.chassis.redaction import named
from notification_mailer.store import messages


async def measure_waiting(db: Database) -> None:
    """Show how many mails of each kind wait, for how long the oldest has, and what keeps those that were tried before."""
    rows = await db.read("measure-waiting", messages.COUNT_WAITING)
    now = db.clock.now()
    metrics.MAIL_WAITING_MESSAGES.show_all({(named(row["kind"]),): row["mails"] for row in rows})
    metrics.MAIL_OLDEST_WAITING_AGE_S.show_all(
        {(named(row["kind"]),): max(0.0, (now - row["oldest_at"]).total_seconds()) for row in rows}
    )
    await show_stuck(db, messages.COUNT_STUCK)
