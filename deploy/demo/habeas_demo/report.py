"""What the demo shows: how far the fleet is while it works, and what the checks say in the end."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from habeas.contracts.vocabulary import Right
from habeas_demo.checks import Check
from habeas_demo.progress import SWEEPS, Progress
from habeas_demo.scenario import Sent

_STAGES: Final = ("request.accepted", "request.verified", "request.fulfilled", "request.completed")


@dataclass(frozen=True, slots=True)
class View:
    """A live picture of the progress; rich draws it again and again."""

    progress: Progress
    sent: Sent

    def __rich__(self) -> RenderableType:
        """Draw what was heard so far."""
        total = len(self.sent.requests)
        requests = Table(box=None, padding=(0, 2), header_style="bold")
        for column in ("", *(stage.split(".")[1] for stage in _STAGES)):
            requests.add_column(column, justify="left" if not column else "right")
        requests.add_row(f"{total} requests", *(f"{self.progress.types[stage]}" for stage in _STAGES))
        swept, mails = len(self.progress.swept), self.progress.types["mail.sent"]
        lines: list[RenderableType] = [
            requests,
            Text(f"{swept} of {len(SWEEPS)} retention rules swept, {mails} mails of requests sent"),
        ]
        lines += [
            Text(f"stuck: {what} × {count}", style="yellow") for what, count in self.progress.stuck.most_common(3)
        ]
        return Group(*lines)


_GROUPS: Final = {
    "requests": "each is completed, with the outcome that the policy gives it",
    "seen": "tables that are there and held rows, so that something can be said of them",
    "erased": "tables without any row of the 50 people",
    "kept without the person": "tables whose rows tax law keeps, and that name nobody any more",
    "others untouched": "tables in which every row of everybody else is as it was",
    "unchanged": "tables that hold no person",
    "retention": "tables and days of log: nothing past its time, nothing gone too early",
    "exports": "opened with the person's key: all rows, nobody else's, no secret, and what Art. 15 demands",
    "mail": "each person told what they had to be told, once",
    "audit": "every entry of every service, in order, unaltered: verified offline",
    "canary": "nobody readable in dumps, topics, logs, traces, artefacts",
    "broken": "what can't be done is said and not claimed",
}


def show_checks(console: Console, checks: Sequence[Check]) -> None:
    """Print one line for each group of checks, and each check that failed."""
    table = Table(title="What the demo's own eyes saw", title_justify="left", header_style="bold")
    table.add_column("looked at", no_wrap=True)
    table.add_column("passed", justify="right", no_wrap=True)
    table.add_column("meaning", overflow="fold")
    groups: dict[str, list[Check]] = {group: [] for group in _GROUPS}
    for check in checks:
        groups.setdefault(check.name.split(" · ")[0], []).append(check)
    for group, members in groups.items():
        if members:
            passed = sum(check.passed for check in members)
            style = "green" if passed == len(members) else "bold red"
            table.add_row(group, Text(f"{passed} of {len(members)}", style=style), _GROUPS.get(group, ""))
    console.print(table)
    for check in checks:
        if not check.passed:
            line = Text.assemble(("false ", "bold red"), (check.name, "bold"), f": {check.detail}")
            console.print(line, soft_wrap=True)


def show_next(console: Console, run: Path, sent: Sent | None, *, kept: bool) -> None:
    """Print where to look now."""
    console.print()
    console.print(
        f"Everything of this run is in {run}: logs, traces, audit-log, artefacts, mail, dumps", soft_wrap=True
    )
    example = next((asked for asked in sent.requests if asked.right is Right.ERASURE), None) if sent else None
    if example is not None and kept:
        console.print(f"One erasure from end to end: habeas trail {example.request_id}", soft_wrap=True)
    log = run / "audit-log"
    verify = f'.venv/bin/habeas audit verify {log} --vkey "$(cat {log / "vkey"})"'
    console.print(f"The audit log, without trusting anybody: {verify}", soft_wrap=True)
    if kept:
        console.print("Servers and fleet go on until Ctrl-C.")
