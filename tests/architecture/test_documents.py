"""Documents tell the truth: links lead somewhere; verbs, commands, topics and settings that they name exist."""

import importlib
import re
import shlex
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import unquote

import click
import pytest
from pydantic import BaseModel

from habeas.chassis.settings import ChassisSettings
from habeas.contracts.topics import CATALOGUE, DAY_MS
from tests.architecture.repository import ROOT, SERVICES, Source, sources

FENCE: Final = re.compile(r"^(```+|~~~+).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
SPAN: Final = re.compile(r"(`+)(.+?)\1", re.DOTALL)
LINK: Final = re.compile(
    r"\[(?:[^\[\]]|\[[^\[\]]*\])*\]\(\s*<?([^\s()<>]+(?:\([^\s()]*\)[^\s()<>]*)*)>?(?:\s+\"[^\"]*\")?\s*\)"
)
HEADING: Final = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t]*#*[ \t]*$", re.MULTILINE)
ANCHOR: Final = re.compile(r"<a\s+(?:id|name)=\"([^\"]+)\"")
SCHEME: Final = re.compile(r"[a-z][a-z0-9+.\-]*:", re.IGNORECASE)
MAKE: Final = re.compile(r"^(?:\$ )?make((?: +(?:[a-z][a-z\-]*|[A-Z]+=(?:\"[^\"]*\"|\S*)|--\S+))*)(?=\s|$)")
HABEAS: Final = re.compile(r"^(?:\$ )?(?:\.venv/bin/)?habeas((?: +[a-z][a-z\-]*)+)")
NEXT: Final = re.compile(r" (?:\||&&|;|>) ")  # where another command begins, or a file
QUOTED: Final = re.compile(r"`(habeas [^`\n]*)`")
NOT_BUILT: Final = re.compile(r"\bnot (yet )?built\b|\bnot yet\b|\bis planned\b", re.IGNORECASE)


def documents() -> list[Source]:
    """Every Markdown file of the repository."""
    return [source for source in sources() if source.path.suffix == ".md"]


def prose(text: str) -> str:
    """A document without its code."""
    return SPAN.sub("", FENCE.sub("", text))


def anchors(text: str) -> set[str]:
    """Names that a link into the document may end in: its headings as forges spell them, and its own anchors."""
    plain = FENCE.sub("", text)
    names: set[str] = set(ANCHOR.findall(plain))
    seen: dict[str, int] = {}
    for heading in HEADING.findall(plain):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        name = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        times = seen.get(name, 0)
        seen[name] = times + 1
        names.add(f"{name}-{times}" if times else name)
    return names


def links(text: str) -> Iterator[str]:
    """Targets of the links that stay inside the repository."""
    for target in LINK.findall(prose(text)):
        if not SCHEME.match(target) and not target.startswith("//"):
            yield unquote(target)


def broken(document: Source) -> Iterator[str]:
    """What is wrong with the links of one document."""
    for target in links(document.text):
        path, _, anchor = target.partition("#")
        found = (ROOT / document.path.parent / path).resolve() if path else ROOT / document.path
        if not found.exists():
            yield f"{document.path}: {target} leads to no file"
        elif not found.is_relative_to(ROOT):
            yield f"{document.path}: {target} leads out of the repository"
        elif anchor and found.suffix == ".md" and anchor not in anchors(found.read_text(encoding="utf-8")):
            yield f"{document.path}: {target} leads to no heading"


def shown_commands(text: str) -> Iterator[str]:
    """Lines that a reader may type: those of code blocks, without comments, and code inside of sentences."""
    for block in FENCE.finditer(text):
        if not re.match(r"(```+|~~~+)(sh|shell|bash|console|text)?\s*\n", block[0]):
            continue
        yield from (line.split(" #")[0].strip() for line in block[0].splitlines()[1:-1])
    heading = ""
    for line in FENCE.sub("", text).splitlines():
        heading = line if HEADING.match(line) else heading
        if not NOT_BUILT.search(f"{heading} {line}"):  # what is said not to exist need not
            yield from (" ".join(span[1].split()) for span in SPAN.findall(line))


