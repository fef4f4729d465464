from pathlib import PurePosixPath
from textwrap import dedent

import pytest

from tests.architecture import house_lints as lints
from tests.architecture.repository import SERVICES, Source, sources

EXECUTOR = "services/erasure-executor/erasure_executor"


def a_source(path: str, text: str = "") -> Source:
    """A file that is not on disk."""
    return Source(PurePosixPath(path), dedent(text))


@pytest.mark.parametrize("lint", [*lints.OF_PYTHON, *lints.OF_ANY_FILE], ids=lambda lint: lint.__name__)
def test_repository_keeps_the_rule(lint: lints.Lint) -> None:
    """Every file of the repository keeps every house rule."""
    of_python = lint in lints.OF_PYTHON
    findings = [finding for source in sources() if source.python or not of_python for finding in lint(source)]
    assert not findings, "\n" + "\n".join(findings)


def test_repository_is_seen() -> None:
    """The lints look at the real tree: all six services, the library and these tests."""
    seen = {str(source.path) for source in sources()}
    assert "libs/habeas/pyproject.toml" in seen
    assert "tests/architecture/house_lints.py" in seen
    assert {source.service for source in sources() if source.service} == set(SERVICES)


BAD = [
    pytest.param(lint, a_source(path, text), id=f"{lint.__name__}-{number}")
    for number, (lint, path, text) in enumerate(
        [
            (lints.service_files_have_known_names, f"{EXECUTOR}/manager.py", ""),
            (lints.service_files_have_known_names, f"{EXECUTOR}/managers/erase.py", ""),
            (lints.service_files_have_known_names, f"{EXECUTOR}/migrations/first.sql", ""),
            (lints.service_files_have_known_names, f"{EXECUTOR}/migrations/0001_first.py", ""),
            (lints.service_files_have_known_names, f"{EXECUTOR}/templates/mail.py", ""),
            (lints.service_files_have_known_names, "services/erasure-executor/erase.sh", ""),
            (lints.service_files_have_known_names, "services/erasure-executor/other_package/app.py", ""),
            (lints.service_files_have_known_names, "services/notes.md", ""),
            (lints.service_files_have_known_names, "services/user-manager/user_manager/app.py", ""),
            (lints.modules_say_what_they_hold, "libs/habeas/habeas/chassis/utils.py", ""),
            (lints.modules_say_what_they_hold, "tests/helpers/servers.py", ""),
            (lints.functions_fit_a_screen, "libs/a.py", "def f():\n" + "    x = 1\n" * 70),
            (lints.functions_fit_a_screen, "libs/a.py", "async def f():\n" + "    x = 1\n" * 70),
            (lints.files_can_be_read_at_once, "libs/a.py", "x = 1\n" * 501),
            (lints.entries_only_enter, f"{EXECUTOR}/__main__.py", "x = 1\n" * 20),
            (lints.statements_stand_in_the_store, f"{EXECUTOR}/handlers.py", 'X = "SELECT 1"'),
            (lints.statements_stand_in_the_store, f"{EXECUTOR}/handlers.py", 'X = "\\n  -- why\\n  DELETE FROM a.b"'),
            (lints.statements_stand_in_the_store, f"{EXECUTOR}/sweeps.py", 'X = "update a.b set c = 1"'),
            (lints.statements_stand_in_the_store, f"{EXECUTOR}/store.py", 'X = f"DELETE FROM {table}"'),
            (lints.only_the_chassis_commits, f"{EXECUTOR}/store.py", "conn.commit()"),
            (
                lints.only_the_chassis_commits,
                f"{EXECUTOR}/sweeps.py",
                "async def f():\n    async with conn.transaction(): pass",
            ),
            (lints.only_the_chassis_commits, f"{EXECUTOR}/sweeps.py", "conn.transaction(isolation='serializable')"),
            (lints.decisions_are_pure, f"{EXECUTOR}/lifecycle.py", "import asyncio"),
            (lints.decisions_are_pure, f"{EXECUTOR}/lifecycle.py", "from random import choice"),
            (lints.decisions_are_pure, f"{EXECUTOR}/lifecycle.py", "from erasure_executor import store"),
            (lints.decisions_are_pure, f"{EXECUTOR}/lifecycle.py", "now = datetime.datetime.now(UTC)"),
            (lints.decisions_are_pure, f"{EXECUTOR}/lifecycle/plan.py", "async def plan(): pass"),
            (lints.exceptions_to_checks_have_reasons, "libs/a.py", "x = 1  # type: ignore"),
            (lints.exceptions_to_checks_have_reasons, "libs/a.py", "x = 1  # type: ignore[arg-type]"),
            (lints.exceptions_to_checks_have_reasons, "libs/a.py", "x = 1  # noqa: S101, S102"),
            (lints.exceptions_to_checks_have_reasons, "libs/a.py", "x = 1  # noqa - it is right this way"),
            (lints.tests_say_what_they_test, "tests/unit/test_a.py", "def test_it(): pass"),
            (
                lints.tests_say_what_they_test,
                "tests/unit/test_a.py",
                'class TestA:\n    async def test_it(self):\n        """It."""',
            ),
            (lints.tests_wait_on_conditions, "tests/e2e/test_a.py", "time.sleep(1)"),
            (lints.tests_wait_on_conditions, "tests/e2e/test_a.py", "async def f(): await asyncio.sleep(0.1)"),
            (lints.only_the_clock_tells_time, "libs/habeas/habeas/chassis/ids.py", "now = datetime.now(UTC)"),
            (lints.only_the_clock_tells_time, "libs/habeas/habeas/chassis/ids.py", "now = time.time_ns()"),
            (lints.services_bear_their_names, "services/audit-ledger/pyproject.toml", '[project]\nname = "ledger"\n'),
            (lints.services_bear_their_names, f"{EXECUTOR}/app.py", 'service = Service("eraser", settings)'),
            (lints.services_bear_their_names, f"{EXECUTOR}/handlers.py", "async def erase(batch, tx): pass"),
            (lints.nothing_names_a_machine, "README.md", "see https://" + "py" + "pi.org/simple"),
            (lints.nothing_names_a_machine, "Makefile", "INDEX = files." + "python" + "hosted.org"),
            (lints.nothing_names_a_machine, "docs/a.md", "run it in /" + "work/main"),
            (lints.nothing_names_a_machine, "docs/a.md", "path: '/" + "home/ann/habeas'"),
        ]
    )
]


