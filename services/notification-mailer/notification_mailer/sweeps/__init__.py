"""The time edge of notification-mailer: mails are sent, campaigns are carried on."""

from notification_mailer.sweeps.campaigns import close_campaigns, gather_recipients, watch_notice
from notification_mailer.sweeps.measuring import measure_waiting
from notification_mailer.sweeps.sending import Mailroom, send_campaign_mails, send_request_mails, take_back_abandoned

__all__ = [
    "Mailroom",
    "close_campaigns",
    "gather_recipients",
    "measure_waiting",
    "send_campaign_mails",
    "send_request_mails",
    "take_back_abandoned",
    "watch_notice",
]
