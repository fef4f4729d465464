"""Where the code can die: every crash point, every named transaction, and every step that outlives the process, read from the code.

How the list of points is decided to be complete. A death matters by what it leaves behind, and only a few calls leave anything behind: a
commit, a record on its way to Kafka, a committed offset, a moved start of a partition, a file, the bytes of a mail. Two deaths between
which none of these happens leave the same. So: every call that could be one of them (``OUTWARD``, by name, in every module that runs in a
service) is either a step in ``STEPS`` or stands in ``HARMLESS`` with the reason; and each step is followed by a crash point before the next
step and before its function ends. Transactions of the chassis have their three points built in, so every one of them has to go through
``Database.transaction`` under a name of its own. What may end early between a step and its point (a refusal, an error) has its own tests.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

from tests.architecture.repository import ROOT

LIBRARY: Final = "libs/habeas/habeas"
BY_TRANSACTION: Final = frozenset({"TRANSACTION_DONE", "OUTBOX_WRITTEN", "COMMITTED"})

OUTWARD: Final = frozenset(
    {
        *("send", "send_and_wait", "flush", "commit", "delete_records", "create_topics"),  # Kafka
        *("unlink", "rename", "replace", "write_text", "write_bytes", "hardlink_to", "symlink_to", "rmtree"),  # files
        *("encrypting_writer", "write_tiles", "write_checkpoint", "drop_partial_tiles"),
        *("execute_command", "mail", "rcpt", "sendmail", "send_message", "write"),  # SMTP, and any other stream
        *(
            "change",
            "transaction",
            "execute",
            "executemany",
            "fetch",
            "fetchrow",
            "fetchval",
        ),  # SQL outside of our transactions
        *("copy_records_to_table", "copy_to_table", "copy_from_query"),
    }
)

STEPS: Final = frozenset(
    {
        ("chassis/consumer.py", "_commit", "consumer.commit"),
        ("chassis/follow.py", "run", "self.take"),
        ("chassis/lanes.py", "_balance", "tx.execute(store.INHERIT_LANES)"),
        ("chassis/lanes.py", "_balance", "tx.fetch(store.RENEW_LANES)"),
        ("chassis/lanes.py", "_balance", "tx.execute(store.RELEASE_LANES)"),
        ("chassis/lanes.py", "_balance", "tx.fetch(store.TAKE_LANES)"),
        ("chassis/producer.py", "_send", "producer.send_batch"),
        ("chassis/relay.py", "_publish_events", "self._producer.publish"),
        ("chassis/relay.py", "_publish_events", "self._database.change"),
        ("chassis/relay.py", "_publish_facts", "self._facts_producer.publish"),
        ("chassis/relay.py", "_publish_facts", "self._database.change"),
        ("chassis/trim.py", "_mark", "self.producer.publish"),
        ("chassis/trim.py", "step", "kafka.trim"),
        ("chassis/worker.py", "_handle", "self._claim"),
        ("datamap/postgres/purge.py", "_drop_partitions", "conn.transaction"),
        ("datamap/postgres/purge.py", "_delete", "conn.transaction"),
        ("datamap/postgres/store.py", "_erase", "conn.transaction"),
        ("audit_ledger/gateways.py", "_write", "write_tiles"),
        ("audit_ledger/gateways.py", "finish", "write_checkpoint"),
        ("audit_ledger/gateways.py", "finish", "drop_partial_tiles"),
        ("erasure_executor/sweeps.py", "_finish", "keys.destroy"),
        ("export_builder/gateways/builder.py", "_finish", "archive.close"),
        ("export_builder/sweeps.py", "delete_withdrawn", "vault.delete"),
        ("notification_mailer/gateways/post.py", "send", "session.write"),
        ("notification_mailer/gateways/post.py", "send", "before_dot"),
        ("notification_mailer/gateways/post.py", "send", "session.reply"),
    }
)
"""Module, function and call of every step outside of a transaction's commit, and of those inside one that have a point of their own."""

_BY_CALLER = "its callers name it among the steps"
_READS = "it reads"
_START = "it runs before the service takes anything up, and finds at the next start what it did"
_IN_TRANSACTION = "it is undone with the transaction around it"
_IN_STORE = (
    "part of the store's transaction, which is one step: STORE_ERASED before its commit, STORE_COMMITTED behind it"
)
_DRAFT = "a draft that nobody reads until it is put in place, and that the next attempt overwrites"
_OWN_WORDS = "it says something to a person or a collector, and nothing reads it back"

