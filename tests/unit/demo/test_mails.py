import datetime as dt
from email.message import EmailMessage
from pathlib import Path

import pytest

from habeas_demo.mails import ACKNOWLEDGEMENT, KIND_HEADER, OUTCOME, POLICY_CHANGE, check_mails
from habeas_demo.people import Person, make_person, person_rng
from habeas_demo.scenario import Cast
from habeas_embedded.mailbox import Mail

NOW = dt.datetime(2026, 11, 24, 9, 12, tzinfo=dt.UTC)
PEOPLE = [make_person(7, index, NOW, person_rng(7, index)) for index in range(10)]
CAST = Cast(tuple(PEOPLE[:2]), tuple(PEOPLE[2:4]), tuple(PEOPLE[4:5]))
ASKERS = PEOPLE[:5]
LEFT = next(person for person in PEOPLE if person.closed_at is not None)


def mail(person: Person | str, kind: str, number: str = "1") -> Mail:
    """One delivered mail."""
    address = person if isinstance(person, str) else person.email
    message = EmailMessage()
    message["Message-ID"] = f"<{kind}.{address}.{number}>"
    message["Delivered-To"] = address
    message[KIND_HEADER] = kind
    return Mail(Path("1.eml"), message)


def everything() -> list[Mail]:
    """Exactly what has to arrive."""
    asked = [mail(person, kind) for person in ASKERS for kind in (ACKNOWLEDGEMENT, OUTCOME)]
    return asked + [mail(person, POLICY_CHANGE) for person in PEOPLE[2:] if person is not LEFT]


def failed(mails: list[Mail]) -> list[str]:
    """Names of what is not as it should be."""
    return [check.name for check in check_mails(mails, PEOPLE, CAST) if not check.passed]


def test_every_mail_once_passes() -> None:
    """The right mails pass; the notice of the policy change to somebody erased or gone is neither asked for nor wrong."""
    assert failed(everything()) == []
    assert failed([*everything(), mail(PEOPLE[0], POLICY_CHANGE), mail(LEFT, POLICY_CHANGE)]) == []


@pytest.mark.parametrize("position", range(17))
def test_a_missing_mail_is_seen(position: int) -> None:
    """Whichever mail is missing, its kind is false."""
    mails = everything()
    kind = str(mails.pop(position).message[KIND_HEADER])
    names = {ACKNOWLEDGEMENT: "acknowledgements", OUTCOME: "outcomes", POLICY_CHANGE: "notice of the policy change"}
    assert failed(mails) == [f"mail · {names[kind]}"]


@pytest.mark.parametrize(
    "extra",
    [
        mail(PEOPLE[0], OUTCOME),
        mail("stranger@post.example", POLICY_CHANGE),
        mail(PEOPLE[8], OUTCOME),
        mail(PEOPLE[8], "unknown"),
    ],
)
def test_one_mail_too_many_is_seen(extra: Mail) -> None:
    """The same mail again, a mail to a stranger, or an outcome for somebody who asked for nothing is false."""
    assert "mail · nobody else, nothing twice" in failed([*everything(), extra])


def test_the_same_news_twice_is_seen() -> None:
    """Another Message-ID does not excuse telling a person the same thing twice."""
    assert failed([*everything(), mail(PEOPLE[0], OUTCOME, "2")]) == [
        "mail · outcomes",
        "mail · nobody else, nothing twice",
    ]


def test_acknowledgements_may_lapse_when_mail_was_held_up() -> None:
    """An acknowledgement that came after the answer may be left out then, but none may come twice."""
    late = [each for each in everything() if each.message[KIND_HEADER] != ACKNOWLEDGEMENT]
    assert all(check.passed for check in check_mails(late, PEOPLE, CAST, lapse=True))
    twice = [*everything(), mail(PEOPLE[0], ACKNOWLEDGEMENT, "2")]
    assert "mail · acknowledgements" in {
        check.name for check in check_mails(twice, PEOPLE, CAST, lapse=True) if not check.passed
    }
