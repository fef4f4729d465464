from pathlib import Path

import pytest
from rich.console import Console

from habeas_embedded.fleet import Fleet, FleetPlan
from habeas_embedded.provision import open_access
from habeas_embedded.servers import Servers
from habeas_embedded.view import Observer, render

GIVEN = {
    "HABEAS_KAFKA_BOOTSTRAP": "127.0.0.1:1",
    "HABEAS_ADMIN_DATABASE_DSN": "postgresql://admin:secret@127.0.0.1:9/postgres",
    "NOTIFICATION_MAILER_SMTP_HOST": "127.0.0.1",
}


async def test_what_cannot_be_seen_is_not_shown_as_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a database and with every service down the view says so: no count is made up."""
    monkeypatch.setenv("HABEAS_HOME", str(tmp_path))
    async with Servers("view", env=GIVEN) as servers:
        access = open_access(servers.postgres_admin_dsn, "habeas")
        fleet = Fleet(servers, access, FleetPlan(Path("policy.yaml"), Path("datamap"), replicas={"audit-ledger": 2}))
        look = await Observer(fleet, access.operator_dsn, None).look()
    assert look.requests is None
    assert set(look.states.values()) == {"down"}
    assert not any(look.counts.values())
    assert [name for name in look.states if name.startswith("audit-ledger")] == ["audit-ledger-0", "audit-ledger-1"]
    console = Console(width=120, file=(tmp_path / "screen").open("w+"), force_terminal=False)
    console.print(render(look))
    console.file.close()
    assert "not to be seen" in (tmp_path / "screen").read_text()
