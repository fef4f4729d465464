"""House rules that no linter knows, one function each: it takes a file and yields what is wrong with it.

`test_house_lints.py` runs each over the whole repository, and over a small bad and a small good sample: a lint that
cannot fail is a defect.
"""

import ast
import re
from collections.abc import Callable, Iterator
from typing import Final

from tests.architecture.repository import SERVICES, Source

Lint = Callable[[Source], Iterator[str]]

FUNCTION_LINES_MAX: Final = 70
FILE_LINES_MAX: Final = 500
MAIN_LINES_MAX: Final = 19

_FILES: Final = frozenset(
    {"__main__", "app", "settings", "lifecycle", "handlers", "sweeps", "api", "store", "gateways", "errors"}
)
_DATA: Final = frozenset({"templates", "static"})  # what is sent to people: text, never code
_MIGRATION: Final = re.compile(r"\d{4}_[a-z0-9]+(_[a-z0-9]+)*\.sql")
_VAGUE: Final = frozenset({"utils", "util", "common", "helpers", "helper", "misc"})

_SQL: Final = re.compile(
    r"\s*(--[^\n]*\n\s*)*("
    r"(SELECT|INSERT|UPDATE|DELETE|MERGE|TRUNCATE|COPY|WITH|LOCK|BEGIN|COMMIT|ROLLBACK|SAVEPOINT)(\s|;|$)"
    r"|(?i:select\s[\s\S]*\sfrom\s|insert\s+into\s|update\s+\S+\s+set\s|delete\s+from\s)"
    r")"
)

_OUTSIDE: Final = frozenset(
    {
        *(
            "aiokafka",
            "aiosmtplib",
            "asyncio",
            "asyncpg",
            "faststream",
            "http",
            "io",
            "logging",
            "multiprocessing",
            "opentelemetry",
        ),
        *(
            "os",
            "pathlib",
            "psycopg",
            "random",
            "secrets",
            "shutil",
            "socket",
            "ssl",
            "subprocess",
            "sys",
            "tempfile",
            "threading",
        ),
        *("time", "tink", "urllib", "uvicorn"),
    }
)
_IMPURE_NEIGHBOURS: Final = frozenset({"app", "api", "gateways", "handlers", "settings", "store", "sweeps"})
_IMPURE_CALLS: Final = frozenset(
    {"datetime.now", "datetime.utcnow", "datetime.today", "date.today", "uuid4", "uuid1", "open", "input"}
)

_IGNORES: Final = re.compile(
    r"type:\s*ignore(\[[\w\-, ]*\])?|(ruff:\s*)?noqa(:\s*[A-Z]+[0-9]+([,\s]+[A-Z]+[0-9]+)*)?|pyright:\s*ignore"
)
_WORD: Final = re.compile(r"[^\W\d_]{2,}")

# The hosts are written in pieces, so that this file does not name them either.
_HOSTS: Final = re.compile(
    r"\b("
    + "|".join(
        r"\.".join(parts)
        for parts in (
            ("pypi", "org"),
            ("pythonhosted", "org"),
            ("npmjs", "(org|com)"),
            ("crates", "io"),
            ("proxy", "golang", "org"),
            ("maven", "org"),
            ("maven", "apache", "org"),
            ("debian", "org"),
            ("ubuntu", "com"),
        )
    )
    + r")\b"
)
_MACHINE_PATHS: Final = re.compile(r"(?<![\w.}$)/~-])/(work|root|home/\w+|Users/\w+|opt/wheels|tmp/\w+)(/|\b)")


def _dotted(node: ast.AST) -> str:
    """`a.b.c` of names and attributes; an unknown start is left out."""
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}".lstrip(".")
    return node.id if isinstance(node, ast.Name) else ""


def _imported(source: Source) -> Iterator[tuple[int, str]]:
    """Line and full name of each thing imported: `asyncio`, `habeas.chassis.clock.Clock`."""
    for node in source.nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module or ''}.{alias.name}") for alias in node.names)


