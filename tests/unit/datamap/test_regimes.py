from datetime import date, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from habeas.datamap.policy.regimes import NoLawInForceError, Regime, packaged
from habeas.datamap.source import load_yaml, validate

# fmt: off
# Union members by the accession treaties (the United Kingdom left on 31 January 2020), then the EEA's other three.
EEA = [
    "AT", "BE", "BG", "HR", "CY", "CZ", "DK", "EE", "FI", "FR", "DE", "GR", "HU", "IE", "IT", "LV", "LT", "LU", "MT",
    "NL", "PL", "PT", "RO", "SK", "SI", "ES", "SE", "IS", "LI", "NO",
]
# fmt: on


def test_the_promised_regimes_are_there() -> None:
    """The policy promises GDPR and CCPA; the United Kingdom's is a law of its own since 2021."""
    assert sorted(packaged()) == ["ccpa", "gdpr", "uk-gdpr"]


def test_gdpr_covers_the_european_economic_area() -> None:
    """Thirty countries, and none of them twice."""
    assert sorted(packaged()["gdpr"].countries) == sorted(EEA)


def test_no_country_of_a_law_is_third_under_it() -> None:
    """A regime's own countries aren't listed as adequate third countries."""
    for regime in packaged().values():
        for version in regime.versions:
            adequate = version.adequate or ()
            assert not set(adequate) & set(regime.countries)
            assert len(set(adequate)) == len(adequate)


@pytest.mark.parametrize(
    ("regime", "day", "article", "within"),
    [
        ("gdpr", "2018-05-25", "Art. 12(3)", "1mo"),
        ("gdpr", "2026-11-24", "Art. 12(3)", "1mo"),
        ("uk-gdpr", "2026-02-04", "Art. 12(3)", "1mo"),
        ("uk-gdpr", "2026-02-05", "Art. 12A", "1mo"),
        ("ccpa", "2026-11-24", "11 CCR 7021(b)", "45d"),
    ],
)
def test_the_law_of_a_day(regime: str, day: str, article: str, within: str) -> None:
    """GDPR applies from 25 May 2018 (Art. 99(2)); SI 2026/82 brought Art. 12A into force on 5 February 2026."""
    version = packaged()[regime].at(date.fromisoformat(day))
    assert (version.answer.article, str(version.answer.within)) == (article, within)


def test_only_california_asks_for_a_confirmation() -> None:
    """Ten business days, 11 CCR 7021(a); the others know no such clock."""
    clocks = {name: regime.latest.acknowledgement for name, regime in packaged().items()}
    assert clocks["gdpr"] is None
    assert clocks["uk-gdpr"] is None
    assert clocks["ccpa"] is not None
    assert clocks["ccpa"].business_days == 10


def test_before_its_time_a_law_gives_no_answer() -> None:
    """The day before the GDPR applied is an error, not a guess."""
    with pytest.raises(NoLawInForceError):
        packaged()["gdpr"].at(date(2018, 5, 24))


def test_versions_leave_no_gap() -> None:
    """From a regime's first day on there is exactly one version in force on each day."""
    for regime in packaged().values():
        day = regime.versions[0].valid_from
        while day < date(2030, 1, 1):
            assert sum(version.in_force(day) for version in regime.versions) == 1
            day += timedelta(days=1)


def test_versions_may_not_overlap() -> None:
    """Two versions in force on one day would leave open which counts."""
    plain = packaged()["uk-gdpr"].model_dump(mode="json")
    plain["versions"][0]["valid_to"] = "2026-02-05"
    with pytest.raises(ValidationError, match="overlap"):
        Regime.model_validate(plain)


def test_a_law_of_ones_own_is_read_the_same_way(tmp_path: Path) -> None:
    """The packaged files have no privileges: any file of that shape is a regime."""
    file = tmp_path / "lgpd.yaml"
    file.write_text(
        "regime: lgpd\ntitle: Lei Geral\ncountries: [BR]\nversions:\n"
        '  - {version: v1, valid_from: "2020-09-18", answer: {within: 15d, article: Art. 19, rolls: never, counted_by: x},'
        " extension: {by: 0d, article: none}, child: {under: 12, at_least: 12, article: Art. 14}}\n",
        encoding="utf-8",
    )
    assert validate(Regime, load_yaml(file)).latest.answer.within.days_longest == 15