HARMLESS: Final[Mapping[tuple[str, str], str]] = {
    (
        "chassis/database.py",
        "connection.transaction",
    ): "the transaction of the chassis: its points stand around its commit",
    (
        "chassis/consumer.py",
        "self._database.change",
    ): "it notes how far was read of what is for others; it is read again",
    ("chassis/connection.py", "session.fetchrow"): _READS,
    ("chassis/connection.py", "session.fetchval"): _READS,
    ("chassis/connection.py", "other.fetchval"): _READS,
    (
        "chassis/connection.py",
        "other.transaction",
    ): "it holds a backend while another session is asked, and changes nothing",
    ("chassis/positions.py", "consumer.commit"): "it says where reading begins, which the database says too",
    ("chassis/refusals.py", "connection.send"): "it asks a broker for what it has",
    (
        "erasure_executor/sweeps.py",
        "self._db.change",
    ): "it keeps a count within an attempt; an attempt that dies without it counts again before anything is erased",
    ("chassis/database.py", "self.transaction"): "the same, under the name that it is given",
    ("chassis/database.py", "connection.fetch"): "it reads, or its callers name it among the steps",
    ("chassis/database.py", "connection.fetchrow"): _READS,
    ("chassis/database.py", "connection.fetchval"): _READS,
    ("chassis/database.py", "self.execute"): _IN_TRANSACTION,
    ("chassis/database.py", "outbox.write"): _IN_TRANSACTION,
    ("chassis/database.py", "self._connection.copy_records_to_table"): _IN_TRANSACTION,
    ("chassis/database.py", "self._connection.execute"): _IN_TRANSACTION,
    ("chassis/database.py", "self._connection.fetch"): _IN_TRANSACTION,
    ("chassis/database.py", "self._connection.fetchrow"): _IN_TRANSACTION,
    ("chassis/database.py", "self._connection.fetchval"): _IN_TRANSACTION,
    ("chassis/history.py", "connection.execute"): "it notes how far was read; what is not noted is read again",
    ("chassis/history.py", "connection.fetch"): _READS,
    ("chassis/history.py", "connection.fetchrow"): _READS,
    ("chassis/history.py", "connection.fetchval"): _READS,
    ("chassis/kafka.py", "admin.create_topics"): "the embedded servers' own; no service makes topics",
    ("chassis/kafka.py", "admin.delete_records"): _BY_CALLER,
    ("chassis/lanes.py", "self._database.change"): "a sign of life; whoever gives none more is followed by another",
    ("chassis/log.py", "_log.write"): _OWN_WORDS,
    ("chassis/log.py", "output.flush"): _OWN_WORDS,
    ("chassis/log.py", "output.write"): _OWN_WORDS,
    ("chassis/log.py", "sys.stderr.write"): _OWN_WORDS,
    ("chassis/process.py", "sys.stderr.write"): _OWN_WORDS,
    ("chassis/span_file.py", "os.write"): _OWN_WORDS,
    ("chassis/span_file.py", "self._path.replace"): _OWN_WORDS,
    ("chassis/troubles.py", "database.change"): "a note for operators, which the next try makes again",
    ("chassis/troubles.py", "self._database.change"): "a note for operators, which the next try makes again",
    ("chassis/wakeups.py", "connection.execute"): "a wake-up, without which others look a little later",
    ("datamap/postgres/collecting.py", "conn.fetch"): "it reads and locks rows, within the transaction of an erasure",
    ("datamap/postgres/connection.py", "conn.fetchrow"): _READS,
    ("datamap/postgres/erasing.py", "self._conn.execute"): _IN_STORE,
    ("datamap/postgres/erasing.py", "self._conn.fetch"): _IN_STORE,
    ("datamap/postgres/erasing.py", "self._conn.fetchval"): _READS,
    ("datamap/postgres/connection.py", "conn.fetchval"): _READS,
    ("datamap/postgres/export.py", "cursor.fetch"): _READS,
    ("datamap/postgres/purge.py", "conn.execute"): _IN_TRANSACTION,
    ("datamap/postgres/purge.py", "conn.fetch"): _READS,
    ("datamap/postgres/purge.py", "conn.fetchval"): "it reads, or is undone with the transaction around it",
    ("datamap/postgres/refresh.py", "conn.execute"): _IN_STORE,
    ("datamap/postgres/refresh.py", "conn.fetchval"): _READS,
    ("datamap/postgres/rehearsal.py", "conn.fetch"): _READS,
    ("datamap/postgres/rehearsal.py", "conn.fetchval"): _READS,
    (
        "datamap/postgres/rehearsal.py",
        "conn.transaction",
    ): "no service rehearses, and what is done in it is always taken back",
    ("datamap/postgres/store.py", "conn.fetch"): "it reads, or locks rows within the transaction of an erasure",
    ("datamap/postgres/tally.py", "conn.execute"): _IN_TRANSACTION,
    ("datamap/postgres/tally.py", "conn.fetch"): _READS,
    ("datamap/postgres/trial.py", "conn.fetch"): _READS,
    ("datamap/postgres/trial.py", "conn.fetchrow"): "it has an UPDATE planned, which the server does not run, or reads",
    (
        "datamap/postgres/trial.py",
        "conn.transaction",
    ): "only what it plans and reads is in it: a refusal ends it, nothing is changed",
    ("audit_ledger/gateways.py", "connection.fetchval"): "a lock of the session, which ends with the process",
    ("audit_ledger/gateways.py", "self._connection.fetchval"): _READS,
    ("audit_ledger/gateways.py", "draft.write_text"): _START,
    ("audit_ledger/gateways.py", "draft.replace"): _START,
    ("audit_ledger/gateways.py", "draft.unlink"): _START,
    ("audit_ledger/gateways.py", "file.write"): _START,
    ("audit_ledger/gateways.py", "file.flush"): _START,
    ("audit_ledger/gateways.py", "path.hardlink_to"): _START,
    ("audit_ledger/sweeps.py", "directory.write"): "each file has its point where it is written",
    ("export_builder/gateways/archive.py", "ArtefactCipher.encrypting_writer"): _DRAFT,
    ("export_builder/gateways/archive.py", "self._writer.write"): _DRAFT,
    ("export_builder/gateways/archive.py", "self.writer.write"): _DRAFT,
    ("export_builder/gateways/archive.py", "sink.write"): _DRAFT,
    ("export_builder/gateways/archive.py", "target.write"): _DRAFT,
    ("export_builder/gateways/builder.py", "path.unlink"): _BY_CALLER,
    ("notification_mailer/gateways/post.py", "connection.send"): "its own steps have their points",
    ("notification_mailer/gateways/post.py", "session.write"): "an envelope without a text is no mail",
    ("notification_mailer/gateways/post.py", "self._session.write"): "an envelope without a text is no mail",
    ("notification_mailer/gateways/session.py", "self._transport.write"): _BY_CALLER,
}
"""Module and call of what only looks like a step, with the reason."""

