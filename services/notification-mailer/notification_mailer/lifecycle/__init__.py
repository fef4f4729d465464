"""What is decided about mails and about policy-change campaigns."""

from notification_mailer.lifecycle.mails import TRANSITIONS

__all__ = ["TRANSITIONS"]