@cache
def verbs() -> frozenset[str]:
    """Verbs of the Makefile."""
    return frozenset(re.findall(r"^\.PHONY: (\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def unknown_verbs(text: str) -> list[str]:
    """Verbs that a document names and the Makefile lacks."""
    typed = [shlex.split(found[1]) for line in shown_commands(text) if (found := MAKE.match(line))]
    named = [word for words in typed for word in words if "=" not in word and not word.startswith("-")]
    return [word for word in named if word not in verbs()]


def unknown_commands(lines: Iterable[str], program: click.Group) -> list[str]:
    """Lines that name a command or an option which the program lacks; what follows a command are its arguments."""
    return [line for line in lines if (found := HABEAS.match(line)) and not exists(found[1].split(), line, program)]


def exists(words: list[str], line: str, program: click.Group) -> bool:
    """Whether the words lead to a command that takes all options of the line; more words are its arguments."""
    at: click.Command = program
    for word in words:
        if not isinstance(at, click.Group):
            break
        found = at.get_command(click.Context(at), word)
        if found is None:
            return False
        at = found
    given = {word.partition("=")[0] for word in NEXT.split(line)[0].split() if word.startswith("--")}
    return given <= {
        option for each in at.get_params(click.Context(at)) for option in (*each.opts, *each.secondary_opts)
    }


def the_program() -> click.Group:
    """The program `habeas`, as installed."""
    if find_spec("habeas.cli.main") is None:
        pytest.skip("there is no command line yet")
    module = importlib.import_module("habeas.cli.main")
    groups = [value for value in vars(module).values() if isinstance(value, click.Group)]
    return max(groups, key=lambda group: len(group.commands))


@pytest.mark.parametrize("document", documents(), ids=lambda document: str(document.path))
def test_links_lead_somewhere(document: Source) -> None:
    """Every relative link of a document leads to a file of the repository, and to a heading in it where it names one."""
    assert not list(broken(document))


@pytest.mark.parametrize("document", documents(), ids=lambda document: str(document.path))
def test_verbs_exist(document: Source) -> None:
    """Every `make` verb that a document names is one of the Makefile."""
    assert not unknown_verbs(document.text)


@pytest.mark.parametrize("document", documents(), ids=lambda document: str(document.path))
def test_commands_exist(document: Source) -> None:
    """Every `habeas` command that a document names exists with its options, unless its line or heading says that it is not built yet."""
    assert not unknown_commands(shown_commands(document.text), the_program())


def test_commands_that_programs_name_exist() -> None:
    """What messages, comments, alerts and dashboards tell people to type can be typed: no advice leads nowhere."""
    program = the_program()
    said = {
        str(source.path): QUOTED.findall(source.text)
        for source in sources()
        if source.path.parts[0] != "tests" and source.path.suffix != ".md"
    }
    assert sum(map(len, said.values())) > 20, "they are seen"
    assert {path: wrong for path, lines in said.items() if (wrong := unknown_commands(lines, program))} == {}


def test_documents_are_seen() -> None:
    """The tests look at the real documents: the front page, the decisions and the page of every service."""
    seen = {str(source.path) for source in documents()}
    assert {"README.md", "docs/architecture.md", "docs/promises.md", "docs/decisions/README.md"} <= seen
    assert len([path for path in seen if path.startswith("services/")]) > 2


def test_every_decision_is_listed() -> None:
    """The list of decisions links each record, in order, and no two records have one number."""
    folder = ROOT / "docs" / "decisions"
    records = sorted(path.name for path in folder.glob("[0-9]*.md"))
    listed = list(links((folder / "README.md").read_text(encoding="utf-8")))
    assert records == listed
    assert len({name[:4] for name in records}) == len(records)


def test_architecture_lists_the_topics() -> None:
    """The table of topics in the architecture page is the catalogue: names, partitions and retention."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([a-z.\-]+\.v\d+)` \| (\d+) \| (for ever|\d+ days) \|", text, re.MULTILINE)
    days = {topic.name: f"{topic.retention_ms // DAY_MS} days" for topic in CATALOGUE if topic.retention_ms > 0}
    assert listed == [(topic.name, str(topic.partitions), days.get(topic.name, "for ever")) for topic in CATALOGUE]


def variables_of(service: str) -> dict[str, str]:
    """What an operator may set for one service beside what every service has: its own variables, with the fleet-wide ones."""
    kind: type[BaseModel] = importlib.import_module(f"{service.replace('-', '_')}.settings").Settings
    prefix, waiting, found = f"{service.upper().replace('-', '_')}_", [kind], {}
    while waiting:
        for name, field in waiting.pop().model_fields.items():
            inner = field.annotation
            if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
                found[f"{prefix}{name.upper()}"] = f"HABEAS_{name.upper()}"
            elif inner is not ChassisSettings:
                waiting.append(inner)
    return found


@pytest.mark.parametrize("service", SERVICES)
def test_readme_lists_the_settings(service: str) -> None:
    """The README of a service names each of its settings, and no variable with its prefix that it does not read."""
    text = (ROOT / "services" / service / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", text))
    own = variables_of(service)
    assert not [variable for variable, shared in own.items() if not {variable, shared} & named]
    prefix = f"{service.upper().replace('-', '_')}_"
    everywhere = {f"{prefix}{name.upper()}" for name in ChassisSettings.model_fields}
    assert not {name for name in named if name.startswith(prefix)} - set(own) - everywhere


def test_wrong_references_are_found() -> None:
    """A link to nowhere, a verb and a command that do not exist are each told; right ones and code are not."""
    bad = "See [a](nowhere.md), [b](#no-such), [c](Makefile).\n\n# Such\n\n[d](#such) `[e](f.md)`\n"
    here = Source(PurePosixPath("SAMPLE.md"), bad)
    assert [line.split(": ")[1] for line in broken(Source(here.path, bad.replace("[b](#no-such), ", "")))][:1] == [
        "nowhere.md leads to no file"
    ]
    assert anchors(bad) == {"such"}
    assert unknown_verbs(
        'Type `make demo ARGS="--break it"` or `make tea`.\n\n```sh\nmake test # all\nmake coffee\n```\n'
    ) == [
        "coffee",
        "tea",
    ]
    verify = click.Command("verify", params=[click.Option(["--vkey"])])
    program = click.Group("habeas", {"audit": click.Group("audit", {"verify": verify})})
    text = (
        "`habeas audit verify DIR --vkey X | less --raw` and `habeas audit forge`; `habeas dance`, which is not built yet.\n\n"
        "`habeas sing` and `habeas audit verify --quietly`\n"
    )
    assert unknown_commands(shown_commands(text), program) == ["habeas sing", "habeas audit verify --quietly"]
    assert unknown_commands(shown_commands(text.replace("not built yet", "fun")), program) == [
        "habeas audit forge",
        "habeas dance",
        "habeas sing",
        "habeas audit verify --quietly",
    ]
