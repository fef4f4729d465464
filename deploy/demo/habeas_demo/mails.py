"""What arrived in the mail sink: to each person exactly the mails that they had to get, each once."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from habeas_demo.checks import Check
from habeas_demo.people import Person
from habeas_demo.scenario import Cast
from habeas_embedded.mailbox import Mail

ACKNOWLEDGEMENT: Final = "acknowledgement"
OUTCOME: Final = "outcome"
POLICY_CHANGE: Final = "policy_change"
KIND_HEADER: Final = "X-Habeas-Kind"

Got = dict[str, Counter[str]]


def check_mails(mails: Sequence[Mail], people: Iterable[Person], cast: Cast, *, lapse: bool = False) -> list[Check]:
    """Compare the sink with what the requests and the policy change demand.

    Whoever is erased, or has left, may get the notice of the policy change or not: it depends on which came first. With
    `lapse`, mail was held up so long that an acknowledgement may have been left out because the answer was there already.
    """
    got: Got = defaultdict(Counter)
    for mail in mails:
        for recipient in mail.recipients:
            got[recipient.lower()][str(mail.message.get(KIND_HEADER, "unknown")).strip()] += 1
    askers = [person for group in cast.by_right.values() for person in group]
    erased = {person.account_id for person in cast.erasures}
    staying = [person for person in people if person.closed_at is None and person.account_id not in erased]
    return [
        _told_once("mail · acknowledgements", askers, got, ACKNOWLEDGEMENT, at_least=0 if lapse else 1),
        _told_once("mail · outcomes", askers, got, OUTCOME),
        _told_once("mail · notice of the policy change", staying, got, POLICY_CHANGE),
        _nothing_else(mails, got, {person.email for person in people}, {person.email for person in askers}),
    ]


def _nothing_else(mails: Sequence[Mail], got: Got, known: set[str], askers: set[str]) -> Check:
    """Nobody else was written to, and nothing arrived twice."""
    ids = Counter(mail.message_id for mail in mails)
    again = len(mails) - len(ids)
    twice = sum(1 for kinds in got.values() if max(kinds.values(), default=0) > 1)
    uninvited = sum(
        1 for address, kinds in got.items() if address not in (askers if set(kinds) - {POLICY_CHANGE} else known)
    )
    detail = f"{len(mails)} mails, {again} with a Message-ID seen before, {twice} people told twice, {uninvited} who had to be told nothing"
    return Check("mail · nobody else, nothing twice", not again and not twice and not uninvited, detail)


def _told_once(name: str, people: Sequence[Person], got: Got, kind: str, *, at_least: int = 1) -> Check:
    counts = Counter(got[person.email][kind] for person in people)
    missing, once = counts[0], counts[1]
    more = len(people) - missing - once
    detail = f"{once} of {len(people)} people told once, {missing} not at all, {more} more than once"
    return Check(name, bool(people) and not more and (not missing or at_least == 0), detail)
