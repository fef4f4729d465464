"""One rule for every command: in production no connection to a database that others could read."""

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from habeas.cli.connection import private
from habeas.cli.main import habeas

PLAIN = "postgresql://habeas_owner:hidden-word@db.example.org/habeas"
SAFE = f"{PLAIN}?sslmode=verify-full&ssl_min_protocol_version=TLSv1.3"


def commands(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command below a group, with its path."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        else:
            yield (*path, name), command


WITH_DSN = [
    (path, option)
    for path, command in commands(habeas)
    for option in command.params
    if isinstance(option, click.Option) and "--dsn" in option.opts and str(option.envvar).startswith("HABEAS_")
]


@pytest.mark.parametrize(("path", "option"), WITH_DSN, ids=[" ".join(path) for path, _ in WITH_DSN])
def test_every_command_with_a_dsn_refuses_a_readable_one(path: tuple[str, ...], option: click.Option) -> None:
    """It does so before anything else, names the variable and what to write, and shows no password."""
    assert option.callback is private
    for environment in (None, "production", "staging"):
        variables = {"HABEAS_ENVIRONMENT": environment, str(option.envvar): PLAIN}
        with CliRunner().isolation(env=variables), pytest.raises(click.UsageError) as refused:
            option.handle_parse_result(click.Context(habeas), {}, [])
        assert (
            f"give {option.envvar} sslmode=verify-full and ssl_min_protocol_version=TLSv1.3" in refused.value.message
        ), path
        assert "hidden-word" not in refused.value.message


def test_most_commands_have_one() -> None:
    """The list above is not empty by mistake."""
    assert {("migrate",), ("status",), ("trail",), ("request", "submit"), ("parked", "retry"), ("replay",)} <= {
        path for path, _ in WITH_DSN
    }


def test_migrate_without_topics_refuses_too() -> None:
    """The whole command, as an administrator runs it: exit code 2, nothing is connected to."""
    refused = CliRunner().invoke(
        habeas, ["migrate", "--no-topics", "--dsn", PLAIN], env={"HABEAS_ENVIRONMENT": "production"}
    )
    assert (refused.exit_code, "production refuses a database connection" in refused.output) == (2, True)


@pytest.mark.parametrize(
    ("dsn", "environment"),
    [
        (SAFE, "production"),
        ("postgresql:///habeas?host=/run/postgresql", "production"),
        (PLAIN, "development"),
        (None, "production"),
    ],
)
def test_what_is_private_or_in_development_passes(
    dsn: str | None, environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS 1.3 with the server's name checked, a unix socket, and anything on a developer's machine."""
    monkeypatch.setenv("HABEAS_ENVIRONMENT", environment)
    assert private(click.Context(habeas), WITH_DSN[0][1], dsn) == dsn
