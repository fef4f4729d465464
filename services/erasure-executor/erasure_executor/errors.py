"""What can go wrong in erasure-executor, beyond what chassis and data map know.

Overtaken   another replica has taken an attempt up, or may do so at any moment: nothing of this one may be committed
"""


class Overtaken(Exception):
    """The lease of an attempt is over; whoever has it now erases, and this replica stops."""
