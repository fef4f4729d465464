from pathlib import Path

import pytest
from click.testing import CliRunner

from habeas_demo.generator import PLATFORM_DIR
from habeas_embedded.errors import EmbeddedError
from habeas_embedded.given_platform import find_platform
from habeas_embedded.ports import free_port
from habeas_embedded.up import up_command

POLICY = PLATFORM_DIR / "policy.yaml"
DATAMAP = PLATFORM_DIR / "datamap"
DSN = "postgresql://shop:opensesame@127.0.0.1:{port}/shop"


async def test_nothing_given_is_the_demonstration() -> None:
    """Without arguments and variables there is no platform of one's own."""
    assert await find_platform(None, None, {}) is None


@pytest.mark.parametrize(
    ("policy", "datamap", "env", "missing"),
    [
        (POLICY, None, {"PLATFORM_DSN": DSN}, "missing: --datamap"),
        (POLICY, DATAMAP, {}, "missing: the variable PLATFORM_DSN"),
        (None, None, {"PLATFORM_DSN": DSN}, "missing: --policy and --datamap"),
        (None, None, {"HABEAS_POLICY_FILE": str(POLICY)}, "missing: --datamap and the variable PLATFORM_DSN"),
    ],
)
async def test_part_of_a_platform_is_told_with_what_is_missing(
    policy: Path | None, datamap: Path | None, env: dict[str, str], missing: str
) -> None:
    """A policy without data map, and the like, is refused before anything starts, and names what else is needed."""
    with pytest.raises(EmbeddedError, match=missing):
        await find_platform(policy, datamap, env)


async def test_everything_wrong_in_the_files_is_told(tmp_path: Path) -> None:
    """A policy that does not load is told with file, line and what to write, before anything starts."""
    broken = tmp_path / "policy.yaml"
    broken.write_text(POLICY.read_text().replace("version:", "verison:", 1))
    with pytest.raises(EmbeddedError, match=r"policy\.yaml:\d+: .*; write "):
        await find_platform(broken, DATAMAP, {"PLATFORM_DSN": DSN.format(port=1)})


@pytest.mark.parametrize(
    ("dsn", "told"),
    [
        (
            DSN.format(port=0).replace(":0/", ":{closed}/"),
            r"PLATFORM_DSN: PostgreSQL at 127\.0\.0\.1:\d+ refuses the connection: nothing listens there",
        ),
        ("mysql://shop:opensesame@127.0.0.1/shop", "PLATFORM_DSN is no DSN of PostgreSQL"),
        ("postgresql://shop:opensesame@127.0.0.1:port/shop", "PLATFORM_DSN is no DSN of PostgreSQL"),
    ],
)
async def test_database_that_cannot_be_had_is_told_without_its_password(dsn: str, told: str) -> None:
    """The variable, host, port and cause are told; the password is not."""
    with pytest.raises(EmbeddedError, match=told) as raised:
        await find_platform(POLICY, DATAMAP, {"PLATFORM_DSN": dsn.format(closed=free_port())})
    assert "opensesame" not in str(raised.value)


def test_part_of_a_platform_starts_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`habeas up --policy FILE` without a data map ends at once: no run is taken and nothing is started."""
    for variable in ("PLATFORM_DSN", "HABEAS_POLICY_FILE", "HABEAS_DATAMAP_DIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HABEAS_HOME", str(tmp_path))
    result = CliRunner(env={"COLUMNS": "80"}).invoke(up_command, ["--policy", str(POLICY)])
    assert result.exit_code == 1
    assert "missing: --datamap and the variable PLATFORM_DSN" in result.output
    assert not list(tmp_path.glob("run/*/state.json"))


async def test_every_store_of_the_map_needs_its_variable(tmp_path: Path) -> None:
    """A map whose store has another variable is told so before anything starts, and not by a service that ends."""
    for file in DATAMAP.glob("*.yaml"):
        (tmp_path / file.name).write_text(file.read_text().replace("PLATFORM_DSN", "SHOP_DSN"))
    with pytest.raises(EmbeddedError, match="write the environment variable SHOP_DSN=postgresql://"):
        await find_platform(POLICY, tmp_path, {"PLATFORM_DSN": DSN.format(port=1)})