SKIPPED: Final = frozenset({"chassis/migrations.py"})
"""Modules that no running service enters."""


@dataclass(frozen=True)
class Site:
    """A place in the code; ``owner`` is the service or the package of the library to which it belongs."""

    module: str
    function: str
    line: int
    owner: str


@dataclass
class Reading:
    """What was found in the code."""

    points: dict[str, list[Site]] = field(default_factory=dict)
    transactions: dict[str, list[Site]] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    steps: set[tuple[str, str, str]] = field(default_factory=set)
    harmless: set[tuple[str, str]] = field(default_factory=set)

    def add(self, other: "Reading") -> None:
        """Take in what was found in one module."""
        for mine, its in ((self.points, other.points), (self.transactions, other.transactions)):
            for name, sites in its.items():
                mine.setdefault(name, []).extend(sites)
        self.complaints += other.complaints
        self.steps |= other.steps
        self.harmless |= other.harmless

    def finish(self, points: frozenset[str]) -> "Reading":
        """Complain about what is missing as a whole."""
        for name in sorted(points | self.points.keys()):
            uses = self.points.get(name, [])
            if len(uses) != 1:
                self.complaints.append(f"crash point {name} stands at {len(uses)} places in the code, and must at one")
        for name, uses in sorted(self.transactions.items()):
            if len(uses) != 1:
                self.complaints.append(f"transaction {name} is opened at {len(uses)} places: give each its own name")
        self.complaints += [f"{' '.join(step)} is a step that is no more" for step in sorted(STEPS - self.steps)]
        gone = sorted(HARMLESS.keys() - self.harmless)
        self.complaints += [f"{' '.join(call)} is called harmless and is no more" for call in gone]
        return self


def sources(root: Path = ROOT) -> dict[str, tuple[str, str]]:
    """Give the text and the owner of every module that runs in a service and reaches outside, by its short name."""
    found: dict[str, tuple[str, str]] = {}
    for package in ("chassis", "datamap/postgres"):
        for path in sorted((root / LIBRARY / package).rglob("*.py")):
            found[path.relative_to(root / LIBRARY).as_posix()] = (path.read_text(encoding="utf-8"), package)
    for path in sorted((root / "services").glob("*/*/**/*.py")):
        short = path.relative_to(root / "services")
        found[Path(*short.parts[1:]).as_posix()] = (path.read_text(encoding="utf-8"), short.parts[0])
    return {name: each for name, each in found.items() if name not in SKIPPED}