def service_files_have_known_names(source: Source) -> Iterator[str]:
    """A newcomer can predict where anything is: services consist of files of known names only."""
    if source.service is None:
        if source.under("services"):
            yield source.at(1, "services/ holds folders of services only")
        return
    if source.service not in SERVICES:
        yield source.at(1, f"{source.service} is not a service of the architecture")
        return
    inside = source.inside
    if not inside:
        if source.path.parts[2:] not in {("README.md",), ("pyproject.toml",)}:
            yield source.at(1, "beside the package, a service has README.md and pyproject.toml only")
        return
    stem = inside[0].removesuffix(".py")
    if inside in {("__init__.py",), ("py.typed",)} or (inside[0] in _DATA and not source.python):
        return
    if inside[0] == "migrations":
        if inside != ("migrations", "__init__.py") and not (len(inside) == 2 and _MIGRATION.fullmatch(inside[1])):
            yield source.at(1, "a migration is named migrations/NNNN_<what>.sql")
    elif stem not in _FILES or not source.python or len(inside) > 2:
        yield source.at(
            1, f"services have no file {'/'.join(inside)}: known are {', '.join(sorted(_FILES))}, or a package so named"
        )


def modules_say_what_they_hold(source: Source) -> Iterator[str]:
    """No drawer for odds and ends."""
    for part in source.path.parts:
        if part.removesuffix(".py") in _VAGUE:
            yield source.at(1, f"{part} says nothing about what is in it")


def functions_fit_a_screen(source: Source) -> Iterator[str]:
    """Functions have at most 70 lines, decorators not counted."""
    for node in source.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES_MAX:
                yield source.at(node.lineno, f"{node.name} has {length} lines; at most {FUNCTION_LINES_MAX}")


def files_can_be_read_at_once(source: Source) -> Iterator[str]:
    """Files have at most 500 lines; past about 400 they become a package of the same name."""
    if len(source.lines) > FILE_LINES_MAX:
        yield source.at(FILE_LINES_MAX, f"{len(source.lines)} lines; at most {FILE_LINES_MAX}")


def entries_only_enter(source: Source) -> Iterator[str]:
    """A process entry builds and runs; it has fewer than 20 lines."""
    if source.path.name == "__main__.py" and len(source.lines) > MAIN_LINES_MAX:
        yield source.at(1, f"{len(source.lines)} lines; a __main__.py has fewer than {MAIN_LINES_MAX + 1}")


def statements_stand_in_the_store(source: Source) -> Iterator[str]:
    """Every SQL statement of a service is a constant in store.py; none is built from values."""
    if not source.inside:
        return
    in_store = source.inside[0] in {"store.py", "store"}
    for node in source.nodes:
        if isinstance(node, ast.JoinedStr) and node.values and _is_sql(node.values[0]):
            yield source.at(node.lineno, "a statement is a constant: no f-string")
        elif isinstance(node, ast.Constant) and _is_sql(node) and not in_store:
            yield source.at(node.lineno, "SQL stands in store.py only")


