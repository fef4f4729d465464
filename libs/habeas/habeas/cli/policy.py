"""`habeas policy`: check, render and describe the policy file. Needs no server and changes nothing."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from habeas.datamap.policy.model import Policy
    from habeas.datamap.source import Problem

POLICY_FILE = click.argument(
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="HABEAS_POLICY",
    default="policy.yaml",
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


@click.group(name="policy")
def policy() -> None:
    """Check, render and describe policy.yaml."""


@policy.command()
@POLICY_FILE
@AS_JSON
def check(file: Path, *, as_json: bool) -> None:
    """Say whether FILE is a policy that can be kept: 0 yes, 1 no, with file, line and what to write."""
    loaded, problems = _load(file)
    if as_json:
        _write_json({"ok": loaded is not None, "problems": _plain(problems)})
    elif loaded is None:
        _explain(problems)
    else:
        _say(f"{file}: policy {loaded.version} is in order")
    raise SystemExit(1 if loaded is None else 0)


@policy.command()
@POLICY_FILE
@click.option(
    "--what",
    type=click.Choice(["record", "recipients"]),
    default="record",
    show_default=True,
    help="The record of processing activities (GDPR Art. 30) or the register of recipients.",
)
@AS_JSON
def render(file: Path, what: str, *, as_json: bool) -> None:
    """Write FILE as a document (Markdown)."""
    from habeas.datamap.policy.render import render_recipients, render_record

    loaded, problems = _load(file)
    if loaded is None:
        if as_json:
            _write_json({"ok": False, "problems": _plain(problems)})
        else:
            _explain(problems)
        raise SystemExit(1)
    text = render_record(loaded) if what == "record" else render_recipients(loaded)
    if as_json:
        _write_json({"ok": True, "what": what, "version": loaded.version, "markdown": text})
    else:
        click.echo(text, nl=False)


@policy.command()
@click.option("--json", "as_json", is_flag=True, help="No difference: a schema is JSON.")
def schema(*, as_json: bool) -> None:  # noqa: ARG001 - every command takes --json
    """Write the JSON Schema of policy.yaml, for editors."""
    from habeas.datamap.policy.json_schema import policy_schema

    _write_json(policy_schema())


def _load(file: Path) -> "tuple[Policy | None, tuple[Problem, ...]]":
    from habeas.datamap.policy.model import load_policy
    from habeas.datamap.source import ConfigurationError

    try:
        return load_policy(file), ()
    except ConfigurationError as error:
        return None, error.problems


def _plain(problems: "tuple[Problem, ...]") -> list[dict[str, Any]]:
    return [{**problem._asdict(), "file": str(problem.file)} for problem in problems]


def _write_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _explain(problems: "tuple[Problem, ...]") -> None:
    """One line each, so that a terminal makes `file:line` clickable and `grep` finds it whole."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, soft_wrap=True)
    for problem in problems:
        console.print(
            Text.assemble(
                (f"{problem.file}:{problem.line}", "bold"),
                f": {problem.what}; write ",
                (problem.write, "green"),
            )
        )
    console.print(Text(f"{len(problems)} to mend" if len(problems) > 1 else "1 to mend", style="red"))


def _say(text: str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(soft_wrap=True).print(Text(text))
