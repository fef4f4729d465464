import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from habeas.cli.policy import policy

DEMO = Path(__file__).parents[3] / "deploy" / "demo" / "policy.yaml"


@pytest.fixture
def mistaken(tmp_path: Path) -> Path:
    """The demo policy with a promise that is laxer than the law."""
    file = tmp_path / "policy.yaml"
    text = DEMO.read_text(encoding="utf-8")
    file.write_text(text.replace("answer_within: 30d", "answer_within: 60d"), encoding="utf-8")
    return file


def line_of(file: Path, start: str) -> int:
    """Number of the first line that begins with `start`."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.startswith(start))


def test_check_of_a_good_policy() -> None:
    """Exit code 0, for people and for programs."""
    assert CliRunner().invoke(policy, ["check", str(DEMO)]).exit_code == 0
    result = CliRunner().invoke(policy, ["check", "--json", str(DEMO)])
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"ok": True, "problems": []})


def test_check_explains_each_error(mistaken: Path) -> None:
    """Exit code 1 and `file:line: what; write …` on one line, however long it is."""
    result = CliRunner().invoke(policy, ["check", str(mistaken)])
    assert result.exit_code == 1
    assert f"{mistaken}:{line_of(mistaken, 'answer_within')}: `answer_within: 60d` is laxer than gdpr" in result.stderr
    assert "; write `1mo` or less" in result.stderr
    machine = json.loads(CliRunner().invoke(policy, ["check", "--json", str(mistaken)]).stdout)
    assert machine["ok"] is False
    assert {problem["path"] for problem in machine["problems"]} == {"answer_within"}


def test_render_writes_documents() -> None:
    """Both documents come out as Markdown, the record by default."""
    assert CliRunner().invoke(policy, ["render", str(DEMO)]).stdout.startswith("# Record of processing activities\n")
    register = CliRunner().invoke(policy, ["render", "--what", "recipients", str(DEMO)])
    assert register.stdout.startswith("# Register of recipients\n")
    machine = json.loads(CliRunner().invoke(policy, ["render", "--json", str(DEMO)]).stdout)
    assert machine["markdown"].startswith("# Record")


def test_render_refuses_a_policy_that_is_wrong(mistaken: Path) -> None:
    """No document is made of what can't be kept."""
    result = CliRunner().invoke(policy, ["render", str(mistaken)])
    assert (result.exit_code, result.stdout) == (1, "")
    assert json.loads(CliRunner().invoke(policy, ["render", "--json", str(mistaken)]).stdout)["ok"] is False


def test_schema_is_json() -> None:
    """What is printed can be given to an editor as it is."""
    result = CliRunner().invoke(policy, ["schema"])
    assert json.loads(result.stdout)["title"] == "Habeas policy"


def test_wrong_use() -> None:
    """A file that isn't there is wrong use: exit code 2."""
    assert CliRunner().invoke(policy, ["check", "/nowhere/policy.yaml"]).exit_code == 2
