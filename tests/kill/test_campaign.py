"""The fault campaign itself."""

import secrets
import shutil

import pytest

from tests.kill.campaign import LONG, SHORT, SMALL, ends_of_logs, run_campaign
from tests.kill.report import table

_FAILURES_SHOWN = 25


@pytest.mark.timeout(3_000)
async def test_nothing_is_lost_doubled_or_disordered_whatever_dies(
    pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    """Requests of every kind under kills, pauses, cuts, full disks and wrong clocks: each promise is kept, and all is done in time."""
    form = LONG if pytestconfig.getoption("--long") else SMALL if pytestconfig.getoption("--small") else SHORT
    seed = pytestconfig.getoption("--kill-seed") or secrets.randbelow(1_000_000)

    def say(text: str) -> None:
        with capsys.disabled():
            print(f"  {text}", flush=True)

    say(f"\nfault campaign, {form.name} form, seed {seed} (again: make test-kill ARGS=--kill-seed={seed})")
    outcome = await run_campaign(form, seed, say)
    say(f"\n{table(outcome)}\n")
    if outcome.failures:
        shown = "\n".join(outcome.failures[:_FAILURES_SHOWN])
        pytest.fail(
            f"{len(outcome.failures)} failures with seed {seed}; databases, logs, mails and histories are in {outcome.run}\n"
            f"{shown}\n{ends_of_logs(outcome.run)}"
        )
    shutil.rmtree(outcome.run, ignore_errors=True)
