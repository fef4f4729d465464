import itertools

from habeas_embedded.waiting import Patience, until_progress_ends

SOON = Patience(still_s=0.2)


def after(calls: int) -> "itertools.count[int]":
    """A counter that has just reached so many calls before zero."""
    return itertools.count(-calls)


async def test_what_gets_on_is_waited_for_longer_than_it_may_stand_still() -> None:
    """Forty looks take more than twice the time after which something that stands still is given up."""
    left = after(40)
    steps = itertools.count()
    assert await until_progress_ends(lambda: next(left) >= 0, lambda: next(steps), SOON)


async def test_what_stands_still_is_given_up() -> None:
    """Without progress the wait ends, though there is no limit on its whole length."""
    assert not await until_progress_ends(lambda: False, lambda: "the same", SOON)


async def test_progress_does_not_prolong_a_wait_without_end() -> None:
    """Where there is a limit in any case, it counts also for what gets on."""
    steps = itertools.count()
    bounded = Patience(still_s=60, most_s=0.2)
    assert not await until_progress_ends(lambda: False, lambda: next(steps), bounded)


async def test_who_waits_is_told_again_and_again() -> None:
    """The first word comes after a while, later ones regularly, each with the seconds waited so far."""
    told: list[float] = []
    talkative = Patience(still_s=0.4, first_word_s=0.05, later_words_s=0.1)
    await until_progress_ends(lambda: False, lambda: None, talkative, told.append)
    assert len(told) >= 3
    assert told == sorted(told)
    assert told[0] >= 0.05
