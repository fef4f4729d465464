from pathlib import Path

import pytest

from habeas.datamap.policy.model import Policy, load_policy
from habeas.datamap.policy.render import render_recipients, render_record

DEMO = Path(__file__).parents[3] / "deploy" / "demo" / "policy.yaml"


@pytest.fixture
def policy() -> Policy:
    """The demo platform's policy."""
    return load_policy(DEMO)


def rows(markdown: str, heading: str) -> list[list[str]]:
    """Cells of the first table under a heading, its head left out."""
    section = markdown.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_the_record_has_every_item_of_article_30(policy: Policy) -> None:
    """Art. 30(1)(a)-(g), in order; what the file doesn't say is said to be missing, not left out."""
    headings = [line[3:] for line in render_record(policy).splitlines() if line.startswith("## ")]
    assert [heading[:3] for heading in headings[:7]] == ["(a)", "(b)", "(c)", "(d)", "(e)", "(f)", "(g)"]
    assert "Not stated in the policy file." in render_record(policy.model_copy(update={"security": ()}))


def test_nothing_of_the_file_is_left_out(policy: Policy) -> None:
    """Each purpose, category, retention class and recipient has its row."""
    record = render_record(policy)
    assert [row[0] for row in rows(record, "(b) Purposes")] == list(policy.purposes)
    assert [row[0] for row in rows(record, "(c) Data subjects and categories of data")] == list(policy.categories)
    assert [row[0] for row in rows(record, "(d) Recipients")] == list(policy.recipients)
    assert [row[0] for row in rows(record, "(f) Time limits for erasure")] == list(policy.retention)


def test_transfers_are_those_that_leave_the_area(policy: Policy) -> None:
    """A German controller transfers data to the United States, not to Ireland."""
    countries = {row[1] for row in rows(render_recipients(policy), "Transfers to third countries")}
    assert "US" in countries
    assert not countries & {"IE", "DE"}


def test_a_transfer_without_a_word_is_called_adequate_only_where_it_is(policy: Policy) -> None:
    """Switzerland has a decision (2000/518/EC); for India the record admits that nothing is stated."""
    template = policy.recipients["payments"]
    recipients = {name: template.model_copy(update={"country": name}) for name in ("CH", "IN")}
    text = render_recipients(policy.model_copy(update={"recipients": recipients}))
    found = {row[1]: row[2] for row in rows(text, "Transfers to third countries")}
    assert found["CH"] == "adequacy decision, Art. 45"
    assert found["IN"] == "Not stated in the policy file."


def test_text_cannot_leave_its_cell(policy: Policy) -> None:
    """Bars, line breaks and markup of the file stay text."""
    purpose = policy.purposes["prevent_abuse"].model_copy(update={"interest": "a | b\n# <b>c</b>"})
    record = render_record(policy.model_copy(update={"purposes": {"abuse": purpose}}))
    assert "a \\| b # \\<b>c\\</b>" in record


def test_the_same_file_gives_the_same_text(policy: Policy) -> None:
    """A record under version control changes only when the policy does."""
    assert render_record(policy) == render_record(load_policy(DEMO))
