"""What can go wrong with a mail before a server is asked.

::

    Exception
    └── Unaddressable   no mail server could take a mail to this address: refused without asking
"""

from habeas.contracts.vocabulary import MailRefusal


class Unaddressable(Exception):
    """The address cannot be written to, for the reason; the message never repeats it."""

    def __init__(self, reason: MailRefusal = MailRefusal.ADDRESS_UNREADABLE) -> None:
        super().__init__(reason.value)
        self.reason = reason
