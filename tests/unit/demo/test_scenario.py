import datetime as dt
from pathlib import Path
from uuid import UUID, uuid5

import pytest

from habeas.contracts.export_builder import ExportStuck
from habeas.contracts.request_intake import RequestCompleted
from habeas.contracts.vocabulary import Outcome, Right, StuckReason
from habeas.datamap.map.loading import load_datamap
from habeas.datamap.policy.model import load_policy
from habeas_demo.generator import PLATFORM_DIR
from habeas_demo.people import Person, make_person, person_rng
from habeas_demo.progress import Progress
from habeas_demo.scenario import choose_cast, new_issuer, policy_with_issuer, start_of_day

NOW = dt.datetime(2026, 11, 24, 0, 30, tzinfo=dt.timezone(dt.timedelta(hours=1)))
ID = UUID("01990c5e-7b1a-7c62-9f0e-3d6a5b1c2d3e")


def people(count: int) -> list[Person]:
    """The first people of a platform."""
    return [make_person(7, index, NOW, person_rng(7, index)) for index in range(count)]


def test_nobody_asks_twice() -> None:
    """A hundred different people with open accounts are drawn, the same for the same seed."""
    cast = choose_cast(people(200), 7)
    everybody = [*cast.erasures, *cast.accesses, *cast.portabilities]
    assert len({person.account_id for person in everybody}) == 100
    assert (len(cast.erasures), len(cast.accesses), len(cast.portabilities)) == (50, 25, 25)
    assert all(person.closed_at is None for person in everybody)
    assert choose_cast(people(200), 7) == cast
    assert choose_cast(people(200), 8) != cast


def test_too_few_people_are_refused() -> None:
    """A platform that is too small is an error, not a smaller demo."""
    with pytest.raises(ValueError, match="100 requests need 100 open accounts"):
        choose_cast(people(100), 7)


def test_the_tick_is_for_midnight_utc() -> None:
    """Half past midnight in Berlin is still the day before in UTC."""
    assert start_of_day(NOW) == dt.datetime(2026, 11, 23, tzinfo=dt.UTC)


def test_policy_and_data_map_are_valid(tmp_path: Path) -> None:
    """The demo's own files pass Habeas' checks, and the issuer of the day is registered for every right."""
    issuer = new_issuer("accounts-2026-11")
    file = tmp_path / "policy.yaml"
    file.write_text(
        policy_with_issuer((PLATFORM_DIR / "policy.yaml").read_text(encoding="utf-8"), issuer), encoding="utf-8"
    )
    policy = load_policy(file)
    key = policy.issuer_key("accounts", "accounts-2026-11", NOW, dt.timedelta())
    assert key is not None
    assert key.raw == issuer.private_key.public_key().public_bytes_raw()
    assert all(policy.attestation_suffices("accounts", right, "mfa") for right in Right)
    store = load_datamap(PLATFORM_DIR / "datamap", policy).stores["platform"]
    assert len([table for table in store.tables.values() if table.personal]) == 14
    assert set(policy.categories) >= {"account", "usage", "task_content", "technical", "payment", "provider_keys"}


def test_an_event_counts_once() -> None:
    """A redelivered event changes nothing, and trouble is counted by reason."""
    progress = Progress()
    done = RequestCompleted(
        request_id=ID, subject_id=ID, right=Right.ERASURE, outcome=Outcome.DONE, categories=(), completed_at=NOW
    )
    stuck = ExportStuck(
        request_id=ID,
        subject_id=ID,
        export_id=ID,
        reason=StuckReason.STORE_REFUSED,
        store=None,
        table=None,
        stuck_at=NOW,
    )
    for _ in range(3):
        progress.hear(ID, done)
        progress.hear(uuid5(ID, "2"), stuck)
    assert progress.types == {"request.completed": 1, "export.stuck": 1}
    assert progress.stuck == {"export.stuck: store_refused": 1}
    assert set(progress.final) == {ID}
