"""What can go wrong with a mail before a server is asked.

::

    Exception
    └── Unaddressable   no mail server could take a mail to this address: refused without asking
"""


class Unaddressable(Exception):
    """The address cannot be written to; the message never repeats it."""
