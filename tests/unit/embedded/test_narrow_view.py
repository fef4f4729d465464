"""The live view on a terminal of 80 columns and 24 lines."""

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from habeas_embedded.provision import SERVICES
from habeas_embedded.view import Look, render

COUNTS = ("waiting", "parked", "unsent", "lag")


@given(
    replicas=st.integers(1, 3), count=st.sampled_from((0, 17, 123_456, 9_999_999)), width=st.sampled_from((60, 80, 120))
)
def test_names_and_counts_are_whole(replicas: int, count: int, width: int) -> None:
    """However large counts are, no name and no number is cut: what does not fit is wrapped, and at 80 columns all fits."""
    names = [f"{service}-{instance}" for service in SERVICES for instance in range(replicas)]
    look = Look(
        states=dict.fromkeys(names, "not ready"),
        restarts=dict.fromkeys(names, 12),
        counts={name: dict.fromkeys(COUNTS, count) for name in names},
        requests={("withdraw_consent", "awaiting_decision"): count},
        mails=3,
    )
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(render(look))
    shown = captured.get()
    assert "…" not in shown
    if width >= 80 and count < 1_000_000:
        assert all(name in shown for name in names)
        assert len(shown.splitlines()) <= len(names) + 8
