"""Production, as each service starts in it: a store of the data map that others could read is refused like every other hop."""

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from habeas.sealing.kek import KekSettings, open_kek
from habeas_demo.generator import PLATFORM_DIR
from habeas_embedded.provision import SERVICES

TLS = "sslmode=verify-full&ssl_min_protocol_version=TLSv1.3"
WITH_STORES = [service for service in SERVICES if service != "audit-ledger"]


def environment(directory: Path, service: str, platform_dsn: str) -> Mapping[str, str]:
    """All that a service needs in production, with one DSN of the platform or another."""
    keys = directory / "fleet.kek"
    open_kek(KekSettings(file=keys, create=True, production=False))
    return {
        "PATH": os.environ["PATH"],
        "HABEAS_ENVIRONMENT": "production",
        "HABEAS_KAFKA_BOOTSTRAP": "127.0.0.1:9",
        "HABEAS_KAFKA_TLS": "true",
        "HABEAS_DATABASE_DSN": f"postgresql://habeas:hunter2@db.example.org/habeas?{TLS}",
        "HABEAS_KEK_FILE": str(keys),
        "HABEAS_POLICY_FILE": str(PLATFORM_DIR / "policy.yaml"),
        "HABEAS_DATAMAP_DIR": str(PLATFORM_DIR / "datamap"),
        "EXPORT_BUILDER_ARTEFACTS_DIR": str(directory),
        "NOTIFICATION_MAILER_SMTP_HOST": "127.0.0.1",
        "PLATFORM_DSN": platform_dsn,
    }


@pytest.mark.parametrize("service", WITH_STORES)
async def test_readable_store_is_refused_at_the_start(service: str, tmp_path: Path) -> None:
    """The process ends with exit code 2 and one sentence that names the variable and what to write, and not its value."""
    dsn = "postgresql://shop:opensesame@127.0.0.1:9/shop?sslmode=disable"
    env = environment(tmp_path, service, dsn)
    env = {name: value for name, value in env.items() if not name.startswith(_others(service))}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", service.replace("-", "_")),
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    told = errors.decode()
    assert process.returncode == 2, told
    assert "production refuses the connection to store" in told
    assert f"write PLATFORM_DSN with {TLS.replace('&', ' and ')}" in told
    assert "opensesame" not in told
    assert "Traceback" not in told


def _others(service: str) -> tuple[str, ...]:
    """Prefixes of variables that belong to other services, which this one would not know."""
    return tuple(f"{each.upper().replace('-', '_')}_" for each in SERVICES if each != service)