@pytest.mark.parametrize(("lint", "source"), BAD)
def test_bad_sample_is_found(lint: lints.Lint, source: Source) -> None:
    """Each lint finds what it exists for."""
    assert list(lint(source))


def test_every_lint_has_a_bad_sample() -> None:
    """A lint that was never seen failing is not trusted."""
    assert {param.values[0] for param in BAD} == {*lints.OF_PYTHON, *lints.OF_ANY_FILE}


@pytest.mark.parametrize(
    ("lint", "path", "text"),
    [
        (lints.service_files_have_known_names, f"{EXECUTOR}/store/erasures.py", ""),
        (lints.service_files_have_known_names, f"{EXECUTOR}/migrations/0001_first_tables.sql", ""),
        (
            lints.service_files_have_known_names,
            "services/notification-mailer/notification_mailer/templates/de/ack.txt",
            "",
        ),
        (lints.functions_fit_a_screen, "libs/a.py", "def f():\n" + "    x = 1\n" * 69),
        (lints.statements_stand_in_the_store, f"{EXECUTOR}/store.py", 'X = "SELECT 1"'),
        (lints.statements_stand_in_the_store, f"{EXECUTOR}/handlers.py", '"""Update and delete from the map."""'),
        (lints.only_the_chassis_commits, f"{EXECUTOR}/sweeps.py", 'db.transaction("erase plan")'),
        (lints.decisions_are_pure, f"{EXECUTOR}/lifecycle.py", "from datetime import datetime\nfrom uuid import UUID"),
        (lints.exceptions_to_checks_have_reasons, "libs/a.py", "x = 1  # type: ignore[misc] - the stubs lack this one"),
        (lints.exceptions_to_checks_have_reasons, "libs/a.py", "x = 1  # noqa: S101 # told by the caller"),
        (lints.tests_wait_on_conditions, "tests/support/waiting.py", "async def f(): await asyncio.sleep(0.1)"),
        (
            lints.services_bear_their_names,
            f"{EXECUTOR}/app.py",
            'service = Service("erasure-executor", settings.chassis)',
        ),
        (lints.nothing_names_a_machine, "docker-compose.yml", "- ./deploy/demo:/etc/habeas:ro"),
        (lints.nothing_names_a_machine, "docs/a.md", "see libs/work/main and https://example.org/home/ann"),
    ],
)
def test_good_sample_passes(lint: lints.Lint, path: str, text: str) -> None:
    """No lint complains about what the rules allow."""
    assert not list(lint(a_source(path, text)))


def test_migrations_are_numbered_without_gaps() -> None:
    """Migrations of a service are numbered 0001, 0002 … so that two people cannot add the same one unseen."""
    for name in SERVICES:
        numbers = [
            int(source.path.name[:4])
            for source in sources()
            if source.service == name and source.inside[:1] == ("migrations",) and source.path.suffix == ".sql"
        ]
        assert numbers == list(range(1, len(numbers) + 1)), name
