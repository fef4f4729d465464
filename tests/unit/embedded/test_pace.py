from habeas_embedded.view import Pace


def test_view_looks_often_while_things_change_and_seldom_while_nothing_does() -> None:
    """Every second while something changes; then after 2, 4, 8 and 10 s; at once every second again."""
    pace = Pace()
    assert [pace.after(0.01, changed=True) for _ in range(2)] == [1, 1]
    assert [pace.after(0.01, changed=False) for _ in range(5)] == [2, 4, 8, 10, 10]
    assert pace.after(0.01, changed=True) == 1


def test_looking_takes_a_tenth_of_the_time_at_most() -> None:
    """A look of three seconds, as at millions of requests, is followed by a pause of thirty."""
    assert Pace().after(3, changed=True) == 30
