"""What notification-mailer reaches outside of its database: mail server, stores, key ring; and what it writes in mails."""

from notification_mailer.gateways.audience import Audience
from notification_mailer.gateways.campaign_keys import CampaignKeys
from notification_mailer.gateways.letters import Letter, Letters, Recipient
from notification_mailer.gateways.post import Post, SmtpPost

__all__ = ["Audience", "CampaignKeys", "Letter", "Letters", "Post", "Recipient", "SmtpPost"]
