"""What a stranger wrote is shown to the operator and never obeyed by their terminal."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from habeas.cli.output import say, visible, write_facts, write_json, write_table

OBEYED = {
    "colour": "\x1b[31mparked\x1b[0m",
    "title": "\x1b]0;owned\x07",
    "link": "\x1b]8;;https://example.org\x1b\\shown\x1b]8;;\x1b\\",
    "clipboard": "\x1b]52;c;cm0gLXJm\x07",
    "one byte": "\x9b2J\x9d0;x\x9c",
    "line": "ok\r\nreason  none",
    "direction": "\u202egnp.exe\u2066",
    "unseen": "a\u200bb\ufeffc\U000e0041",
    "alone": "\ud83d",
}
ACTING = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""General categories (UAX 44, table 12): controls, formats, surrogates, ends of lines and paragraphs."""


@pytest.mark.parametrize("text", OBEYED.values(), ids=OBEYED.keys())
def test_nothing_acts_upon_the_terminal(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In tables, facts and lines, and in JSON, which still says the same to a program."""
    write_table("", ("field",), [(text,)])
    write_facts({"value": text})
    say(text)
    shown = capsys.readouterr().out
    assert not {unicodedata.category(each) for each in shown.replace("\n", "")} & ACTING
    assert len(shown.splitlines()) == 4
    write_json({"value": text})
    document = capsys.readouterr().out
    assert not {unicodedata.category(each) for each in document.replace("\n", "")} & ACTING
    assert json.loads(document) == {"value": text}


@given(st.text())
def test_what_a_terminal_obeys_is_escaped_and_nothing_else(text: str) -> None:
    """No control is left, whatever the text; letters of every script, marks and emoji stay as they are."""
    shown = visible(text)
    assert not any(unicodedata.category(each) in {"Cc", "Cs", "Zl", "Zp"} or each in "\u202e\u2066" for each in shown)
    if not any(unicodedata.category(each) in ACTING for each in text):
        assert shown == text
