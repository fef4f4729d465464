"""Rules and dashboard ask for what services show: every metric and label exists, every alert has a runbook, every runbook helps."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from habeas.chassis import metrics
from tests.architecture.repository import ROOT, SERVICES, sources
from tests.architecture.test_containers import compose
from tests.architecture.test_documents import shown_commands
from tests.support import promql
from tests.support.waiting import HANGS_S

RULES: Final = ROOT / "deploy" / "prometheus" / "alerts.yaml"
SCRAPES: Final = ROOT / "deploy" / "prometheus" / "prometheus.yaml"
DASHBOARD: Final = ROOT / "deploy" / "grafana" / "habeas.json"
RUNBOOKS: Final = ROOT / "docs" / "runbooks"
TARGET: Final = {"job", "instance", "service"}  # what Prometheus adds to all that it asks for
SUFFIXES: Final = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
CONSTANTS: Final = {name: made for name, made in vars(metrics).items() if name.isupper() and hasattr(made, "name")}


def shown(rendered: bytes | None = None) -> dict[str, set[str]]:
    """What a service shows at /metrics, each name as Prometheus stores it, with its labels: rendered, not looked up."""
    labels = {"habeas_" + each.name.replace(".", "_"): set(each._labels) for each in CONSTANTS.values()}
    found = {"up": set(TARGET)}
    for family in text_string_to_metric_families((rendered or metrics.render()).decode()):
        for suffix in SUFFIXES[family.type]:
            extra = {"le"} if suffix == "_bucket" else set()
            found[family.name + suffix] = labels.get(family.name, set()) | extra | TARGET
    return found


def wrong(query: str) -> list[str]:
    """What a query asks for that nobody shows."""
    named, known = promql.read(query), shown()
    complaints = [f"no metric {name}" for name in named.metrics if name not in known]
    for name, asked in named.metrics.items():
        complaints += [f"{name} has no label {label}" for label in sorted(asked - known.get(name, asked))]
    carried = [known[name] for name in named.metrics if name in known]
    complaints += [
        f"nothing has a label {each}" for each in sorted(named.grouped) if not any(each in c for c in carried)
    ]
    return complaints


def alerts() -> list[dict[str, Any]]:
    """Every alerting rule."""
    parsed = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    return [rule for group in parsed["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """Every panel that shows something."""
    parsed = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return [panel for panel in parsed["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    """Every query, with where it stands."""
    yield from ((rule["alert"], rule["expr"]) for rule in alerts())
    yield from ((panel["title"], target["expr"]) for panel in panels() for target in panel["targets"])


@pytest.mark.parametrize(("where", "query"), list(queries()))
def test_queries_name_what_is_shown(where: str, query: str) -> None:
    """Every metric that a rule or a panel asks for is one that services show, with the labels that it is asked for."""
    assert wrong(query) == [], where


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_every_alert_has_a_runbook_and_words_that_it_can_fill(rule: dict[str, Any]) -> None:
    """An alert names a severity, a runbook that exists and that names the alert, and only labels that its query leaves over."""
    assert rule["labels"]["severity"] in {"urgent", "soon"}
    runbook = ROOT / rule["annotations"]["runbook"]
    assert f"`{rule['alert']}`" in runbook.read_text(encoding="utf-8")
    named = promql.read(rule["expr"])
    left = named.grouped or set().union(*(shown()[name] for name in named.metrics))
    used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert used <= left


def test_alerts_are_called_differently() -> None:
    """No two alerts have one name, and none is left out of the runbooks' table."""
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names)) > 20
    table = (RUNBOOKS / "README.md").read_text(encoding="utf-8")
    assert [name for name in names if f"`{name}`" not in table] == []


@pytest.mark.parametrize("path", sorted(RUNBOOKS.glob("*.md")), ids=lambda path: path.stem)
def test_every_runbook_names_a_command(path: Path) -> None:
    """Who reads a runbook at night is told what to type; that the commands exist is checked for all documents."""
    assert [line for line in shown_commands(path.read_text(encoding="utf-8")) if re.match(r"habeas [a-z]", line)]


def test_every_metric_is_recorded() -> None:
    """A metric of the catalogue that no code records would be a promise without anybody behind it."""
    code = [
        each.text
        for each in sources()
        if each.path.suffix == ".py" and each.path.parts[0] in {"libs", "services"} and each.path.name != "metrics.py"
    ]
    assert [name for name in CONSTANTS if not any(re.search(rf"\b{name}\b", text) for text in code)] == []


def test_prometheus_asks_every_service() -> None:
    """Each service is asked on the port of its container, under its own name, and the files are where they are looked for."""
    (job,) = yaml.safe_load(SCRAPES.read_text(encoding="utf-8"))["scrape_configs"]
    asked = {each["labels"]["service"]: each["targets"] for each in job["static_configs"]}
    assert asked == {service: [f"{service}:8080"] for service in SERVICES}
    assert job["job_name"] == "habeas"
    mounted = [volume.split(":")[0] for volume in compose()["services"]["prometheus"]["volumes"]]
    assert {f"./{RULES.relative_to(ROOT)}", f"./{SCRAPES.relative_to(ROOT)}"} <= set(mounted)
    assert f"./{DASHBOARD.relative_to(ROOT)}" in "".join(compose()["services"]["grafana"]["volumes"])


def test_panels_are_in_their_places() -> None:
    """Panels have ids of their own and do not lie upon one another."""
    everything = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    taken: set[tuple[int, int]] = set()
    for panel in everything:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_promtool_agrees() -> None:
    """Prometheus' own checker takes the rules, where it is installed."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run(
        [promtool, "check", "rules", RULES], capture_output=True, text=True, timeout=HANGS_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_wrong_queries_are_found() -> None:
    """A metric that does not exist, a wrong suffix, a label that a metric lacks, an unknown function: each is told."""
    assert wrong("max by (service) (habeas_inbox_parked_rows) > 0") == []
    assert wrong("histogram_quantile(0.99, sum by (service, le) (rate(habeas_loop_delay_s_bucket[5m]))) > 0.5e0") == []
    assert wrong("habeas_inbox_parked_rowz") == ["no metric habeas_inbox_parked_rowz"]
    assert wrong("rate(habeas_relay_failures[5m])") == ["no metric habeas_relay_failures"]
    assert wrong("habeas_loop_delay_s") == ["no metric habeas_loop_delay_s"]
    assert wrong('habeas_work_stuck_rows{wort="x"}') == ["habeas_work_stuck_rows has no label wort"]
    assert wrong("sum by (topic) (habeas_inbox_parked_rows)") == ["nothing has a label topic"]
    assert wrong("habeas_inbox_parked_rows > 0 unless on (service) habeas_nothing") == ["no metric habeas_nothing"]
    for query in ("abs(habeas_inbox_parked_rows)", "habeas_inbox_parked_rows{", "sum by service (up)", "up ? 1"):
        with pytest.raises(promql.NotUnderstood):
            promql.read(query)
