"""Tables of transitions."""

from enum import StrEnum

import pytest

from habeas.chassis.errors import Invariant
from habeas.chassis.lifecycle import row, table


class Lamp(StrEnum):
    """States of a lamp."""

    OFF = "off"
    ON = "on"
    BROKEN = "broken"
    REPLACED = "replaced"


LAMP = table(
    Lamp.OFF,
    row(Lamp.OFF, "switched", Lamp.ON),
    row(Lamp.ON, "switched", Lamp.OFF, Lamp.BROKEN),
    row(Lamp.BROKEN, "mended", Lamp.REPLACED),
)

# Drawn by hand after the syntax at mermaid.js.org/syntax/stateDiagram.html.
DIAGRAM = """\
stateDiagram-v2
    [*] --> off
    off --> on: switched
    on --> off: switched
    on --> broken: switched
    broken --> replaced: mended
    replaced --> [*]"""


def test_a_table_says_what_may_follow() -> None:
    """Of all pairs of states exactly those in the table are allowed."""
    allowed = {(one, other) for one in Lamp for other in Lamp if LAMP.allows(one, other)}
    assert allowed == {
        (Lamp.OFF, Lamp.ON),
        (Lamp.ON, Lamp.OFF),
        (Lamp.ON, Lamp.BROKEN),
        (Lamp.BROKEN, Lamp.REPLACED),
    }


def test_what_cannot_be_ends_the_program() -> None:
    """A decision that asks for a transition outside the table is a fault of the program."""
    LAMP.check(Lamp.OFF, Lamp.ON)
    with pytest.raises(Invariant, match=r"^replaced cannot become on$"):
        LAMP.check(Lamp.REPLACED, Lamp.ON)


def test_final_states_have_no_row() -> None:
    """What nothing follows is final."""
    assert LAMP.final() == {Lamp.REPLACED}


def test_the_diagram_is_the_table() -> None:
    """The diagram shows the first state, each row and each final state."""
    assert LAMP.diagram() == DIAGRAM
    assert [each.cause for each in LAMP] == ["switched", "switched", "mended"]
