"""Services as their processes build them, with the demo's policy and data map and servers that do not exist."""

from importlib import import_module
from pathlib import Path

import pytest

from habeas.chassis.service import Service
from habeas.sealing.kek import KekSettings, open_kek
from tests.architecture.repository import ROOT

INSTANCE = 3


def build(name: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    """Return a service as its `__main__` builds it; what it would write goes below the directory."""
    package = name.replace("-", "_")
    open_kek(KekSettings(file=directory / "kek", create=True, production=False))
    monkeypatch.setenv("PLATFORM_DSN", "postgresql://nobody:x@127.0.0.1:1/platform")
    loaded = import_module(f"{package}.settings").Settings.load(
        {
            "HABEAS_ENVIRONMENT": "development",
            "HABEAS_KAFKA_BOOTSTRAP": "127.0.0.1:1",
            "HABEAS_DATABASE_DSN": "postgresql://nobody:x@127.0.0.1:1/habeas",
            "HABEAS_INSTANCE": str(INSTANCE),
            "HABEAS_KEK_FILE": str(directory / "kek"),
            "HABEAS_POLICY_FILE": str(ROOT / "deploy" / "demo" / "policy.yaml"),
            "HABEAS_DATAMAP_DIR": str(ROOT / "deploy" / "demo" / "datamap"),
            "EXPORT_BUILDER_ARTEFACTS_DIR": str(directory),
            "AUDIT_LEDGER_LOG_DIR": str(directory / "log"),
            "NOTIFICATION_MAILER_SMTP_HOST": "127.0.0.1",
        }
    )
    built: Service = import_module(f"{package}.app").build(loaded)
    assert built.name == name
    return built
