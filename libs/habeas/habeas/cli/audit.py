"""`habeas audit`: the log checked offline, from its files and a public key alone; and halted producers let go on."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from habeas.cli.connection import SUPERVISOR_DSN, run
from habeas.cli.output import AS_JSON, say, write_json, write_table

if TYPE_CHECKING:
    from habeas.auditlog.notes import Verifier

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(name="audit")
def audit() -> None:
    """Check the audit log, and let its producers go on."""


@audit.command(name="verify")
@click.argument("directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--vkey", help="The log's public key, NAME+ID+KEY, from somewhere you trust: not from DIR.")
@click.option(
    "--policy", "policy_file", type=_FILE, help="Trust policy (C2SP tlog-policy) whose `log` line has the key."
)
@click.option(
    "--earlier", multiple=True, type=_FILE, help="A checkpoint kept from before: the log must still begin so."
)
@click.option("--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="Share the hashing.")
@AS_JSON
def verify(
    directory: Path,
    vkey: str | None,
    policy_file: Path | None,
    earlier: tuple[Path, ...],
    processes: int,
    *,
    as_json: bool,
) -> None:
    """Check every entry, tile and signature of the log in DIR: exit code 0 when all hold, 1 when anything is wrong."""
    from habeas.auditlog.verify import Earlier, verify_log

    if (vkey is None) == (policy_file is None):
        raise click.UsageError("give one of --vkey and --policy")
    log = _of_policy(policy_file) if policy_file else _parse(vkey or "", "--vkey")
    source = str(policy_file) if policy_file else "the command line"
    marks = [Earlier(str(path), path.read_bytes()) for path in earlier]
    report = verify_log(directory, log, key_source=source, earlier=marks, processes=processes)
    if as_json:
        write_json(report.as_json())
    else:
        rows = [(each.verdict.value, each.check.value, each.detail) for each in report.findings]
        write_table(f"{report.origin}, {report.size} entries", ("verdict", "check", "detail"), rows)
        for finding in report.findings:
            for problem in finding.problems[1:]:
                say(f"{finding.check.value}: {problem.artefact}: {problem.detail}")
        say("the log holds" if report.ok else "the log does not hold")
    raise SystemExit(0 if report.ok else 1)


@audit.command(name="resume")
@click.argument("producer")
@click.option(
    "--new-seed",
    is_flag=True,
    help="Its database was made anew: take what links on also without the secret that its last entry pledged.",
)
@SUPERVISOR_DSN
@AS_JSON
def resume(producer: str, dsn: str, *, new_seed: bool, as_json: bool) -> None:
    """Let a halted PRODUCER of the log go on, after you have found out why it is halted. On record.

    What it told meanwhile and fits is taken, in its order.
    """
    from habeas.cli import store

    if producer not in store.SERVICES:
        raise click.UsageError(f"producers are {', '.join(store.SERVICES)}")
    changed = run(_resume(dsn, producer, new_seed=new_seed))
    if as_json:
        write_json({"changed": changed})
    else:
        say(f"{producer} goes on" if changed else f"{producer} is not halted: nothing changed")


async def _resume(dsn: str, producer: str, *, new_seed: bool) -> bool:
    from habeas.cli import store
    from habeas.cli.connection import connected

    async with connected(dsn, store.schema_of("audit-ledger"), writes=True) as conn:
        return await store.resume_producer(conn, producer, new_seed=new_seed)


def _of_policy(file: Path) -> "Verifier":
    """Read the key of the one `log` line; witnesses and quorums are for who evaluates them."""
    lines = [line.split() for line in file.read_text(encoding="utf-8").splitlines()]
    keys = [words[1] for words in lines if len(words) > 1 and words[0] == "log"]
    if len(keys) != 1:
        raise click.UsageError(f"{file} has {len(keys)} `log` lines; one is needed")
    return _parse(keys[0], str(file))


def _parse(vkey: str, source: str) -> "Verifier":
    from habeas.auditlog.errors import AuditLogError
    from habeas.auditlog.notes import Verifier

    try:
        return Verifier.parse(vkey.strip())
    except AuditLogError as error:
        raise click.UsageError(f"{source}: {error}") from None