def _is_sql(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and _SQL.match(node.value) is not None


def only_the_chassis_commits(source: Source) -> Iterator[str]:
    """One message, one transaction: services open named transactions of the chassis, never a connection's own."""
    if not source.inside:
        return
    for node in source.nodes:
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        called = node.func.attr
        if called in {"commit", "rollback", "begin"}:
            yield source.at(node.lineno, f"{called}() belongs to the chassis")
        elif called == "transaction" and not _is_named(node):
            yield source.at(node.lineno, 'a transaction has a name: db.transaction("erase plan")')


def _is_named(call: ast.Call) -> bool:
    first = call.args[0] if call.args else None
    return isinstance(first, ast.Constant) and isinstance(first.value, str) and len(first.value) > 2


def decisions_are_pure(source: Source) -> Iterator[str]:
    """lifecycle.py knows no I/O, no clock and no randomness: what it needs is an argument."""
    if not source.inside or source.inside[0] not in {"lifecycle.py", "lifecycle"}:
        return
    package = source.path.parts[2]
    for line, name in _imported(source):
        parts = name.split(".")
        if parts[0] in _OUTSIDE or (parts[0] == package and parts[1] in _IMPURE_NEIGHBOURS):
            yield source.at(line, f"a decision does not import {name}")
    for node in source.nodes:
        if isinstance(node, ast.AsyncFunctionDef | ast.Await):
            yield source.at(node.lineno, "a decision waits for nothing")
        elif isinstance(node, ast.Call) and any(
            f".{_dotted(node.func)}".endswith(f".{name}") for name in _IMPURE_CALLS
        ):
            yield source.at(node.lineno, f"a decision does not call {_dotted(node.func)}")


def exceptions_to_checks_have_reasons(source: Source) -> Iterator[str]:
    """Whoever silences a checker names the rule and says why, in the same comment."""
    for line, comment in source.comments():
        silenced = list(_IGNORES.finditer(comment))
        if not silenced:
            continue
        if any(match.group(0).rstrip().endswith(("ignore", "noqa")) for match in silenced):
            yield source.at(line, "name the rule that is silenced")
        if not _WORD.search(_IGNORES.sub("", comment)):
            yield source.at(line, "say why, in the same comment")


def tests_say_what_they_test(source: Source) -> Iterator[str]:
    """Every test has a docstring that names the behaviour."""
    if not source.under("tests"):
        return
    for node in source.nodes:
        if not (isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")):
            continue
        if len((ast.get_docstring(node) or "").split()) < 3:
            yield source.at(node.lineno, f"{node.name} has no docstring that names the behaviour")


def tests_wait_on_conditions(source: Source) -> Iterator[str]:
    """No test sleeps for a fixed time: tests/support waits on conditions with a limit."""
    if not source.under("tests") or source.under("tests/support", "tests/bench"):
        return
    for node in source.nodes:
        if not (isinstance(node, ast.Call) and _dotted(node.func) in {"asyncio.sleep", "time.sleep", "sleep"}):
            continue
        if not (node.args and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0):
            yield source.at(node.lineno, "wait on a condition with a limit")


def only_the_clock_tells_time(source: Source) -> Iterator[str]:
    """Ruff bans other clocks everywhere but in the chassis; there, clock.py alone may ask the machine."""
    if not source.under("libs/habeas/habeas/chassis") or source.path.name == "clock.py":
        return
    for node in source.nodes:
        if isinstance(node, ast.Call):
            called = _dotted(node.func)
            if called.endswith(("datetime.now", "datetime.utcnow", "date.today")) or called in {
                "time.time",
                "time.time_ns",
            }:
                yield source.at(node.lineno, f"ask the Clock, not {called}")


def services_bear_their_names(source: Source) -> Iterator[str]:
    """One name everywhere: folder, distribution, `Service("…")`; handlers are called on_<event>."""
    if source.service is None:
        return
    if source.path.name == "pyproject.toml" and f'\nname = "{source.service}"\n' not in source.text:
        yield source.at(1, f"the distribution is called {source.service}")
    if source.inside == ("app.py",):
        names = [
            node.args[0].value
            for node in source.nodes
            if isinstance(node, ast.Call)
            and _dotted(node.func) == "Service"
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ]
        if names != [source.service]:
            yield source.at(1, f'app.py builds one Service("{source.service}")')
    if source.inside and source.inside[0] in {"handlers.py", "handlers"}:
        for node in source.tree.body:
            if isinstance(node, ast.AsyncFunctionDef) and not node.name.startswith(("on_", "_")):
                yield source.at(node.lineno, f"{node.name}: the message edge consists of on_<event>")


def nothing_names_a_machine(source: Source) -> Iterator[str]:
    """No registry's host and no path of somebody's machine is in the repository."""
    for number, line in enumerate(source.lines, 1):
        if _HOSTS.search(line):
            yield source.at(number, "names the host of a package registry")
        if source.path.suffix != ".lock" and _MACHINE_PATHS.search(line):
            yield source.at(number, "names a path of one machine")


OF_PYTHON: Final[tuple[Lint, ...]] = (
    functions_fit_a_screen,
    files_can_be_read_at_once,
    entries_only_enter,
    statements_stand_in_the_store,
    only_the_chassis_commits,
    decisions_are_pure,
    exceptions_to_checks_have_reasons,
    tests_say_what_they_test,
    tests_wait_on_conditions,
    only_the_clock_tells_time,
)
OF_ANY_FILE: Final[tuple[Lint, ...]] = (
    service_files_have_known_names,
    modules_say_what_they_hold,
    services_bear_their_names,
    nothing_names_a_machine,
)
