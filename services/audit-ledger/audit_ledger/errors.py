"""What can go wrong in audit-ledger, beyond what the chassis knows.

SigningKeyMissing   there is no usable private key for this log: the service does not start
OSError
└── SeatLost        another replica sequences, or the head moved: start again from the kept position
"""


class SigningKeyMissing(Exception):
    """No private key that may be used; says why, never what the file holds."""


class SeatLost(OSError):
    """This replica is not the sequencer any more.

    An ``OSError``, because for the follower it is what a lost connection is: start again, from the position that is kept.
    """
