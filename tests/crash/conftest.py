"""The whole matrix is played once for the session: one set of servers, one fleet, every case."""

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

import pytest
import pytest_asyncio

from habeas_demo.checks import Check, Witness
from habeas_demo.histories import Size
from tests.crash.cases import CASES
from tests.crash.outside import broken_rules, until_quiet
from tests.crash.play import ENVIRONMENT, Play, Played
from tests.support.stage import raised

_SIZE = Size(accounts=260, logs_each=3, tasks_each=2)
_CHOSEN = os.environ.get("CRASH_ONLY", "")  # a part of a case's name, to look at that alone
_TOLD = pytest.StashKey[str]()


@dataclass(frozen=True)
class Outcome:
    """What was played, and what was found afterwards."""

    played: Played
    broken: Mapping[str, Sequence[str]]
    platform: Sequence[Check]
    uncertain: int


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def outcome(pytestconfig: pytest.Config) -> AsyncIterator[Outcome]:
    """Let every service die at every point, wait until all is done, and judge."""
    chosen = tuple(case for case in CASES if _CHOSEN in case.name)
    async with raised(f"tests-crash-{os.getpid()}", size=_SIZE, services=(), environment=ENVIRONMENT) as stage:
        play = Play(stage, _teller(pytestconfig))
        began = stage.clock.monotonic()
        witness = await Witness.open(stage.platform.owner_dsn, play.played.began_at)
        try:
            played = await play.run(chosen)
            await until_quiet(stage, played)
            await play.stop()  # a still picture
            broken = await broken_rules(stage, played)
            platform = await witness.check_platform([person.account_id for person in played.erased])
            uncertain = await play.number("SELECT count(*) FROM notification_mailer.messages WHERE state = 'uncertain'")
        finally:
            await witness.close()
            await play.stop()
        seconds = stage.clock.monotonic() - began
        pytestconfig.stash[_TOLD] = (
            f"{len(played.ended)} deaths by SIGKILL in {seconds:.0f} s, {len(played.requests)} requests meanwhile,"
            f" {uncertain} mails uncertain, {sum(map(len, broken.values()))} broken rules"
            + "".join(
                f"\nnot at its point: {case.name}; its log ends with\n{log}" for case, log in played.missed.items()
            )
        )
        yield Outcome(played, broken, platform, uncertain)


def _teller(config: pytest.Config) -> Callable[[str], object]:
    """Give what says each death at once, when asked for by ``-v``."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or config.get_verbosity() < 1:
        return lambda _: None
    tell: Callable[[str], object] = reporter.write_line
    return tell


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was played, in one line."""
    if told := config.stash.get(_TOLD, ""):
        terminalreporter.write_line(f"crash matrix: {told}")