def read(code: Mapping[str, tuple[str, str]], points: frozenset[str]) -> Reading:
    """Find points, transactions and steps in the code, and all that is wrong with them."""
    reading = Reading()
    for module, (text, owner) in code.items():
        reading.add(_read_module(module, text, owner))
    return reading.finish(points)


@cache
def _read_module(module: str, text: str, owner: str) -> Reading:
    reading = Reading()
    for function in _functions(ast.parse(text)):
        _read_function(reading, module, owner, function)
    return reading


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@dataclass(frozen=True)
class _Token:
    """A point or a step, where it takes effect; ``loop`` is the last line of the innermost loop around it."""

    at: tuple[int, int]
    text: str
    loop: int | None
    is_step: bool = False


def _read_function(reading: Reading, module: str, owner: str, function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    tokens: list[_Token] = []
    for node, loop, end in _own_nodes(function, None, None):
        site = Site(module, function.name, getattr(node, "lineno", 0), owner)
        at = end or (getattr(node, "end_lineno", 0) or 0, getattr(node, "end_col_offset", 0) or 0)
        point = _point(node)
        if point is not None:
            reading.points.setdefault(point, []).append(site)
            tokens.append(_Token(at, text=point, loop=loop))
            continue
        name = _transaction(node)
        if name is not None:
            reading.transactions.setdefault(name, []).append(site)
            tokens.append(_Token(at, text=name, loop=loop))
            continue
        text = _outward(reading, module, function.name, node, site)
        if text is not None:
            tokens.append(_Token(at, text=text, loop=loop, is_step=True))
    tokens.sort(key=lambda token: token.at)
    for index, token in enumerate(tokens):
        if token.is_step:
            after = tokens[index + 1] if index + 1 < len(tokens) else None
            if after is None or after.is_step or (token.loop is not None and after.at[0] > token.loop):
                reading.complaints.append(
                    f"{module}:{token.at[0]}: no crash point follows the step {token.text} in {function.name}"
                )


def _own_nodes(
    node: ast.AST, loop: int | None, end: tuple[int, int] | None
) -> Iterator[tuple[ast.AST, int | None, tuple[int, int] | None]]:
    """Give the nodes of a function without those of functions inside it, each with its loop; a context takes effect at its end."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        inner = child.end_lineno if isinstance(child, ast.For | ast.AsyncFor | ast.While) else loop
        if isinstance(child, ast.With | ast.AsyncWith):
            closed = (child.end_lineno or 0, child.end_col_offset or 0)
            for item in child.items:
                yield from _own_nodes(item, inner, closed)
            for statement in child.body:
                yield statement, inner, None
                yield from _own_nodes(statement, inner, None)
            continue
        yield child, inner, end
        yield from _own_nodes(child, inner, end)


def _point(node: ast.AST) -> str | None:
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "crash.at" and node.args:
        return ast.unparse(node.args[0]).removeprefix("Point.")
    return None


def _transaction(node: ast.AST) -> str | None:
    """Give the name under which a transaction is opened: the first argument of ``transaction`` or of the database's ``run``."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in {"transaction", "run"}:
        first = node.args[0] if node.args else None
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            return first.value
    return None


def _outward(reading: Reading, module: str, function: str, node: ast.AST, site: Site) -> str | None:
    """Give the text of a step; complain about what is neither a step nor known to be harmless.

    A step is called, or handed to a thread to be called there.
    """
    if not isinstance(node, ast.Call) or any(keyword.arg == "readonly" for keyword in node.keywords):
        return None
    reached = node.args[0] if node.args and ast.unparse(node.func) == "asyncio.to_thread" else node.func
    text = ast.unparse(reached)
    for each in (text, *(f"{text}({ast.unparse(argument)})" for argument in node.args[:1])):
        if (module, function, each) in STEPS:
            reading.steps.add((module, function, each))
            return each
    if not isinstance(reached, ast.Attribute) or reached.attr not in OUTWARD or text.startswith("tx."):
        return None
    if reached.attr == "replace" and (len(node.args) != 1 or node.keywords):
        return None  # of a text or a date, not of a file
    if (module, text) in HARMLESS:
        reading.harmless.add((module, text))
    else:
        reading.complaints.append(
            f"{module}:{site.line}: {text} in {function} is neither a step nor known to be harmless"
        )
    return None
